"""Pixels have a place and an area on the earth, and so have masks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from simmat_plugin_geo import backend
from simmat_plugin_geo.georeference import note_once, pixel_areas
from simmat_plugin_geo.geotiff import read_geotiff, write_geotiff
from simmat_plugin_geo.results import write_mask

from simmat.errors import DataError
from simmat.geo import GeoBackend, read_georeference
from simmat.inference import PromptResult
from simmat.types import Georeference, Prompt

FUNCTIONS: GeoBackend = backend
"""mypy compares what the core asks for with what is here."""


@pytest.mark.parametrize(
    ("crs", "transform", "area"),
    [
        ("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_540_000.0), 100.0),
        ("EPSG:32632", (6.0, 8.0, 500_000.0, 8.0, -6.0, 5_540_000.0), 100.0),
        # New York, in US feet
        (
            "EPSG:2263",
            (3.0, 0.0, 984_000.0, 0.0, -3.0, 208_000.0),
            (3 * 1200 / 3937) ** 2,
        ),
        # lengths of 1e-4 degrees at 50 north
        ("EPSG:4326", (1e-4, 0.0, 9.0, 0.0, -1e-4, 50.0), 7.169529 * 11.122903),
        (
            "EPSG:3857",
            (10.0, 0.0, 1_000_000.0, 0.0, -10.0, 6_446_275.84),
            100 * 0.4131759 * 1.0011263,
        ),
    ],
)
def test_areas_are_those_on_the_earth(
    crs: str, transform: tuple[float, ...], area: float
) -> None:
    """In degrees a pixel has no area of its own, and Web Mercator doubles the size of Germany."""
    place = Georeference(crs, transform)  # type: ignore[arg-type]
    areas = pixel_areas(place, (20, 20))
    assert areas is not None
    np.testing.assert_allclose(
        areas(np.array([[0.0, 0.0], [10.0, 10.0]])), area, rtol=2e-4
    )


def test_a_grid_that_is_not_on_the_earth_has_no_areas() -> None:
    """A plan of a factory states metres, and no place."""
    plan = 'LOCAL_CS["factory",UNIT["metre",1]]'
    assert (
        pixel_areas(Georeference(plan, (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)), (9, 9)) is None
    )


@pytest.mark.parametrize(
    "transform",
    [
        (10, 10, 500_000, 10, 10, 4_500_000),
        (10, 0, 500_000, 0, 1e-30, 4_500_000),
        (10, 0, 500_000, 20, 0, 4_500_000),
    ],
)
def test_a_file_whose_pixels_have_no_area_is_named(
    tmp_path: Path, transform: tuple[float, ...]
) -> None:
    """No place on the map has a pixel there, so a prompt or a tile has none."""
    path = tmp_path / "a.tif"
    place = Georeference("EPSG:32632", transform)  # type: ignore[arg-type]
    write_geotiff(path, np.ones((1, 4, 4), np.uint8), georeference=place)
    with pytest.raises(DataError, match=r"a\.tif: .*no area.*correct it"):
        read_georeference(path)
    with pytest.raises(DataError, match=r"a\.tif: .*no area"):
        read_geotiff(path)


def test_a_mask_has_the_place_of_its_image(tmp_path: Path) -> None:
    """A mask without coordinates is of no use in a GIS."""
    place = Georeference("EPSG:32632", (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_500_000.0))
    mask = np.eye(3, dtype=np.bool_)
    result = PromptResult("a", mask, 0.5, Prompt.points([(1, 1)]), georeference=place)
    path = tmp_path / write_mask(result, tmp_path)
    assert read_georeference(path) == place
    with rasterio.open(path) as file:
        assert file.read(1).tolist() == mask.tolist()


def _with_points(path: Path, bend: float = 0.0, spread: int = 80) -> Path:
    """Write a GeoTIFF whose place is stated by ground control points, on a grid turned by 30° or beside it."""
    transform = Affine.translation(500000, 5400000)
    transform = transform * Affine.rotation(30) * Affine.scale(2, -2)
    points = []
    for row in (0, spread // 2, spread):
        for column in (0, 60, 120):
            x, y = transform * (column, row)
            off = 2 * bend * (column == 60) * (row == spread // 2)
            points.append(GroundControlPoint(row, column, x + off, y))
    with rasterio.open(
        path, "w", driver="GTiff", width=120, height=80, count=1, dtype="uint8"
    ) as file:
        file.gcps = (points, CRS.from_epsg(32632))
        file.write(np.ones((1, 80, 120), np.uint8))
    return path


def test_ground_control_points_on_a_grid_are_a_georeference(tmp_path: Path) -> None:
    """Cameras on aircraft write the corners instead of a transform."""
    found = read_georeference(_with_points(tmp_path / "a.tif"))
    assert found is not None
    assert found.crs == "EPSG:32632"
    transform = Affine.translation(500000, 5400000)
    transform = transform * Affine.rotation(30) * Affine.scale(2, -2)
    assert found.transform == pytest.approx(tuple(transform)[:6], abs=1e-6)


@pytest.mark.parametrize(
    ("how", "message"),
    [({"bend": 3.0}, "beside an affine grid.*gdalwarp"), ({"spread": 0}, "on a line")],
)
def test_other_ground_control_points_are_none_and_it_is_said(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    how: dict[str, Any],
    message: str,
) -> None:
    """A wrong place on the map is worse than none."""
    note_once.cache_clear()
    assert read_georeference(_with_points(tmp_path / "a.tif", **how)) is None
    assert re.search(message, capsys.readouterr().err)


def test_degrees_beyond_the_poles_are_refused(tmp_path: Path) -> None:
    """Metres under the code of degrees would make a field of some hectares as large as Germany."""
    path = tmp_path / "a.tif"
    metres = Georeference("EPSG:4326", (0.5, 0, 500_000, 0, -0.5, 5_300_000))
    write_geotiff(path, np.ones((1, 4, 4), np.uint8), georeference=metres)
    with pytest.raises(DataError, match=r"a\.tif: .*EPSG:4326.*5\.3e\+06.*gdal_edit"):
        read_georeference(path)
    world = Georeference("EPSG:4326", (0.5, 0, -180, 0, -0.5, 90.25))
    write_geotiff(path, np.ones((1, 361, 720), np.uint8), georeference=world)
    assert read_georeference(path) == world
