"""Files of a sensor with an option `unit` that hold only fractions are told apart from counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pytest
from data_sets import one_square, save_image, save_mask
from simmat_plugin_report.data_warnings import normalized_warning

from simmat.data.dataset import open_dataset
from simmat.data.index import read_index
from simmat.io.images import read_image
from simmat.sensors.adapter import ModalityAdapter, PathsBySource, Source
from simmat.sensors.builtin import Gray
from simmat.sensors.composed_modality import ComposedModality
from simmat.sensors.options import ModalityOptions
from simmat.types import Channel, SensorImage


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
    "values",
    [
        pytest.param(fractions(0) * 2, id="beyond 1"),
        pytest.param(fractions(0) - 0.5, id="below 0"),
    ],
)
def test_counts_are_not_warned_of(values: npt.NDArray[Any], tmp_path: Path) -> None:
    """A warning that is often wrong is not read."""
    assert warning(tmp_path, Thermometer(), values) == ""


def test_a_stated_unit_is_not_warned_of(tmp_path: Path) -> None:
    """The user knows; whether the numbers can be that unit is the sensor's to check."""
    assert warning(tmp_path, Thermometer(WithUnit(unit="C")), fractions(0)) == ""
