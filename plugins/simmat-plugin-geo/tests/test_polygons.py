"""Masks that are polygons in map coordinates: drawn where they lie, in windows as in the whole image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from simmat_plugin_geo.vectors import Layer
from simmat_plugin_report.checks import check_dataset

from simmat.data.dataset import Dataset, open_dataset
from simmat.data.index import read_index
from simmat.errors import ConfigError
from simmat.sensors.builtin import Raster
from simmat.types import Window

FIELDS = Path(__file__).parents[4] / "shared/data/s2-fields"
UTM, EAST, NORTH, PIXEL = "EPSG:32632", 500_000, 6_000_000, 10
ENDINGS = (".gpkg", ".geojson", ".shp")
Box = tuple[int, int, int, int]
BOXES: dict[str, Box] = {
    "maize": (5, 10, 25, 30),
    "barley": (40, 40, 60, 90),
    "wheat": (20, 45, 45, 70),
}
"""Crop -> (x0, y0, x1, y1) in pixels; wheat covers a part of barley."""


def save_raster(
    path: Path, *, placed: bool = True, side: int = 96, east: int = EAST
) -> None:
    """A raster of two bands of random counts, 10 m a pixel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(side).integers(1, 4000, (2, side, side), np.uint16)
    place = (
        {"crs": UTM, "transform": rasterio.Affine(PIXEL, 0, east, 0, -PIXEL, NORTH)}
        if placed
        else {}
    )
    profile = {
        "driver": "GTiff",
        "count": 2,
        "height": side,
        "width": side,
        "dtype": "uint16",
    }
    with rasterio.open(
        path, "w", **profile, **place, tiled=True, blockxsize=32, blockysize=32
    ) as file:
        file.write(values)


def save_polygons(
    path: Path,
    names: Sequence[str | None],
    boxes: Sequence[Box],
    *,
    crs: str | None = UTM,
) -> None:
    """Boxes in pixels as polygons on the map, with the attribute "crop"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = np.array(
        [
            shapely.box(
                EAST + PIXEL * x0,
                NORTH - PIXEL * y1,
                EAST + PIXEL * x1,
                NORTH - PIXEL * y0,
            )
            for x0, y0, x1, y1 in boxes
        ]
    )
    if crs not in (None, UTM):
        from rasterio.warp import transform

        shapes = shapely.transform(
            shapes, lambda xy: np.stack(transform(UTM, crs, xy[:, 0], xy[:, 1]), axis=1)
        )
    pyogrio.raw.write(
        path,
        shapely.to_wkb(shapes),
        [np.array(names, dtype=object)],
        fields=["crop"],
        crs=crs,
        geometry_type="Polygon",
        driver={".gpkg": "GPKG", ".geojson": "GeoJSON", ".shp": "ESRI Shapefile"}[
            path.suffix
        ],
    )


def one_raster(root: Path, ending: str = ".gpkg", *, crs: str | None = UTM) -> Path:
    save_raster(root / "images/map.tif")
    save_polygons(root / f"masks/map{ending}", [*BOXES], [*BOXES.values()], crs=crs)
    return root


def opened(root: Path, **card: Any) -> Dataset:
    return open_dataset(root, Raster(), {"crop": 16, **card})


def drawn(dataset: Dataset) -> tuple[np.ndarray[Any, Any], tuple[int | None, ...]]:
    """The number of the region at each pixel of the whole image, and the classes of the regions."""
    label = dataset.label(dataset.samples[0]._replace(window=Window(0, 0, 96, 96)))
    out = np.zeros(label.size_hw, np.int64)
    for number, region in enumerate(label.regions, start=1):
        out[region.mask(label.size_hw)] = number
    return out, tuple(region.class_id for region in label.regions)


def expected() -> np.ndarray[Any, Any]:
    out = np.zeros((96, 96), np.int64)
    for number, (x0, y0, x1, y1) in enumerate(BOXES.values(), start=1):
        out[y0:y1, x0:x1] = number
    return out


@pytest.mark.parametrize("ending", ENDINGS)
def test_polygons_of_each_format_are_drawn_in_their_order(
    tmp_path: Path, ending: str
) -> None:
    """A later polygon lies on top, as a GIS shows it; other coordinates, as of a GeoJSON, are reprojected and said."""
    dataset = opened(
        one_raster(tmp_path, ending, crs="EPSG:4326" if ending == ".geojson" else UTM)
    )
    assert np.array_equal(drawn(dataset)[0], expected())
    assert dataset.card.regions == "instances"
    reported = "EPSG:4326" in dataset.split_note and UTM in dataset.split_note
    assert reported is (ending == ".geojson")


def test_a_window_is_drawn_as_the_whole_image_is(tmp_path: Path) -> None:
    """Polygons over several windows must fit together without a gap."""
    dataset = opened(one_raster(tmp_path))
    for sample in dataset.samples:
        assert sample.window is not None
        label = dataset.label(sample)
        found = np.zeros(label.size_hw, np.bool_)
        for region in label.regions:
            found |= region.mask(label.size_hw)
        assert np.array_equal(found, expected()[sample.window.slices] > 0)


def test_an_attribute_gives_classes(tmp_path: Path) -> None:
    """The class of a region is that of its polygon, numbered by name over the whole file."""
    dataset = opened(one_raster(tmp_path), class_attribute="crop")
    assert dataset.class_names == {1: "barley", 2: "maize", 3: "wheat"}
    assert drawn(dataset)[1] == (2, 1, 3)
    assert read_index(dataset).classes(dataset.split("train")) == (1, 2, 3)
    assert drawn(opened(tmp_path))[1] == (None, None, None)


def test_classes_of_the_card_keep_their_number(tmp_path: Path) -> None:
    """A bundle's classes must mean the same on other data."""
    (one_raster(tmp_path) / "card.toml").write_text(
        'class_attribute = "crop"\n[class_names]\n4 = "wheat"\n9 = "oats"\n'
    )
    assert opened(tmp_path).class_names == {
        4: "wheat",
        9: "oats",
        10: "barley",
        11: "maize",
    }


