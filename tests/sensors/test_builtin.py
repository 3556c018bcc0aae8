"""`rgb`, `gray` and `raster`: what they take, and what they say of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from simmat.errors import DataError
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.builtin import Gray, Raster, Rgb, band_channels
from simmat.sensors.normalize import rgb_indices
from simmat.types import SensorImage

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)


def test_rgb_gives_the_counts_of_the_file_as_rgb_channels(tmp_path: Path) -> None:
    """Channels declared RGB keep the foundation model's own statistics."""
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    image = Rgb().load({"rgb": tmp_path / "a.png"})
    assert rgb_indices(image.channels) == (0, 1, 2)
    np.testing.assert_array_equal(image.data, np.moveaxis(COLOUR, 2, 0))
    assert image.valid.all()


@pytest.mark.parametrize(
    ("values", "advice"),
    [
        (COLOUR[..., 0], "--modality gray"),
        (np.dstack([COLOUR, COLOUR[..., :1]]), "--channels 0,1,2"),
    ],
)
def test_rgb_refuses_other_pictures_and_names_the_right_modality(
    tmp_path: Path, values: np.ndarray, advice: str
) -> None:
    """Grey repeated three times, or alpha dropped, would be a silent repair."""
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=advice):
        Rgb().load({"rgb": tmp_path / "a.png"})


def test_gray_marks_what_is_not_a_number_invalid(tmp_path: Path) -> None:
    """Float cameras write NaN where they saw nothing."""
    np.save(
        tmp_path / "a.npy", np.array([[1.5, np.nan], [2.5, np.inf]], dtype=np.float32)
    )
    image = Gray().load({"gray": tmp_path / "a.npy"})
    np.testing.assert_array_equal(image.valid[0], [[True, False], [True, False]])


def test_raster_gives_all_planes_in_the_order_of_the_file(tmp_path: Path) -> None:
    """`--channels 0,3` must mean the file's own bands."""
    values = RNG.integers(-99, 9999, (12, 6, 8)).astype(np.int16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        np.moveaxis(values, 0, 2),
        photometric="minisblack",
        planarconfig="contig",
    )
    image = Raster().load({"raster": tmp_path / "a.tif"})
    np.testing.assert_array_equal(image.data, values)
    assert [channel.name for channel in image.channels] == [
        f"band{i}" for i in range(12)
    ]


@pytest.mark.parametrize(
    ("adapter", "name", "planes", "top"),
    [
        (Rgb(), "a.png", 3, 255),
        (Gray(), "a.png", 1, 255),
        (Gray(), "a.png", 1, 65535),
        (Gray(), "a.tif", 1, 0.5),
        (Raster(), "a.tif", 4, 65535),
        (Raster(), "a.npy", 4, 0.5),
    ],
)
def test_what_is_saved_is_loaded_again(
    tmp_path: Path, adapter: ModalityAdapter, name: str, planes: int, top: float
) -> None:
    """Simulated data sets are written this way."""
    values = np.linspace(0, top, planes * 20).reshape(planes, 4, 5)
    image = SensorImage.from_planes(
        np.rint(values) if top > 1 else values,
        adapter.channels or band_channels(planes),
    )
    adapter.save(image, {adapter.name: tmp_path / name})
    np.testing.assert_array_equal(
        adapter.load({adapter.name: tmp_path / name}).data, image.data
    )


def test_invalid_pixels_stay_invalid_when_saved(tmp_path: Path) -> None:
    """A hole must not come back as a measurement of 0."""
    valid = np.array([[[True, False]]])
    image = SensorImage.from_planes(
        np.array([[[3.0, 4.0]]]), Gray.channels, valid=valid
    )
    Gray().save(image, {"gray": tmp_path / "a.tif"})
    np.testing.assert_array_equal(
        Gray().load({"gray": tmp_path / "a.tif"}).valid, valid
    )
