"""Tiles of one map segmented as one image: objects that the border of a tile cuts are whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
from runs import registry
from simmat_plugin_multispectral.adapter import Multispectral

import simmat
from simmat.cli import run
from simmat.errors import DataError
from simmat.io.images import read_image
from simmat.predictor import EverythingSettings
from simmat.predictor.open import ImageLoader
from simmat.sensors.adapter import PathsBySource, Source, WindowedAdapter
from simmat.types import Channel, SensorImage, Window

pytestmark = pytest.mark.plugins("geo")

EAST, NORTH, PIXEL = 500_000, 6_000_000, 10


def save_tile(
    path: Path, values: np.ndarray[Any, Any], y0: int, x0: int, **changes: Any
) -> Path:
    """A tile of a map of 10 m pixels, its first pixel at row y0 and column x0 of the map; 0 is nodata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": len(values),
        "width": values.shape[1],
        "dtype": "uint8",
    }
    place = rasterio.Affine(PIXEL, 0, EAST + PIXEL * x0, 0, -PIXEL, NORTH - PIXEL * y0)
    profile |= {"crs": "EPSG:32632", "transform": place, "nodata": 0, **changes}
    with rasterio.open(path, "w", **profile) as file:
        file.write(values, 1)
    return path


@pytest.fixture(scope="module")
def scene() -> np.ndarray[Any, Any]:
    """A map of 90 x 120 pixels."""
    rng = np.random.default_rng(0)
    values = rng.integers(1, 50, (90, 120)).astype(np.uint8)
    for y, x in rng.integers(5, 75, (12, 2)):
        values[y : y + 12, x : x + 12] += 100
    return values


def tiles(folder: Path, scene: np.ndarray[Any, Any]) -> list[Path]:
    """Four tiles of different sizes; those of the second row overlap the others."""
    parts = [
        Window(0, 0, 50, 70),
        Window(0, 70, 50, 120),
        Window(45, 0, 90, 33),
        Window(45, 33, 90, 120),
    ]
    return [
        save_tile(folder / f"t{index}.tif", scene[part.slices], part.y0, part.x0)
        for index, part in enumerate(parts)
    ]


def test_a_mosaic_is_the_image_that_was_cut(
    dense_bundle: Path, tmp_path: Path, scene: np.ndarray[Any, Any]
) -> None:
    """Pixels, objects and places are those of the whole map, wherever the tiles meet."""
    model = simmat.load(dense_bundle, device="cpu", registry=registry())
    whole = model.open_image(save_tile(tmp_path / "whole.tif", scene, 0, 0), tile=32)
    mosaic = model.open_mosaic(tiles(tmp_path / "tiles", scene)[::-1], tile=32)
    assert mosaic.reader.georeference == whole.reader.georeference
    assert mosaic.windows == whole.windows
    window = Window(40, 20, 72, 80)
    np.testing.assert_array_equal(
        mosaic.reader.read(window).data, whole.reader.read(window).data
    )
    every = EverythingSettings(peak=0.0, min_score=0.0, objectness=0.0)
    found = [
        [(one.instance.window, one.score) for one in image.segment_everything(every)]
        for image in (mosaic, whole)
    ]
    assert found[0] == found[1]
    assert found[0]


def test_what_no_tile_measured_is_not_valid(
    dense_bundle: Path, tmp_path: Path, scene: np.ndarray[Any, Any]
) -> None:
    """A hole in a tile is filled by the next one that covers it."""
    holed = scene[:50, :70].copy()
    holed[:20] = 0
    files = [
        save_tile(tmp_path / "a.tif", holed, 0, 0),
        save_tile(tmp_path / "b.tif", scene[10:60, 50:90], 10, 50),
    ]
    image = (
        simmat.load(dense_bundle, device="cpu", registry=registry())
        .open_mosaic(files)
        .reader
    )
    assert image.size_hw == (60, 90)
    valid = image.read(Window(0, 0, 60, 90)).valid[0]
    assert not valid[:20, :50].any()
    assert not valid[:10].any()
    assert not valid[50:, :50].any()
    assert valid[10:60, 50:90].all()


