"""Measured objects: what numpy says of the same pixels, without pixels that are not valid."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from simmat_plugin_measure.measuring import (
    RING_GAP_PX,
    RING_PX,
    mean_intervals,
    measure,
    pixel_areas,
)

from simmat.data.instances import FoundObject, Instance, region_from_mask
from simmat.errors import ConfigError, DataError
from simmat.io.limits import LIMIT_VARIABLE
from simmat.measurement import SHAPE, PixelAreas, Row
from simmat.predictor import FoundObjects
from simmat.types import BoolArray, Channel, Georeference, SensorImage, Window

THERMAL = Channel("thermal", "brightness_temperature", "K")
RED = Channel("red", "reflectance", "1")
SIZE_HW = (700, 640)


def image_of(
    data: np.ndarray, valid: BoolArray | None = None, channels: Sequence[Channel] = ()
) -> SensorImage:
    return SensorImage.from_planes(data, channels or (THERMAL,), valid=valid)


def instance_of(mask: BoolArray) -> Instance:
    instance = region_from_mask(mask, None)
    assert instance is not None
    return instance


def row_of(
    image: SensorImage, *masks: BoolArray, areas: PixelAreas | None = None
) -> Row:
    """Measure objects, and return the row of the first one."""
    return measure(image, [instance_of(mask) for mask in masks], areas).row(0)


class InParts:
    """An image that can only be read in parts, and counts the pixels that are read."""

    georeference = None
    origin = "parts"

    def __init__(self, image: SensorImage) -> None:
        self.size_hw = image.size_hw
        self.read_px = 0
        self._image = image

    def read(self, window: Window) -> SensorImage:
        self.read_px += window.size_hw[0] * window.size_hw[1]
        return self._image.cut(window)


@pytest.fixture(scope="module")
def random_case() -> tuple[SensorImage, list[BoolArray]]:
    """An image of two channels with holes, and objects of many sizes, some of which overlap or touch its border."""
    rng = np.random.default_rng(0)
    data = rng.normal(290, 20, (2, *SIZE_HW)).astype(np.float32)
    valid = rng.random(data.shape) > 0.2
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    masks = []
    for _ in range(8):
        y, x = rng.uniform((0, 0), SIZE_HW)
        height, width = rng.uniform(3, 200, 2)
        masks.append(((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1)
    return image_of(data, valid, (THERMAL, RED)), masks


def test_values_are_those_of_numpy_on_the_same_pixels(
    random_case: tuple[SensorImage, list[BoolArray]],
) -> None:
    """A measurement that a user cannot repeat by hand is worth nothing."""
    image, masks = random_case
    found = measure(image, [instance_of(mask) for mask in masks])
    for mask, row in zip(masks, found.rows(), strict=True):
        for index, name in enumerate(("thermal [K]", "red [1]")):
            values = image.data[index][mask & image.valid[index]].astype(np.float64)
            expected = {
                "intensity_mean": np.mean(values),
                "intensity_std": np.std(values),
                "intensity_min": np.min(values),
                "intensity_max": np.max(values),
                "intensity_median": np.median(values),
                "intensity_percentile_5": np.percentile(values, 5),
                "intensity_percentile_95": np.percentile(values, 95),
            }
            for statistic, value in expected.items():
                assert row[f"{statistic}-{name}"] == pytest.approx(value, abs=1e-6)


def test_the_ring_leaves_out_the_edge_and_other_objects(
    random_case: tuple[SensorImage, list[BoolArray]],
) -> None:
    """The contrast must say how an object differs from what is around it, not from its neighbour."""
    image, masks = random_case
    first, second = masks[:2]
    row = row_of(image, first, second)
    distance = ndimage.distance_transform_edt(~first)
    ring = (distance > RING_GAP_PX) & (distance <= RING_GAP_PX + RING_PX)
    is_inside = 2 * (first & second).sum() > first.sum()
    if not is_inside:
        ring &= ~second
    kept = ring & image.valid[0]
    contrast = image.data[0][first & image.valid[0]].mean(
        dtype=np.float64
    ) - image.data[0][kept].mean(dtype=np.float64)
    assert row["intensity_contrast-thermal [K]"] == pytest.approx(contrast, abs=1e-6)


def test_an_image_read_in_parts_gives_the_same_numbers(
    random_case: tuple[SensorImage, list[BoolArray]],
) -> None:
    """A raster larger than memory must not change what is measured."""
    image, masks = random_case
    objects = [instance_of(mask) for mask in masks]
    parts = measure(InParts(image), objects)
    np.testing.assert_array_equal(parts.values, measure(image, objects).values)


def test_what_cannot_be_measured_is_empty() -> None:
    """Zero would be a temperature."""
    valid = np.ones((1, 40, 40), bool)
    valid[0, :20] = False
    image = image_of(np.full((1, 40, 40), 300.0), valid)
    mask = np.zeros((40, 40), bool)
    mask[2:6, 2:6] = True
    row = row_of(image, mask)
    assert row["area"] == 16
    for column, value in row.items():
        assert (value is None) == column.startswith(("intensity", "area_"))
    whole = row_of(image, np.ones((40, 40), bool))
    assert whole["intensity_mean-thermal [K]"] == 300
    assert whole["intensity_contrast-thermal [K]"] is None


def test_shapes_are_in_pixels_of_the_image() -> None:
    """Columns have the names and meaning of scikit-image, whose table of the whole image must agree."""
    from skimage.measure import regionprops_table

    mask = np.zeros((80, 90), np.uint8)
    mask[20:50, 30:40] = 1
    mask[40:50, 30:70] = 1
    names = dict.fromkeys(
        name.partition("-")[0] for name in SHAPE if name not in ("area_m2", "area_um2")
    )
    expected = regionprops_table(mask, properties=tuple(names))
    row = row_of(image_of(np.zeros((1, 80, 90))), mask == 1)
    for name, value in expected.items():
        assert row[name] == pytest.approx(value[0])


@pytest.mark.plugins("geo")
def test_areas_on_the_earth_are_in_square_metres() -> None:
    """Half a metre a pixel."""
    place = Georeference("EPSG:32632", (0.5, 0, 500_000, 0, -0.5, 5_000_000))
    data = np.zeros((1, 30, 30), np.float32)
    image = SensorImage(data, data == 0, (THERMAL,), "a.tif", place)
    areas, text = pixel_areas(image)
    mask = np.zeros((30, 30), bool)
    mask[5:15, 5:15] = True
    row = row_of(image, mask, areas=areas)
    assert text == ""
    assert row["area_m2"] == pytest.approx(25, rel=0.01)
    assert row["area_um2"] is None
    areas, text = pixel_areas(image, 0.5)
    assert areas is None
    assert "0.5 µm" in text


def test_a_pixel_size_gives_square_micrometres(tmp_path: Path) -> None:
    """That of the user, or of the file; two that differ are no certain unit."""
    file = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    tifffile.imwrite(file, np.zeros((20, 20), np.uint16), metadata=metadata)
    data = np.zeros((1, 20, 20), np.float32)
    image = SensorImage(data, data == 0, (THERMAL,), str(file))
    mask = np.zeros((20, 20), bool)
    mask[5:10, 5:10] = True
    areas, text = pixel_areas(image)
    assert row_of(image, mask, areas=areas)["area_um2"] == pytest.approx(3.125)
    assert text == ""
    areas, text = pixel_areas(image_of(data), 2.0)
    assert row_of(image, mask, areas=areas)["area_um2"] == 100
    assert text == ""
    areas, text = pixel_areas(image, 2.0)
    assert areas is None
    assert "0.5 x 0.25 µm" in text
    assert pixel_areas(image_of(data)) == (None, "")


def test_an_object_too_large_for_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Percentiles need all values at once."""
    monkeypatch.setenv(LIMIT_VARIABLE, "0.00001")
    with pytest.raises(DataError, match="max-image-gib"):
        row_of(image_of(np.zeros((1, 60, 60), np.float32)), np.ones((60, 60), bool))


