"""Prompts in map coordinates land on the pixels that a map program shows there."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import shapely
from rasterio import warp
from simmat_plugin_geo.map_prompts import read_prompts, to_pixels

from simmat.errors import DataError
from simmat.types import Channel, Georeference, SensorImage

PLACE = Georeference("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_300_000.0))
PLANE = SensorImage.from_planes(
    np.ones((1, 100, 200)), (Channel("a", "counts", "count"),), origin="scene.tif"
)
SCENE = replace(PLANE, georeference=PLACE)
PHOTO = replace(PLANE, origin="photo.png")


def degrees(x: float, y: float) -> tuple[float, float]:
    """Return longitude and latitude of a place in the image's coordinate system."""
    ((longitude,), (latitude,)) = warp.transform("EPSG:32632", "EPSG:4326", [x], [y])
    return longitude, latitude


def geojson(path: Path, *features: tuple[Any, dict[str, Any]], **members: Any) -> Path:
    """Write shapes with properties."""
    listed = [
        {"type": "Feature", "properties": row, "geometry": shape.__geo_interface__}
        for shape, row in features
    ]
    path.write_text(
        json.dumps({"type": "FeatureCollection", **members, "features": listed})
    )
    return path


def test_a_place_in_degrees_is_the_pixel_there() -> None:
    """0, 0 is the corner of the image; the centre of its first pixel lies half a pixel inside."""
    places = [degrees(500_005, 5_299_995), degrees(500_125, 5_299_935)]
    np.testing.assert_allclose(
        to_pixels(places, "EPSG:4326", SCENE), [(0.5, 0.5), (12.5, 6.5)], atol=1e-4
    )
    np.testing.assert_allclose(
        to_pixels([(500_005, 5_299_995)], "EPSG:32632", SCENE), [(0.5, 0.5)], atol=1e-9
    )


@pytest.mark.parametrize("driver", ["GeoJSON", "GPKG"])
def test_features_in_another_coordinate_system_become_prompts(
    tmp_path: Path, driver: str
) -> None:
    """Clicks and boxes made in a map program, named by a property."""
    shapes = [
        shapely.Point(degrees(500_125, 5_299_935)),
        shapely.Polygon(
            [
                degrees(500_000 + x, 5_300_000 - y)
                for x, y in ((100, 50), (300, 50), (300, 150))
            ]
        ),
        shapely.Point(degrees(500_205, 5_299_905)),
    ]
    path = tmp_path / f"prompts.{driver.lower()}"
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.asarray(shapes, object)),
        [np.asarray(["cow", "calf", "cow"], object)],
        ["object"],
        driver=driver,
        geometry_type="Unknown",
        crs="EPSG:4326",
        layer="prompts",
    )
    prompts = read_prompts(path, None, SCENE)
    assert list(prompts) == ["cow", "calf"]
    np.testing.assert_allclose(
        prompts["cow"].point_coords, [(12, 6), (20, 9)], atol=1e-3
    )
    assert prompts["cow"].box is None
    assert prompts["calf"].box is not None
    np.testing.assert_allclose(prompts["calf"].box, (10, 5, 30, 15), atol=1e-3)


def test_a_stated_coordinate_system_counts_before_that_of_the_file(
    tmp_path: Path,
) -> None:
    """A GeoJSON without one means degrees to OGR, but many programs write metres."""
    path = geojson(tmp_path / "a.geojson", (shapely.Point(500_005, 5_299_995), {}))
    prompts = read_prompts(path, "EPSG:32632", SCENE)
    np.testing.assert_allclose(prompts["1"].point_coords, [(0, 0)])
    with pytest.raises(DataError, match="longitude"):
        read_prompts(path, None, SCENE)


def test_a_box_is_cut_at_the_border_of_the_image(tmp_path: Path) -> None:
    """A field goes on beyond the image."""
    path = geojson(
        tmp_path / "a.geojson",
        (shapely.box(499_000, 5_299_900, 500_100, 5_301_000), {}),
    )
    box = read_prompts(path, "EPSG:32632", SCENE)["1"].box
    assert box is not None
    assert box.tolist() == [0, 0, 10, 10]