def test_classes_join_polygons_of_one_class(tmp_path: Path) -> None:
    """With --regions classes a crop is one region, however many fields it has."""
    root = one_raster(tmp_path)
    save_polygons(root / "masks/map.gpkg", ["maize", "rye", "maize"], [*BOXES.values()])
    found, classes = drawn(opened(root, class_attribute="crop", regions="classes"))
    assert classes == (1, 2)
    assert np.array_equal(found == 1, (expected() == 1) | (expected() == 3))


def test_pixels_of_a_polygon_without_class_are_ignored(tmp_path: Path) -> None:
    """There is an object, but of what class nobody knows."""
    root = one_raster(tmp_path)
    save_polygons(root / "masks/map.gpkg", ["maize", None, "wheat"], [*BOXES.values()])
    dataset = opened(root, class_attribute="crop")
    label = dataset.label(dataset.samples[0]._replace(window=Window(0, 0, 96, 96)))
    assert np.array_equal(label.ignore, expected() == 2)
    assert len(label.regions) == 2


def test_an_unknown_attribute_lists_the_known_ones(tmp_path: Path) -> None:
    """Attributes have short names in any language."""
    with pytest.raises(ConfigError, match=r"'Crop'.*'crop'"):
        opened(one_raster(tmp_path), class_attribute="Crop")


def test_an_attribute_without_polygons_is_refused(tmp_path: Path) -> None:
    """It would be ignored in silence."""
    save_raster(tmp_path / "images/map.tif")
    (tmp_path / "masks").mkdir()
    np.save(tmp_path / "masks/map.npy", np.ones((96, 96), np.uint8))
    with pytest.raises(ConfigError, match="--class-attribute"):
        opened(tmp_path, regions="instances", class_attribute="crop")


def faults(dataset: Dataset) -> str:
    return "\n".join(check_dataset(dataset).errors)


