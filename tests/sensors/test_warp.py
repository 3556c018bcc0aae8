"""The image of one sensor is brought onto the pixel grid of another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simmat.data.card import make_card
from simmat.errors import ConfigError, DataError
from simmat.io.images import window_size
from simmat.sensors.adapter import (
    ModalityAdapter,
    PathsBySource,
    Source,
    load_sample,
    with_data_card,
)
from simmat.sensors.composed_modality import ComposedModality
from simmat.types import Channel, SensorImage, Window

SHIFTED = [[1.0, 0.0, 2.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]
"""The pixel (0, 0) of the first source is the pixel (2, 1) of the other."""


class Plane(ModalityAdapter):
    """One plane of an npy file, read in windows; NaN is invalid."""

    description = "test"

    def __init__(self, name: str, unit: str = "K") -> None:
        self.name = name
        self.sources = (Source(name, (".npy",)),)
        self.channels = (Channel(name, "value", unit),)

    def load(self, files: PathsBySource) -> SensorImage:
        return SensorImage.from_planes(np.load(files[self.name]), self.channels)

    def load_window(self, files: PathsBySource, window: Window) -> SensorImage:
        return self.load(files).cut(window)

    def window_size(self, files: PathsBySource) -> tuple[int, int] | None:
        return window_size(files[self.name])


def pair(
    root: Path, first: np.ndarray, second: np.ndarray, unit: str = "K"
) -> tuple[ComposedModality, dict[str, Path]]:
    """Write a plane of each of two sensors, and return their composition with the files."""
    files = {}
    for name, values in (("a", first), ("b", second)):
        (root / name).mkdir(exist_ok=True)
        files[name] = root / name / "x.npy"
        np.save(files[name], np.asarray(values, np.float32))
    return ComposedModality([Plane("a"), Plane("b", unit)]), files


def aligned(sensor: ModalityAdapter, **alignment: Any) -> ModalityAdapter:
    """Return the sensor with a card that states where `b` lies on the grid of `a`."""
    return with_data_card(sensor, {"alignment": {"b": {"reference": "a", **alignment}}})


def ramp(height: int, width: int) -> np.ndarray:
    """Return values that are linear in x and y, so that a linear interpolation is exact."""
    y, x = np.mgrid[:height, :width]
    return 10.0 * y + x


def test_values_come_from_where_the_matrix_says(tmp_path: Path) -> None:
    """A shift of whole pixels moves values unchanged; what no pixel shows is invalid."""
    sensor, files = pair(tmp_path, np.zeros((4, 5)), ramp(4, 5))
    image = aligned(sensor, matrix=SHIFTED).load(files)
    np.testing.assert_array_equal(image.data[1, :3, :3], ramp(4, 5)[1:, 2:])
    assert image.valid[1, :3, :3].all()
    assert not image.valid[1, 3].any()
    assert not image.valid[1, :, 3:].any()
    assert image.valid[0].all()


def test_a_finer_image_is_averaged_not_skipped(tmp_path: Path) -> None:
    """A colour picture on a thermal grid: picking every third pixel would alias."""
    fine = np.random.default_rng(0).normal(size=(12, 15))
    sensor, files = pair(tmp_path, np.zeros((4, 5)), fine)
    third = [[3.0, 0.0, 1.0], [0.0, 3.0, 1.0], [0.0, 0.0, 1.0]]
    image = aligned(sensor, matrix=third).load(files)
    means = fine.astype(np.float32).reshape(4, 3, 5, 3).mean((1, 3))
    np.testing.assert_allclose(image.data[1], means, atol=1e-6)
    assert image.valid.all()


def test_a_value_beside_an_invalid_one_is_invalid(tmp_path: Path) -> None:
    """Half of a value that was not measured must not enter another."""
    values = ramp(4, 5)
    values[1, 2] = np.nan
    sensor, files = pair(tmp_path, np.zeros((4, 5)), values)
    between = [[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    image = aligned(sensor, matrix=between).load(files)
    expected = np.ones((4, 5), bool)
    expected[:, 4] = False
    expected[1, 1:3] = False
    np.testing.assert_array_equal(image.valid[1], expected)
    assert image.data[1, 1, 1] == 0


def test_angles_are_not_averaged(tmp_path: Path) -> None:
    """The mean of 179° and 1° is no angle between them."""
    angles = np.tile([179.0, 1.0], (3, 3))
    sensor, files = pair(tmp_path, np.zeros((3, 6)), angles, unit="deg")
    between = [[1.0, 0.0, 0.4], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    image = aligned(sensor, matrix=between).load(files)
    np.testing.assert_array_equal(image.data[1], angles)


@pytest.mark.parametrize("step", [0.4, 1.0, 2.7])
def test_a_window_equals_that_part_of_the_image(tmp_path: Path, step: float) -> None:
    """Large images are read in windows, and a seam would be an edge."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(70, 90))
    values[rng.random(values.shape) < 0.01] = np.nan
    sensor, files = pair(tmp_path, np.zeros((50, 60)), values)
    matrix = [[step, 0.03, 4.2], [-0.02, step, -3.1], [1e-4, 2e-4, 1.0]]
    sensor = aligned(sensor, matrix=matrix)
    whole = sensor.load(files)
    assert sensor.window_size(files) == (50, 60)
    assert whole.valid[1].any()
    assert not whole.valid[1].all()
    for window in (Window(0, 0, 20, 20), Window(13, 27, 50, 60), Window(31, 0, 32, 60)):
        part = load_sample(sensor, files, window)
        np.testing.assert_array_equal(part.data, whole.cut(window).data)
        np.testing.assert_array_equal(part.valid, whole.cut(window).valid)