def test_an_interval_is_as_wide_as_the_means_of_possible_masks_differ() -> None:
    """A sure mask of an even object leaves nothing open; without a measurement there is no interval."""
    data = np.full((2, 20, 20), 280.0)
    data[0, 5:10, 5:10] = 300
    valid = np.ones(data.shape, bool)
    valid[1] = False
    image = image_of(data, valid, (THERMAL, RED))
    mask = data[0] == 300
    measured = row_of(image, mask)
    sure = mean_intervals(image, mask.astype(np.float32), measured)
    assert sure == {
        "intensity_mean_low-thermal [K]": 300,
        "intensity_mean_high-thermal [K]": 300,
        "intensity_mean_low-red [1]": None,
        "intensity_mean_high-red [1]": None,
    }
    probability = np.full((20, 20), np.nan, np.float32)
    probability[3:12, 3:12] = 0.3
    probability[mask] = 1
    unsure = mean_intervals(image, probability, measured)
    low = unsure["intensity_mean_low-thermal [K]"]
    high = unsure["intensity_mean_high-thermal [K]"]
    assert low is not None
    assert high is not None
    assert low < 300 < high
    assert low + high == pytest.approx(600)


def test_found_objects_are_a_pandas_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a notebook shows it; where pandas is missing, the error says what to install."""
    pandas = pytest.importorskip("pandas")
    data = np.full((1, 30, 30), 300.0)
    objects = []
    for class_id in (1, None):
        window = Window(5, 5, 9, 10)
        instance = Instance(class_id, window, np.ones((4, 5), bool))
        objects.append(FoundObject(instance, 0.5, (6.0, 6.0)))
    found = FoundObjects(objects, image_of(data), {1: "cow"})
    table = found.table(pixel_size_um=2)
    assert table["label"].tolist() == [1, 2]
    assert table["class_name"].tolist()[0] == "cow"
    assert table["area"].dtype == np.int64
    assert table["area_um2"].tolist() == [80, 80]
    assert table["intensity_mean-thermal [K]"].tolist() == [300, 300]
    assert len(FoundObjects([], image_of(data), {}).table()) == 0
    assert isinstance(table, pandas.DataFrame)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError, match="pip install pandas"):
        found.table()
