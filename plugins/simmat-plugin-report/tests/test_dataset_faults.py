"""Faults that no single file shows: copies across splits, rare classes, empty images, shifted sensors, lost units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pytest
from data_sets import one_square, open_planes, save_image, save_mask
from scipy import ndimage
from simmat_plugin_report.checks import DataReport, check_dataset
from simmat_plugin_report.data_warnings import normalized_warning

import simmat
from simmat.data.dataset import open_dataset
from simmat.data.index import read_index
from simmat.io.images import read_image, write_image
from simmat.sensors.adapter import ModalityAdapter, PathsBySource, Source
from simmat.sensors.builtin import Gray
from simmat.sensors.composed_modality import ComposedModality
from simmat.sensors.options import ModalityOptions
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

SIZE = 64


def scene(seed: int) -> tuple[FloatArray, BoolArray]:
    """Return (1, H, W) kelvin of a warm blob on uneven, noisy ground, and where the blob is."""
    rng = np.random.default_rng(seed)
    ground = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 3) * 12
    y, x = rng.integers(12, SIZE - 24, 2)
    height, width = rng.integers(8, 16, 2)
    mask = np.zeros((SIZE, SIZE), np.bool_)
    mask[y : y + height, x : x + width] = True
    mask[y : y + height // 2, x : x + 4] = False  # not the same when flipped
    values = (
        290
        + ground
        + 9 * ndimage.gaussian_filter(mask.astype(float), 0.7)
        + rng.normal(0, 0.4, mask.shape)
    )
    return values[None].astype(np.float32), mask


def scenes(root: Path) -> Path:
    """Write 24 scenes, 12 of train, 6 of val and 6 of test."""
    for number in range(24):
        split = ("train", "train", "val", "test")[number % 4]
        values, mask = scene(number)
        save_image(root / f"images/{split}/{number:02}.npy", values)
        save_mask(root / f"masks/{split}/{number:02}.png", mask)
    return root


def checked(root: Path, kind: str) -> list[str]:
    """Return severity and text of the findings of a kind."""
    report = check_dataset(open_planes(root, regions="classes"), twice=True)
    return [
        f"{found.severity}: {found.text}"
        for found in report.findings
        if found.kind == kind
    ]


def test_a_sound_set_raises_no_alarm(tmp_path: Path) -> None:
    """An alarm without a fault is soon not read any more."""
    report = check_dataset(open_planes(scenes(tmp_path), regions="classes"), twice=True)
    assert report.findings == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda values, rng: values + rng.normal(0, 0.5, values.shape),
        lambda values, rng: 280 + 1.4 * (values - 280),
        lambda values, rng: values[..., ::-1],
        lambda values, rng: np.rot90(values, axes=(1, 2)),
        lambda values, rng: np.repeat(np.repeat(values, 2, axis=1), 2, axis=2),
    ],
)
def test_a_copy_in_another_split_is_found_however_it_was_changed(
    tmp_path: Path, change: Callable[[FloatArray, np.random.Generator], FloatArray]
) -> None:
    """Noise, another gain, a flip, a turn or another size: the digest differs, and the scores are still too good."""
    root = scenes(tmp_path)
    copy = change(scene(5)[0], np.random.default_rng(0))
    save_image(root / "images/test/99.npy", copy)
    save_mask(root / "masks/test/99.png", np.eye(copy.shape[1]))
    (found,) = checked(root, "near-duplicates")
    assert found.startswith("warning: 1 of the images of test show nearly the same")
    assert "'train/05'" in found
    assert "'test/99'" in found


def classes(root: Path, **counts: tuple[int, ...]) -> DataReport:
    """Check a set in which each split has so many images of the classes 1, 2, …."""
    for split, numbers in counts.items():
        for value, count in enumerate(numbers, start=1):
            for number in range(count):
                mask = np.zeros((8, 8))
                mask[2:5, 2:5] = value
                save_image(
                    root / f"images/{split}/{value}-{number}.npy",
                    np.random.default_rng(number).random((1, 8, 8)),
                )
                save_mask(root / f"masks/{split}/{value}-{number}.png", mask)
    return check_dataset(open_planes(root, regions="classes"))


def test_rare_and_absent_classes_are_reported(tmp_path: Path) -> None:
    """A class that is hardly there is hardly learned; one that train lacks, never."""
    report = classes(tmp_path, train=(22, 2), val=(1, 1, 1))
    found = [
        (one.severity, one.text)
        for one in report.findings
        if one.kind == "class-imbalance"
    ]
    assert [severity for severity, _ in found] == ["warning", "note"]
    assert "val has classes that are missing in train: 3" in found[0][1]
    assert "11 times as many as class 2 with 2" in found[1][1]


def test_mostly_empty_images_are_a_warning(tmp_path: Path) -> None:
    """Few are ordinary; most mean that masks are missing, or were exported empty."""
    root = scenes(tmp_path)
    for number in (0, 4, 8, 12, 16, 20, 1):
        save_mask(root / f"masks/train/{number:02}.png", np.zeros((SIZE, SIZE)))
    report = check_dataset(open_planes(root, regions="classes"))
    (found,) = [one for one in report.findings if one.kind == "background-only"]
    assert found.severity == "warning"
    assert "7 of 12 images (58%)" in found.text
    assert len(found.samples) == 7


def pairs(root: Path, down: int, right: int) -> list[str]:
    """Write pairs of a colour and a grey image, the grey one shifted, and return the warnings of shifts."""
    for index in range(5):
        rng = np.random.default_rng(index)
        ground = ndimage.gaussian_filter(rng.normal(size=(160, 160)), 3)
        scene = 128 + 400 * ground
        colour = scene[30:126, 30:126].clip(0, 255).astype(np.uint8)
        moved = scene[30 - down : 126 - down, 30 - right : 126 - right]
        other = (255 - moved).clip(0, 255).astype(np.uint8)
        write_image(root / f"images/rgb/{index}.png", np.stack([colour] * 3))
        write_image(root / f"images/gray/{index}.png", other[None])
        mask = np.zeros((1, 96, 96), np.uint8)
        mask[:, 40:60, 40:60] = 1
        write_image(root / f"masks/{index}.png", mask)
    dataset = simmat.open_dataset(root, "rgb+gray", regions="classes")
    report = check_dataset(dataset, twice=True)
    return [one.text for one in report.findings if one.kind == "shifted-sensors"]


def test_images_of_one_grid_raise_no_alarm(tmp_path: Path) -> None:
    """What is bright for one sensor is dark for the other; their edges lie together."""
    assert pairs(tmp_path, 0, 0) == []


@pytest.mark.parametrize(
    ("down", "right", "words"),
    [(0, 20, "20 px left and 0 px"), (-12, 5, "5 px left and 12 px down")],
)
def test_shifted_sensors_are_told(
    tmp_path: Path, down: int, right: int, words: str
) -> None:
    """A network that joins them learns from pixels of two different places."""
    (said,) = pairs(tmp_path, down, right)
    assert "gray seems to be shifted against rgb: median" in said
    assert words in said
    assert f"simmat align {tmp_path} --modality rgb+gray" in said


class WithUnit(ModalityOptions):
    unit: Literal["K", "C"] | None = None


class Thermometer(ModalityAdapter):
    """Numbers without a unit are counts."""

    name = "thermometer"
    description = "test sensor with an option unit"
    sources = (Source("thermometer", (".npy",)),)
    channels = (Channel("t", "counts", "count"),)
    Options: ClassVar[type[ModalityOptions]] = WithUnit

    def load(self, files: PathsBySource) -> SensorImage:
        """Read (1, H, W)."""
        image = read_image(files["thermometer"], self.nodata("thermometer"))
        return SensorImage.from_planes(
            image.planes, self.channels, valid=image.valid, origin=str(image.path)
        )


def warning(root: Path, adapter: ModalityAdapter, *images: npt.NDArray[Any]) -> str:
    several = len(adapter.sources) > 1
    for number, values in enumerate(images * 3):  # three, so that each split has one
        if several:
            save_image(root / f"images/gray/{number}.npy", values * 200)
        save_image(
            root / "images" / ("thermometer" if several else "") / f"{number}.npy",
            values,
        )
        save_mask(root / f"masks/{number}.png", one_square())
    return normalized_warning(
        read_index(open_dataset(root, adapter, {"regions": "instances"}))
    )


def fractions(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).random((1, 8, 8), np.float32)


def test_fractions_without_a_unit_are_warned_of(tmp_path: Path) -> None:
    """A normalized export has lost its unit, and was trained on as counts without a word."""
    said = warning(tmp_path, Thermometer(), fractions(0), fractions(1))
    for part in (
        "thermometer",
        str(tmp_path),
        "counts",
        "--modality-option unit=K or C",
        "sensor.toml",
    ):
        assert part in said


def test_the_option_of_a_composition_is_named(tmp_path: Path) -> None:
    """There the option needs the sensor's name; the other sensor has no unit to be asked for."""
    said = warning(tmp_path, ComposedModality((Gray(), Thermometer())), fractions(0))
    assert "--modality-option thermometer.unit=" in said
    assert "gray" not in said


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        pytest.param(fractions(0) * 2, None, id="beyond 1"),
        pytest.param(fractions(0) - 0.5, None, id="below 0"),
        pytest.param(fractions(0), "C", id="a stated unit"),
    ],
)
def test_counts_and_stated_units_are_not_warned_of(
    values: npt.NDArray[Any], unit: Literal["C"] | None, tmp_path: Path
) -> None:
    """A warning that is often wrong is not read; whether numbers can be a stated unit is the sensor's to check."""
    assert warning(tmp_path, Thermometer(WithUnit(unit=unit)), values) == ""
