"""Parts of a GeoTIFF: the same numbers and place as in the whole, and no more read than is asked for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from simmat_plugin_multispectral.adapter import (
    Landsat8,
    Multispectral,
    MultispectralOptions,
)

from simmat import SensorImage, Window
from simmat.errors import DataError
from simmat.sensors.adapter import load_sample
from simmat.sensors.composed_modality import ComposedModality

NUMBERS = np.random.default_rng(0).integers(200, 9000, (4, 90, 130)).astype(np.int16)
WINDOWS = [
    Window(0, 0, 90, 130),
    Window(15, 17, 47, 99),
    Window(89, 129, 90, 130),
    Window(0, 100, 10, 130),
]
PLACE = {
    "crs": "EPSG:32632",
    "transform": rasterio.Affine(10, 0, 500000, 0, -10, 5400000),
}
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 16}


def _write(
    path: Path, planes: Any, *, names: str = "abcd", **how: Any
) -> dict[str, Path]:
    profile = {
        "driver": "GTiff",
        "photometric": "minisblack",
        "dtype": planes.dtype.name,
        **PLACE,
        **how,
    }
    count, height, width = planes.shape
    with rasterio.open(
        path, "w", count=count, height=height, width=width, **profile
    ) as file:
        file.write(planes)
        for index, name in enumerate(names[:count], 1):
            file.set_band_description(index, name)
    return {"multispectral": path}


@pytest.mark.parametrize(
    "sensor", [Multispectral(MultispectralOptions(scale=1e-4)), Landsat8()]
)
def test_a_window_of_nothing_but_fill_is_read(
    tmp_path: Path, sensor: Multispectral
) -> None:
    """Zeros and ones alone say nothing about the scale of the whole file; the whole would be refused."""
    files = _write(
        tmp_path / "a.tif",
        np.ones((7, 40, 40), np.int16),
        names=["b1", "b2", "b3", "b4", "b5", "b6", "b7"],
    )
    with pytest.raises(DataError, match="reflectance already"):
        sensor.load(files)
    assert load_sample(sensor, files, window=Window(3, 3, 20, 20)).size_hw == (17, 17)


def test_only_the_bands_that_are_picked_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A satellite image may have 200 bands, of which a model takes three."""
    files = _write(tmp_path / "a.tif", NUMBERS, interleave="band", **TILED)
    picked = ComposedModality([Multispectral()], ["c", 0])
    whole = picked.transform(picked.load(files)).cut(WINDOWS[1])
    seen: list[list[int]] = []
    opened = rasterio.open

    def recording(*arguments: Any, **more: Any) -> Any:
        return _Recorded(opened(*arguments, **more), seen)

    monkeypatch.setattr(rasterio, "open", recording)
    # files that were read are kept open
    copied = shutil.copy(tmp_path / "a.tif", tmp_path / "unopened.tif")
    part = picked.transform(
        load_sample(picked, dict.fromkeys(files, Path(copied)), window=WINDOWS[1])
    )
    np.testing.assert_array_equal(part.data, whole.data)
    assert [channel.name for channel in part.channels] == ["c", "a"]
    assert part.valid.all()
    assert seen == [[1, 3]]


class _Recorded:
    """An open file that says which bands were read."""

    def __init__(self, file: Any, seen: list[list[int]]) -> None:
        self.file, self.seen = file, seen

    def read(self, bands: list[int], **how: Any) -> Any:
        self.seen.append(list(bands))
        return self.file.read(bands, **how)

    def read_masks(self, bands: list[int], **how: Any) -> Any:
        raise AssertionError(
            "a file without nodata and mask has none; GDAL's cache would be full of them"
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


class _Index(Multispectral):
    """Computes a channel of two bands."""

    def transform(self, image: SensorImage) -> SensorImage:
        return SensorImage.from_planes(
            image.data[:1] + image.data[1:2], image.channels[:1], valid=image.valid[:1]
        )


def test_a_sensor_that_computes_of_several_bands_reads_them_all(tmp_path: Path) -> None:
    """The band that is not picked is needed for the one that is."""
    files = _write(tmp_path / "a.tif", NUMBERS)
    picked = ComposedModality([_Index()], ["a"])
    part = picked.transform(load_sample(picked, files, window=WINDOWS[1]))
    np.testing.assert_array_equal(
        part.data, picked.transform(picked.load(files)).cut(WINDOWS[1]).data
    )


def test_windows_of_a_huge_scene_are_read(tmp_path: Path) -> None:
    """20,000 x 20,000 pixels in 7 bands, none of whose tiles is there: refused as a whole, nodata in every window."""
    path = tmp_path / "a.tif"
    profile = {
        "driver": "GTiff",
        "dtype": "int16",
        "nodata": -1,
        "sparse_ok": True,
        "compress": "deflate",
        **TILED,
    }
    with rasterio.open(
        path,
        "w",
        count=7,
        height=20_000,
        width=20_000,
        **{**profile, "blockysize": 512},
    ) as file:
        file.write(np.full((1, 1), 5, np.int16), 1, window=((0, 1), (0, 1)))
    files = {"multispectral": path}
    with pytest.raises(DataError, match="claims 7 x 20000 x 20000"):
        Multispectral().load(files)
    part = load_sample(
        Multispectral(), files, window=Window(15_000, 3_000, 15_256, 3_256)
    )
    assert part.data.shape == (7, 256, 256)
    assert not part.valid.any()


@pytest.mark.parametrize("window", [Window(0, 0, 91, 5), Window(-1, 0, 5, 5)])
def test_a_window_beyond_the_file_is_refused(tmp_path: Path, window: Window) -> None:
    """rasterio would return less than was asked for."""
    files = _write(tmp_path / "a.tif", NUMBERS)
    with pytest.raises(DataError, match=r"a\.tif: is 130x90"):
        load_sample(Multispectral(), files, window=window)
