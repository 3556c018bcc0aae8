"""GeoJSON and GeoPackage of found objects and class maps: other tools see the same pixels in the same place."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from found_results import (
    PLACE,
    classes_result,
    found,
    found_box,
    objects_result,
    write_result,
)
from simmat_plugin_geo import results
from simmat_plugin_measure.measuring import measure, pixel_areas

from simmat.errors import DataError
from simmat.inference.formats import LabelMap, label_bands
from simmat.types import Channel, Georeference, SensorImage

OBJECTS = {"gpkg": "a.gpkg", "geojson": "a_objects.geojson"}
TURNED = Georeference("EPSG:32632", (8.0, 3.0, 500_000.0, 3.0, -8.0, 5_300_000.0))


def read(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    """Return the outlines and properties of a file, by OGR."""
    meta, _, outlines, columns = pyogrio.raw.read(path)
    rows = [
        dict(zip(meta["fields"], values, strict=True))
        for values in zip(*columns, strict=True)
    ]
    return shapely.from_wkb(outlines), rows


def burnt(
    outlines: Any,
    values: list[int],
    size_hw: tuple[int, int],
    place: Georeference | None,
) -> LabelMap:
    """Return the pixels whose centres lie in the outlines."""
    affine = rasterio.Affine(*place.transform) if place else rasterio.Affine.identity()
    if not len(outlines):
        return np.zeros(size_hw, np.int32)
    pairs = zip(outlines, values, strict=True)
    return rasterio.features.rasterize(
        pairs, out_shape=size_hw, transform=affine, dtype="int32"
    )


def noise(height: int, width: int, seed: int = 0) -> LabelMap:
    """Return a class map with holes, corners that touch and islands in lakes."""
    coarse = np.random.default_rng(seed).integers(0, 4, (height // 2, width // 2))
    classes = np.kron(coarse, np.ones((2, 2), np.int64))
    classes[::7, ::5] = 3
    return classes


@pytest.mark.parametrize("place", [None, PLACE, TURNED])
@pytest.mark.parametrize("name", ["geojson", "gpkg"])
def test_an_outline_covers_the_pixels_of_its_object_and_no_others(
    tmp_path: Path, name: str, place: Georeference | None
) -> None:
    """Holes, islands in holes and parts that touch at a corner are kept."""
    masks = [
        np.pad(noise(20, 30, seed) == 2, ((seed, 9 - seed), (5, 5)))
        for seed in range(3)
    ]
    objects = [
        found(mask, 1 + seed % 2, 0.9 - seed / 10) for seed, mask in enumerate(masks)
    ]
    assert write_result(
        objects_result((29, 40), *objects, place=place), [name], tmp_path
    ) == [OBJECTS[name]]
    outlines, rows = read(tmp_path / OBJECTS[name])
    assert shapely.is_valid(outlines).all()
    assert len(outlines) == 3
    assert {outline.geom_type for outline in outlines} == {"MultiPolygon"}
    for mask, outline, row in zip(masks, outlines, rows, strict=True):
        np.testing.assert_array_equal(burnt([outline], [1], mask.shape, place), mask)
        assert row["area_px"] == mask.sum()
        area = np.nan if place is None else mask.sum() * (100 if place is PLACE else 73)
        np.testing.assert_allclose(np.float64(row["area_m2"] or np.nan), area)
    assert [row["id"] for row in rows] == [1, 2, 3]
    assert rows[1]["class_name"] == "person"
    assert rows[1]["score"] == pytest.approx(0.8)
    assert rows[1]["class_probability"] == 0.75


@pytest.mark.parametrize("name", ["geojson", "gpkg"])
def test_regions_that_bands_cut_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A lake is one polygon, whatever rows are read at once."""
    classes = noise(60, 50)
    classes[:, 20:23] = 1  # from top to bottom
    classes[5:55, 30], classes[54, 30:40], classes[5:55, 39] = 2, 2, 2
    whole = classes_result(classes, place=PLACE)
    write_result(whole, [name], tmp_path)
    file = tmp_path / {"gpkg": "a.gpkg", "geojson": "a_classes.geojson"}[name]
    expected, _ = read(file)
    monkeypatch.setattr(results, "label_bands", lambda result: label_bands(result, 7))
    write_result(whole, [name], tmp_path)
    outlines, rows = read(file)
    assert shapely.is_valid(outlines).all()
    assert sorted(shapely.normalize(outlines).tolist(), key=str) == sorted(
        shapely.normalize(shapely.simplify(expected, 0)).tolist(), key=str
    )
    np.testing.assert_array_equal(
        burnt(outlines, [row["class"] for row in rows], classes.shape, PLACE), classes
    )