def test_an_image_without_georeference_is_refused(tmp_path: Path) -> None:
    """The polygons could lie anywhere in it."""
    save_raster(one_raster(tmp_path) / "images/map.tif", placed=False)
    found = faults(opened(tmp_path))
    assert "map.tif" in found
    assert "georeference the image" in found


def test_polygons_elsewhere_are_refused(tmp_path: Path) -> None:
    """The wrong file, or a wrong coordinate system, must not train an empty map."""
    save_raster(one_raster(tmp_path) / "images/map.tif", east=EAST + 10**6)
    found = faults(opened(tmp_path))
    assert "none of its 3 polygons" in found
    assert UTM in found


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (EAST, NORTH, ("500000", "EPSG:4326", "ogr2ogr -a_srs")),
        (99, 5, ("EPSG:4326", UTM)),
    ],
)
def test_degrees_that_are_none_or_far_from_the_image_are_refused(
    tmp_path: Path, x: float, y: float, said: tuple[str, ...]
) -> None:
    """A GeoJSON that does not name its coordinate system has longitude and latitude, by its standard."""
    root = one_raster(tmp_path)
    (root / "masks/map.gpkg").unlink()
    shape = shapely.box(x, y, x + 0.5, y + 0.5).__geo_interface__
    feature = {"type": "Feature", "properties": {}, "geometry": shape}
    (root / "masks/map.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature]})
    )
    found = faults(opened(root))
    assert all(part in found for part in ("map.geojson", *said))


def test_points_are_refused(tmp_path: Path) -> None:
    """A point has no pixels."""
    one_raster(tmp_path)
    (tmp_path / "masks/map.gpkg").unlink()
    point = {
        "type": "Feature",
        "properties": {},
        "geometry": {"type": "Point", "coordinates": [9, 54]},
    }
    (tmp_path / "masks/map.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [point]})
    )
    assert "Point" in faults(opened(tmp_path))


@pytest.mark.parametrize("content", [b"", b"<OGRVRTDataSource/>", b'{"type": '])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    """GDAL would open by content whatever it knows, also what names other files."""
    one_raster(tmp_path)
    (tmp_path / "masks/map.gpkg").unlink()
    (tmp_path / "masks/map.geojson").write_bytes(content)
    assert "map.geojson" in faults(opened(tmp_path))


def test_two_layers_are_refused(tmp_path: Path) -> None:
    """Which one holds the objects is the user's to say."""
    one_raster(tmp_path)
    shape = shapely.to_wkb(np.array([shapely.box(0, 0, 1, 1)]))
    pyogrio.raw.write(
        tmp_path / "masks/map.gpkg",
        shape,
        [],
        fields=[],
        crs=UTM,
        geometry_type="Polygon",
        layer="b",
        append=True,
    )
    assert "'map', 'b'" in faults(opened(tmp_path))


@pytest.mark.skipif(not FIELDS.is_dir(), reason="needs shared/data/s2-fields")
def test_real_fields_of_a_real_satellite_image(tmp_path: Path) -> None:
    """A shapefile as an authority publishes it: names with accents, fields without a crop."""
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    shutil.copyfile(FIELDS / "RGB_small.tif", tmp_path / "images/fields.tif")
    for path in FIELDS.glob("marker2016_small.*"):
        shutil.copyfile(path, tmp_path / f"masks/fields{path.suffix}")
    dataset = open_dataset(
        tmp_path, Raster(), {"crop": 64, "class_attribute": "Afgroede"}
    )
    assert {"Vårbyg", "Vinterhvede"} < set(dataset.class_names.values())
    report = check_dataset(dataset)
    assert not report.errors
    assert {split.name: split.samples for split in report.splits} == {
        "train": 30,
        "val": 6,
        "test": 6,
    }
    assert min(split.regions for split in report.splits) > 50


def test_polygons_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may hold a million polygons, and there are many windows."""
    dataset = opened(one_raster(tmp_path))
    calls: list[str] = []
    read = Layer.read
    monkeypatch.setattr(
        Layer,
        "read",
        lambda layer, field: calls.append(layer.name) or read(layer, field),
    )
    for sample in dataset.samples:
        dataset.label(sample)
    assert len(calls) == 1