def test_polygons_of_one_object_have_one_box(tmp_path: Path) -> None:
    """A road cuts a field in two."""
    parts = [
        shapely.box(500_010 + x, 5_299_960, 500_040 + x, 5_299_980) for x in (0, 50)
    ]
    path = geojson(
        tmp_path / "a.geojson", *((part, {"object": "field"}) for part in parts)
    )
    box = read_prompts(path, "EPSG:32632", SCENE)["field"].box
    assert box is not None
    np.testing.assert_allclose(box, (1, 2, 9, 4))


def test_all_features_that_are_not_prompts_are_named_at_once(tmp_path: Path) -> None:
    """One run tells everything to correct."""
    path = geojson(
        tmp_path / "a.geojson",
        (shapely.Point(499_000, 5_299_995), {"object": "west"}),
        (shapely.box(0, 0, 1, 1), {"object": "south"}),
        (
            shapely.LineString([(500_005, 5_299_995), (500_050, 5_299_995)]),
            {"object": "road"},
        ),
        (shapely.Point(500_005, 5_299_995), {"object": "good"}),
    )
    with pytest.raises(DataError) as raised:
        read_prompts(path, "EPSG:32632", SCENE)
    text = str(raised.value)
    assert all(
        part in text
        for part in ("scene.tif", "west", "south", "road", "LineString", "outside")
    )
    assert "good" not in text


def test_an_image_without_a_place_takes_no_map_coordinates(tmp_path: Path) -> None:
    """Degrees must not be read as pixels."""
    with pytest.raises(DataError, match=r"photo\.png.*coordinate reference system"):
        to_pixels([(8.5, 47.3)], "EPSG:4326", PHOTO)
    path = geojson(tmp_path / "a.geojson", (shapely.Point(8.5, 47.3), {}))
    with pytest.raises(DataError, match=r"photo\.png.*coordinate reference system"):
        read_prompts(path, None, PHOTO)


def test_files_that_hold_no_prompts_are_refused(tmp_path: Path) -> None:
    """Empty, damaged and missing files have one plain message each."""
    with pytest.raises(DataError, match="no features"):
        read_prompts(geojson(tmp_path / "a.geojson"), None, SCENE)
    (tmp_path / "b.gpkg").write_bytes(b"SQLite format 3\0 damaged")
    with pytest.raises(DataError, match=r"b\.gpkg"):
        read_prompts(tmp_path / "b.gpkg", None, SCENE)
    with pytest.raises(DataError, match="no such file"):
        read_prompts(tmp_path / "c.gpkg", None, SCENE)


LINK = {"properties": {"href": "http://localhost/"}, "type": "link"}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.geojson", "<OGRVRTDataSource/>", "content is not"),
        ("a.csv", "x,y", r"\.geojson, \.gpkg"),
        ("there;a.geojson", "{}", "rename"),
        ("a.geojson", json.dumps({"crs": LINK}), "is an address"),
        (
            "a.geojson",
            json.dumps({"a": [{"CRS\0": {**LINK, "type": "Link"}}]}).replace(
                "http", "\\u0068ttp"
            ),
            "an address",
        ),
        ("a.geojson", "{'crs': " + json.dumps(LINK) + "}", "not GeoJSON"),
    ],
)
def test_a_file_by_which_gdal_would_open_another_is_refused(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    """It knows formats that name files and servers, and coordinate systems at an address."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        read_prompts(tmp_path / name, None, SCENE)


def test_a_table_that_may_read_other_files_is_refused(tmp_path: Path) -> None:
    """SpatiaLite, which is part of some GDAL, shows a file anywhere as a table."""
    path, shape = tmp_path / "a.gpkg", shapely.to_wkb(np.array([shapely.Point(8, 47)]))
    pyogrio.raw.write(
        path, shape, [], [], driver="GPKG", geometry_type="Point", crs="EPSG:4326"
    )
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA writable_schema = ON")
        made = (
            "CREATE VIRTUAL TABLE other USING VirtualShape('/elsewhere', 'UTF-8', 4326)"
        )
        database.execute(
            "INSERT INTO sqlite_master VALUES ('table', 'other', 'other', 0, ?)", [made]
        )
        database.commit()
    with pytest.raises(DataError, match="VirtualShape"):
        read_prompts(path, None, SCENE)