@pytest.mark.parametrize("name", ["geojson", "gpkg"])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", None])
def test_a_file_states_the_coordinate_system_of_the_image(
    tmp_path: Path, name: str, crs: str | None
) -> None:
    """Pixels are no degrees: a file of an image without a place states none."""
    place = None if crs is None else Georeference(crs, (0.5, 0, 8, 0, -0.5, 50))
    write_result(
        objects_result((9, 9), found_box(1, 1, 3, 3), place=place), [name], tmp_path
    )
    info = pyogrio.read_info(tmp_path / OBJECTS[name])
    # of a GeoJSON, OGR takes no answer for longitude and latitude
    if crs is not None or name == "gpkg":
        assert info["crs"] == crs
    assert info["total_bounds"] == (
        (1, 1, 3, 3) if crs is None else (8.5, 48.5, 9.5, 49.5)
    )
    assert ("pixels" in (info["layer_metadata"] or {}).get("DESCRIPTION", "")) == (
        crs is None
    )
    if name == "geojson":
        head = json.loads((tmp_path / "a_objects.geojson").read_text())
        assert ("crs" in head) == (crs != "EPSG:4326")
        assert crs is not None or head["crs"] is None


def test_a_geojson_is_refused_where_it_cannot_name_the_coordinate_system(
    tmp_path: Path,
) -> None:
    """Without a name, readers take longitude and latitude."""
    crs = rasterio.crs.CRS.from_proj4(
        "+proj=laea +lat_0=47.3 +lon_0=8.1 +datum=WGS84"
    ).to_wkt()
    result = objects_result(
        (9, 9), found_box(1, 1, 3, 3), place=Georeference(crs, PLACE.transform)
    )
    with pytest.raises(DataError, match="gpkg"):
        write_result(result, ["gpkg", "geojson"], tmp_path)
    assert not list(tmp_path.iterdir())
    write_result(result, ["gpkg"], tmp_path)
    assert rasterio.crs.CRS.from_user_input(
        pyogrio.read_info(tmp_path / "a.gpkg")["crs"]
    ) == rasterio.crs.CRS.from_wkt(crs)


def test_many_outlines_are_written_a_part_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers go on, and nothing is empty that has a value."""
    monkeypatch.setattr(results, "CHUNK", 4)
    objects = [
        found_box(y, 0, y + 1, 5, None if y % 2 else 1, 0.5 - y / 100)
        for y in range(10)
    ]
    for name in ("gpkg", "geojson"):
        write_result(objects_result((10, 9), *objects), [name], tmp_path)
        outlines, rows = read(tmp_path / OBJECTS[name])
        assert [row["id"] for row in rows] == list(range(1, 11))
        assert [outline.bounds[1] for outline in outlines] == list(range(10))
        assert [row["class_name"] for row in rows] == ["car", None] * 5
    with sqlite3.connect(tmp_path / "a.gpkg") as base:
        assert base.execute(
            "select count(*) from objects where class is null"
        ).fetchone() == (5,)
        assert base.execute(
            "select count(*) from objects where class_probability is null"
        ).fetchone() == (10,)


def test_a_large_empty_map_is_outlined_in_bands(tmp_path: Path) -> None:
    """The map of a satellite scene lies on disk and is never read whole."""
    import tracemalloc

    classes = np.memmap(tmp_path / "map", np.uint8, "w+", shape=(12_000, 6000))
    classes[100:11_900, 4000:4010] = 7
    tracemalloc.start()
    write_result(classes_result(classes, place=PLACE), ["gpkg"], tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < classes.size
    outlines, rows = read(tmp_path / "a.gpkg")
    assert [(row["class"], row["area_px"]) for row in rows] == [(7, 118_000)]
    assert len(shapely.get_coordinates(outlines)) == 5


@pytest.mark.parametrize("name", ["geojson", "gpkg"])
def test_measurements_are_attributes(tmp_path: Path, name: str) -> None:
    """Map programs colour and filter by them; what cannot be measured is null, not NaN or 0."""
    kelvin = Channel("thermal", "brightness_temperature", "K")
    data = np.full((1, 30, 40), 300, np.float32)
    valid = np.ones(data.shape, np.bool_)
    valid[0, :15] = False
    image = SensorImage(data, valid, (kelvin,), georeference=PLACE)
    boxes = found_box(2, 3, 10, 9), found_box(20, 5, 28, 15, score=0.9)
    result = objects_result((30, 40), *boxes, place=PLACE)
    areas, _ = pixel_areas(image)
    measured = measure(image, [one.instance for one in result.ranked], areas)
    result = replace(result, measurements=measured)
    write_result(result, [name], tmp_path)
    _, rows = read(tmp_path / OBJECTS[name])
    for row, expected in zip(rows, measured.rows(), strict=True):
        for column, value in expected.items():
            if value is None:
                assert row[column] is None or np.isnan(row[column])
            else:
                assert row[column] == pytest.approx(value)
    assert rows[0]["intensity_mean-thermal [K]"] == 300
    assert "NaN" not in (tmp_path / OBJECTS[name]).read_bytes().decode("latin-1")