def test_predict_writes_one_map_of_all_tiles(
    dense_bundle: Path, tmp_path: Path, scene: np.ndarray[Any, Any]
) -> None:
    """One GeoTIFF and one GeoPackage, and nothing is done twice."""
    tiles(tmp_path / "tiles", scene)
    out = tmp_path / "out"
    call = [
        "predict",
        str(dense_bundle),
        str(tmp_path / "tiles"),
        "--everything",
        "--semantic",
        "--mosaic",
        "--tile",
        "32",
    ]
    assert run([*call, "--min-score", "0", "--out", str(out), "--device", "cpu"]) == 0
    names = [
        "coco.json",
        "mosaic.gpkg",
        "mosaic.json",
        "mosaic_classes.tif",
        "mosaic_objects.tif",
        "mosaic_overlay.png",
    ]
    assert sorted(path.name for path in out.iterdir()) == names
    with rasterio.open(out / "mosaic_classes.tif") as file:
        assert (file.shape, file.transform.c, file.transform.f) == (
            (90, 120),
            EAST,
            NORTH,
        )
    record = json.loads((out / "mosaic.json").read_text())
    assert len(record["files"]) == 4
    assert pyogrio.read_info(out / "mosaic.gpkg", layer="objects")["features"] == len(
        record["objects"]
    )
    assert all(one["area_m2"] == one["area"] * PIXEL**2 for one in record["objects"])
    assert sum(one["area_m2"] for one in record["classes"]) == 90 * 120 * PIXEL**2
    document = json.loads((out / "coco.json").read_text())
    assert [(image["file_name"], image["width"]) for image in document["images"]] == [
        ("mosaic", 120)
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crs": "EPSG:32633"}, "EPSG:32633"),
        (
            {"transform": rasterio.Affine(PIXEL, 0, EAST + 704, 0, -PIXEL, NORTH)},
            "0.4 pixels",
        ),
        (
            {"transform": rasterio.Affine(2 * PIXEL, 0, EAST + 1200, 0, -PIXEL, NORTH)},
            "20 x 10 .* 10 x 10.*gdalwarp",
        ),
        ({"dtype": "uint16"}, "counts as uint16, .*a.tif as uint8"),
        (
            {"transform": rasterio.Affine(PIXEL, 0, EAST + 10**6, 0, -PIXEL, NORTH)},
            "1 %",
        ),
        ({"crs": None, "transform": None}, "no georeference"),
    ],
)
def test_tiles_of_another_grid_are_named(
    dense_bundle: Path,
    tmp_path: Path,
    scene: np.ndarray[Any, Any],
    changes: dict[str, Any],
    said: str,
) -> None:
    """Nothing is resampled silently."""
    files = [
        save_tile(tmp_path / "a.tif", scene, 0, 0),
        save_tile(tmp_path / "b.tif", scene, 0, 120, **changes),
    ]
    with pytest.raises(DataError, match=said) as caught:
        simmat.load(dense_bundle, device="cpu", registry=registry()).open_mosaic(files)
    assert "b.tif" in str(caught.value) or said == "1 %"


def test_tiles_of_one_unit_may_be_stored_in_different_types(tmp_path: Path) -> None:
    """Kelvin are kelvin, whether a file holds hundredths or floats."""

    class Kelvin(WindowedAdapter):
        name, description, sources = (
            "kelvin",
            "hundredths as integers, or floats",
            (Source("kelvin", (".tif",)),),
        )
        channels = (Channel("kelvin", "temperature", "K"),)

        def read(
            self, files: PathsBySource, window: Window | None, **_: Any
        ) -> SensorImage:
            image = read_image(files["kelvin"], window=window)
            kelvin = (
                image.planes / 100 if image.planes.dtype.kind == "u" else image.planes
            )
            return SensorImage.from_planes(
                kelvin, self.channels, origin=str(image.path)
            )

    values = np.full((9, 9), 30_000)
    files = [
        save_tile(tmp_path / "a.tif", values.astype(np.uint16), 0, 0, dtype="uint16"),
        save_tile(
            tmp_path / "b.tif", (values / 100).astype(np.float32), 0, 9, dtype="float32"
        ),
    ]
    image = ImageLoader(Kelvin(), None).mosaic(files, ()).read(Window(0, 0, 9, 18))
    np.testing.assert_array_equal(image.data, np.full((1, 9, 18), 300.0))


def test_orthophotos_compressed_as_jpeg_are_tiles(tmp_path: Path) -> None:
    """Their colours are stored as YCbCr, which GDAL makes RGB of."""
    given = {
        "count": 3,
        "compress": "jpeg",
        "photometric": "ycbcr",
        "tiled": True,
        "blockxsize": 16,
        "blockysize": 16,
    }
    place = {
        "crs": "EPSG:32632",
        "dtype": "uint8",
        "driver": "GTiff",
        "height": 32,
        "width": 32,
    }
    files = []
    for index in range(2):
        transform = rasterio.Affine(
            PIXEL, 0, EAST + 32 * PIXEL * index, 0, -PIXEL, NORTH
        )
        files.append(tmp_path / f"{index}.tif")
        with rasterio.open(
            files[-1], "w", **place, **given, transform=transform
        ) as file:
            file.write(np.full((3, 32, 32), 100, np.uint8))
    assert ImageLoader(Multispectral(), None).mosaic(files, ()).size_hw == (32, 64)