def test_each_image_may_have_its_own_matrix(tmp_path: Path) -> None:
    """A hand-held second camera points elsewhere in each picture; prediction finds the matrix beside the file."""
    sensor, files = pair(tmp_path, np.zeros((4, 5)), ramp(4, 5))
    sensor = aligned(sensor)
    with pytest.raises(DataError, match=r"alignment\.json is missing.*simmat align"):
        sensor.load(files)
    beside = tmp_path / "b/alignment.json"
    beside.write_text(json.dumps({"matrices": {"x.npy": SHIFTED}}))
    assert sensor.load(files).data[1, 0, 0] == 12
    beside.write_text(json.dumps({"matrices": {"other.npy": SHIFTED}}))
    with pytest.raises(DataError, match=r"no alignment of it"):
        sensor.load(files)
    beside.write_text(json.dumps({"matrices": {"x.npy": [[0, 0, 0]] * 3}}))
    with pytest.raises(DataError, match="not an alignment"):
        sensor.load(files)


def test_a_missing_reference_leaves_its_grid(tmp_path: Path) -> None:
    """Masks are drawn on the colour picture's grid, also where only the thermal file is left."""
    sensor, files = pair(tmp_path, np.zeros((4, 5)), ramp(4, 5))
    del files["a"]
    image = aligned(sensor, matrix=SHIFTED, reference_size=[6, 3]).load(files)
    assert image.size_hw == (3, 6)
    assert image.data[0, 0, 0] == 12
    with pytest.raises(DataError, match="does not state its size"):
        aligned(sensor, matrix=SHIFTED).load(files)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    """The matrix of a full frame shifts a thumbnail to another place."""
    sensor, files = pair(tmp_path, np.zeros((4, 5)), ramp(4, 5))
    for stated in ({"size": [10, 8]}, {"reference_size": [10, 8]}):
        with pytest.raises(DataError, match="is 5x4, but the alignment of b"):
            aligned(sensor, matrix=SHIFTED, **stated).load(files)
        with pytest.raises(DataError, match="10x8"):
            aligned(sensor, matrix=SHIFTED, **stated).window_size(files)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]], "inverted"),
        ([[0.0] * 3] * 3, "last number"),
        ([[1.0, 0.0, float("nan")], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "finite"),
        ([[1.0, 0.0], [0.0, 1.0]], "matrix"),
        ([["1", 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], "number"),
    ],
)
def test_a_matrix_that_maps_nothing_is_refused(matrix: Any, expected: str) -> None:
    """A card is written by hand, too."""
    card = {"regions": "instances", "alignment": {"b": {"reference": "a"}}}
    card["alignment"]["b"]["matrix"] = matrix
    with pytest.raises(ConfigError, match=f"alignment.*{expected}"):
        make_card(card, where="here")


def test_alignments_have_one_reference(tmp_path: Path) -> None:
    """A chain of cameras could contradict itself."""
    for alignment in (
        {"b": {"reference": "a"}, "c": {"reference": "b"}},
        {"a": {"reference": "a"}},
    ):
        with pytest.raises(ConfigError, match="reference"):
            make_card({"regions": "instances", "alignment": alignment}, where="here")
        sensor, _ = pair(tmp_path, np.zeros((4, 5)), np.zeros((4, 5)))
        with pytest.raises(ConfigError, match="reference"):
            with_data_card(sensor, {"alignment": alignment})
