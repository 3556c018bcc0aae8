"""The paper's encodings of polarization: what is read, left as it is, and refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from simmat_plugin_aims import MODALITIES

from simmat.errors import DataError
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import SensorImage

ADAPTERS: dict[str, ModalityAdapter] = {adapter.name: adapter for adapter in MODALITIES}
SIZE_HW = (6, 8)
RNG = np.random.default_rng(0)


def load(modality: str, files: dict[str, Path]) -> SensorImage:
    """Read one sample."""
    return ADAPTERS[modality].load(files)


def test_what_is_missing_is_invalid_in_the_benchmarks_planes(tmp_path: Path) -> None:
    """Angle and degree are of one colour each; the other colours do not miss it."""
    rng = np.random.default_rng(0)
    files = {name: tmp_path / f"{name}.tif" for name in ("aolp", "dolp")}
    for name, file in files.items():
        values = rng.integers(8, 256, (*SIZE_HW, 3)).astype(np.uint8)
        if name == "dolp":
            values[2, 3, 1] = 7
        tifffile.imwrite(
            file, values, photometric="rgb", extratags=[(42113, "s", 0, "7", True)]
        )
    image = load("polarization-aims", files)
    assert np.argwhere(~image.valid).tolist() == [[4, 2, 3]]


def test_what_is_missing_is_invalid_in_all_that_the_benchmarks_planes_make_of_it(
    tmp_path: Path,
) -> None:
    """Colour, angle and degree of one colour come from its four pictures."""
    rng = np.random.default_rng(0)
    files = {name: tmp_path / f"{name}.tif" for name in ("i0", "i45", "i90", "i135")}
    for name, file in files.items():
        values = rng.integers(8, 256, (*SIZE_HW, 3)).astype(np.uint8)
        if name == "i90":
            values[2, 3, 1] = 7
        tifffile.imwrite(
            file, values, photometric="rgb", extratags=[(42113, "s", 0, "7", True)]
        )
    image = load("polarization-aims-angles", files)
    assert np.argwhere(~image.valid).tolist() == [[1, 2, 3], [4, 2, 3], [7, 2, 3]]


def test_the_benchmarks_encoding_is_left_as_it_is(tmp_path: Path) -> None:
    """Its figures were reached with plain counts, mirrored without physics."""
    planes = RNG.integers(0, 256, (2, *SIZE_HW, 3)).astype(np.uint8)
    for name, values in zip(("aolp", "dolp"), planes, strict=True):
        tifffile.imwrite(tmp_path / f"a_{name}.tiff", values, photometric="rgb")
    adapter = ADAPTERS["polarization-aims"]
    image = adapter.load(
        {name: tmp_path / f"a_{name}.tiff" for name in ("aolp", "dolp")}
    )
    expected = np.concatenate([np.moveaxis(values, 2, 0) for values in planes])
    np.testing.assert_array_equal(image.data, expected)
    assert image.channels == adapter.channels
    np.testing.assert_array_equal(
        adapter.flip(image, "horizontal").data, expected[:, :, ::-1]
    )
    assert adapter.transform(image) is image


def test_the_benchmarks_encoding_refuses_other_files(tmp_path: Path) -> None:
    """One plane is another encoding."""
    Image.fromarray(np.zeros(SIZE_HW, dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError,
        match=r"three 8-bit planes, got 1 of uint8; polarization with files=aolp-dolp reads",
    ):
        load(
            "polarization-aims",
            {"aolp": tmp_path / "a.png", "dolp": tmp_path / "a.png"},
        )


def test_four_colour_pictures_give_the_benchmark_encoding(tmp_path: Path) -> None:
    """ZJU-RGB-P publishes pictures only: fully polarized red at 45 degrees is half of the full angle, all of degree."""
    red = {"i0": 100, "i45": 200, "i90": 100, "i135": 0}
    for name, level in red.items():
        picture = np.full((2, 3, 3), 80, dtype=np.uint8)
        picture[..., 0] = level
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    image = load(
        "polarization-aims-angles", {name: tmp_path / f"{name}.png" for name in red}
    )
    names = [channel.name for channel in image.channels]
    assert names == [
        "red",
        "green",
        "blue",
        *(f"{q}_{c}" for q in ("aolp", "dolp") for c in ("red", "green", "blue")),
    ]
    np.testing.assert_allclose(
        image.data[:, 0, 0], [100, 80, 80, 255 / 4, 0, 0, 255, 0, 0]
    )


def test_four_colour_pictures_come_back_as_saved(tmp_path: Path) -> None:
    """Simulated sets of the encoding are read as any other, to the rounding of 8 bits."""
    adapter = ADAPTERS["polarization-aims-angles"]
    planes = np.stack(
        [
            np.full((2, 2), v)
            for v in (120.0, 90.0, 60.0, 30.0, 90.0, 200.0, 100.0, 60.0, 80.0)
        ]
    )
    files = {source.name: tmp_path / f"{source.name}.png" for source in adapter.sources}
    adapter.save(SensorImage.from_planes(planes, adapter.channels), files)
    np.testing.assert_allclose(adapter.load(files).data, planes, atol=3)


def test_four_grey_pictures_are_not_the_benchmark(tmp_path: Path) -> None:
    """One plane has no colours to make nine channels of."""
    files = {name: tmp_path / f"{name}.png" for name in ("i0", "i45", "i90", "i135")}
    for path in files.values():
        Image.fromarray(np.zeros((2, 2), np.uint8)).save(path)
    with pytest.raises(
        DataError,
        match="three 8-bit planes behind each polarizer, got 1 of uint8; polarization reads",
    ):
        load("polarization-aims-angles", files)
