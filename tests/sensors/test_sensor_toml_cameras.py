"""The files of a `sensor.toml` are of cameras that do not share one pixel grid."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simmat.errors import ConfigError, DataError
from simmat.sensors.adapter import (
    ModalityAdapter,
    PathsBySource,
    Source,
    load_sample,
    with_data_card,
)
from simmat.sensors.composed_modality import ComposedModality
from simmat.sensors.sensor_toml import TomlModality, parse_sensor_definition
from simmat.types import Channel, SensorImage, Window

RED = [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
"""The pixel (0, 0) of the first band is the pixel (2, 1) of red."""
NIR = [[0.5, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]]
"""The camera of nir has half of the resolution."""


def rig(*extra_sources: str) -> TomlModality:
    """Return a sensor with a file for each of three bands; nir is the first channel, but the last file."""
    bands = ("green", "red", "nir")
    sources = []
    for name in (*bands, *extra_sources):
        sources.append({"name": name, "files": f"*_{name}.npy"})
    channels = []
    for name in ("nir", "green", "red"):
        channels.append(
            {"name": name, "source": name, "quantity": "counts", "unit": "count"}
        )
    values = {"format": 1, "name": "rig", "source": sources, "channel": channels}
    return TomlModality(parse_sensor_definition(values, "rig.toml"))


class Colour(ModalityAdapter):
    """Another camera, of one plane."""

    name = "colour"
    description = "test"
    sources = (Source("colour", (".npy",)),)
    channels = (Channel("gray", "value", "1"),)

    def load(self, files: PathsBySource) -> SensorImage:
        return SensorImage.from_planes(np.load(files["colour"]), self.channels)


class Joined(Colour):
    """A sensor of two files on one grid."""

    name = "joined"
    sources = (Source("left", (".npy",)), Source("right", (".npy",)))


def ramp(height: int, width: int) -> np.ndarray:
    """Return values by which a pixel is recognized."""
    y, x = np.mgrid[:height, :width]
    return (10 * y + x).astype(np.uint16)


def write(root: Path, planes: Mapping[str, np.ndarray]) -> dict[str, Path]:
    """Write a file for each source."""
    files = {}
    for name, plane in planes.items():
        files[name] = root / f"a_{name}.npy"
        np.save(files[name], plane)
    return files


def card(reference: str = "green", **matrices: Any) -> dict[str, Any]:
    """Return a card that states where sources lie on the grid of a reference."""
    alignment = {}
    for name, matrix in matrices.items():
        alignment[name] = {"reference": reference, "matrix": matrix}
    return {"alignment": alignment}


def test_bands_are_brought_onto_the_grid_of_the_first(tmp_path: Path) -> None:
    """Every band lies where its matrix says, in the order of the channels, in whole images and in windows."""
    files = write(tmp_path, {"green": ramp(6, 8), "red": ramp(6, 8), "nir": ramp(3, 4)})
    with pytest.raises(DataError, match="simmat align"):
        rig().load(files)
    sensor = with_data_card(rig(), card(red=RED, nir=NIR))
    image = sensor.load(files)
    assert [channel.name for channel in image.channels] == ["nir", "green", "red"]
    np.testing.assert_array_equal(image.data[1], ramp(6, 8))
    np.testing.assert_array_equal(image.data[2, :5, :6], ramp(6, 8)[1:, 2:])
    np.testing.assert_array_equal(image.valid[2].sum(), 5 * 6)
    np.testing.assert_array_equal(image.data[0, :5:2, :7:2], ramp(3, 4))
    assert sensor.window_size(files) == (6, 8)
    window = Window(1, 2, 5, 7)
    part = load_sample(sensor, files, window)
    np.testing.assert_array_equal(part.data, image.cut(window).data)
    np.testing.assert_array_equal(part.valid, image.cut(window).valid)


def test_a_rig_may_be_used_with_another_camera(tmp_path: Path) -> None:
    """`colour+rig`: all bands are aligned with the colour camera, whatever the first band."""
    files = write(tmp_path, dict.fromkeys(("green", "red", "nir"), ramp(6, 8)))
    files |= write(tmp_path, {"colour": np.zeros((6, 8))})
    green = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    stated = card("colour", green=green, red=RED, nir=green)
    joined = with_data_card(ComposedModality([Colour(), rig()]), stated)
    image = joined.load(files)
    names = [channel.name for channel in image.channels]
    assert names == ["gray", "nir", "green", "red"]
    np.testing.assert_array_equal(image.data[2, :, :7], ramp(6, 8)[:, 1:])
    np.testing.assert_array_equal(image.data[3, :5, :6], ramp(6, 8)[1:, 2:])
    alone = with_data_card(rig(), stated).load(files)
    np.testing.assert_array_equal(alone.data[2, :5, :7], ramp(6, 8)[1:, 1:])


def test_a_band_that_is_placed_by_nothing_is_refused() -> None:
    """A matrix to another sensor's pixels says nothing if the first band has none."""
    for sensor in (rig(), ComposedModality([Colour(), rig()])):
        with pytest.raises(ConfigError, match=r"alignment\.red.*'green'"):
            with_data_card(sensor, card("colour", red=RED))


def test_files_on_one_grid_have_no_alignment_of_their_own() -> None:
    """Half-images of one chip are not moved against each other."""
    for sensor in (Joined(), ComposedModality([Colour(), Joined()])):
        with pytest.raises(ConfigError, match=r"alignment\.right.*one pixel grid"):
            with_data_card(sensor, card("left", right=RED))
    unused = rig("pan")
    assert unused.cameras() == (unused,)
    with pytest.raises(ConfigError, match=r"alignment\.red.*one pixel grid"):
        with_data_card(unused, card(red=RED))
