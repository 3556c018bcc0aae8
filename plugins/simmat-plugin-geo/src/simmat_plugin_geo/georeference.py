"""Georeferences of GeoTIFF files, through rasterio, which is imported on use: sensors load this at every start."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from simmat.errors import DataError, SimMATError, shortened, what_is_wrong
from simmat.geo import Coords
from simmat.terminal import echo
from simmat.types import Georeference

_EQUATOR_M, _ECCENTRICITY = 6378137.0, 0.0818191908426215  # of WGS 84, NIMA TR8350.2
_AREA_STEP_PX = 8.0
"""Half the distance over which the size of a pixel is measured; less would be lost in the digits of degrees."""
_MAX_POINT_ERROR_PX = 0.5
"""How far ground control points may lie beside an affine grid."""
_MAX_AREA_DIFFERENCE = 0.01
"""How much an area may differ in a map and on the earth, to be that of the map, as other map programs give it."""


def read_georeference(path: Path) -> Georeference | None:
    """Return the georeference of a GeoTIFF; None if it states no coordinate system and affine grid.

    Raises:
        DataError: the file is damaged, or its pixels have no area.
    """
    with gdal_errors(path), quiet(), open_geotiff(path) as file:
        return georeference_of(file, str(path))


@contextmanager
def gdal_errors(path: Path) -> Iterator[None]:
    """Turn what GDAL raises about a file into a DataError."""
    try:
        yield
    except SimMATError:
        raise
    except Exception as error:  # GDAL's own errors are of no public class
        raise DataError(
            f"{path}: damaged, or not what its name says ({what_is_wrong(error)})"
        ) from error


def open_geotiff(path: Path) -> Any:
    """Open a GeoTIFF with rasterio, and no other file, now or when it is read.

    GDAL would open what stands beside it (.aux.xml, .msk, .ovr, .tfw) in any of its formats, and by a VRT or a URL any
    file or server. Call `quiet` around it.

    Raises:
        DataError: the file names another file as its overview.
    """
    import rasterio

    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        # a relative one may start as an address of GDAL
        file = rasterio.open(path.absolute(), driver="GTiff")
    check_overviews(file, str(path))
    return file


def check_overviews(file: Any, origin: str) -> None:
    """Raise DataError for an open rasterio dataset that names another file as its overview, which GDAL would open."""
    if elsewhere := file.tags(ns="OVERVIEWS").get("OVERVIEW_FILE"):
        raise DataError(
            f"{origin}: names another file, {elsewhere!r}, as its overview; write it with overviews inside"
        )


def georeference_of(file: Any, origin: str) -> Georeference | None:
    """Return the georeference of an open rasterio dataset; None without coordinate system or affine grid.

    Ground control points count as an affine grid where they lie on one.

    Raises:
        DataError: the affine transform has no inverse, or degrees are beyond the poles.
    """
    crs = file.crs
    transform = file.transform
    points, crs_of_points = file.gcps
    if transform.is_identity and crs_of_points is not None:
        crs = crs_of_points
        transform = _affine_of_points(points, origin)
    if crs is None or transform.is_identity or not np.isfinite(transform).all():
        return None
    code = crs.to_epsg()
    a, b, c, d, e, f = tuple(transform)[:6]
    if np.linalg.matrix_rank([[a, b], [d, e]]) < 2:
        raise DataError(
            f"{origin}: its affine transform ({a:g}, {b:g}, {c:g}, {d:g}, {e:g}, {f:g}) gives pixels no area, so they "
            "have no place on the map; correct it: gdal_edit.py -a_ullr WEST NORTH EAST SOUTH FILE"
        )
    if crs.is_geographic:
        height, width = file.shape
        latitude = d * width / 2 + e * height / 2 + f
        if abs(latitude) * crs.units_factor[1] > math.pi / 2:
            raise DataError(
                f"{origin}: its coordinate system {crs.to_string()} has latitudes from -90 to 90 degrees, but the "
                f"middle of the image is at {latitude:g}, which may be metres; state the right one: gdal_edit.py "
                "-a_srs EPSG:NUMBER FILE"
            )
    return Georeference(f"EPSG:{code}" if code else crs.to_wkt(), (a, b, c, d, e, f))


def _affine_of_points(points: Sequence[Any], origin: str) -> Any:
    """Return the affine transform through ground control points; the identity, and a note, if they lie on none."""
    from rasterio import Affine

    # (N, 3), (N, 2)
    pixels = np.array([[point.col, point.row, 1.0] for point in points])
    places = np.array([[point.x, point.y] for point in points])
    if np.linalg.matrix_rank(pixels) < 3:
        note_once(
            f"note: {origin}: its {len(points)} ground control points lie on a line, so it has no place on the map"
        )
        return Affine.identity()
    middle = places.mean(0)  # far from 0, where digits would be lost
    solved, *_ = np.linalg.lstsq(pixels, places - middle, rcond=None)
    (a, d), (b, e), (c, f) = solved.tolist()
    if np.linalg.matrix_rank([[a, b], [d, e]]) < 2:
        return Affine(a, b, c + middle[0], d, e, f + middle[1])
    errors = (pixels @ solved - (places - middle)) @ np.linalg.inv([[a, d], [b, e]])
    largest = float(np.hypot(*errors.T).max())
    if largest > _MAX_POINT_ERROR_PX:
        note_once(
            f"note: {origin}: its {len(points)} ground control points lie up to {largest:.3g} pixels beside an affine "
            "grid, so results have no place on the map; resample it: gdalwarp -tps OLD NEW.tif"
        )
        return Affine.identity()
    return Affine(a, b, c + middle[0], d, e, f + middle[1])


@lru_cache(maxsize=1024)
def note_once(text: str) -> None:
    """Print a note on standard error the first time."""
    echo(text, err=True)


def profile_of(georeference: Georeference | None) -> dict[str, Any]:
    """Return the arguments of `rasterio.open` that write a georeference."""
    if georeference is None:
        return {}
    import rasterio

    return {
        "crs": rasterio.crs.CRS.from_user_input(georeference.crs),
        "transform": rasterio.Affine(*georeference.transform),
    }


def reproject(coords_xy: Coords, source: str, target: str) -> Coords:
    """Map (N, 2) coordinates, x before y, from one coordinate system to another.

    Raises:
        ValueError: a point has no place in the other one, or a coordinate system is unknown.
    """
    from rasterio.crs import CRS
    from rasterio.warp import transform

    try:
        systems = CRS.from_user_input(source), CRS.from_user_input(target)
        if systems[0] == systems[1]:
            return coords_xy
        moved = np.stack(transform(*systems, coords_xy[:, 0], coords_xy[:, 1]), axis=1)
    except Exception as error:  # GDAL's and PROJ's own errors are of no public class
        raise ValueError(str(error)) from error
    if not np.isfinite(moved).all():
        raise ValueError("a point is outside of the projection")
    return moved


def same_crs(one: str, other: str) -> bool:
    """Return whether two texts name one coordinate system."""
    from rasterio.crs import CRS

    return one == other or bool(CRS.from_user_input(one) == CRS.from_user_input(other))


def crs_name(crs: str) -> str:
    """Return the name of a coordinate system: "EPSG:32632", or what its WKT calls it."""
    return crs.split('"')[1] if '"' in crs else shortened(crs, 40)


def pixel_areas(
    georeference: Georeference, size_hw: tuple[int, int]
) -> Callable[[Coords], Coords] | None:
    """Return what maps (N, 2) xy in pixels to the (N,) area of a pixel there, in m².

    Areas are those of the map, where it is true to area within 1 % in the middle of the image, as UTM is. For degrees,
    and for maps that stretch areas, as Web Mercator does, they are those on the ellipsoid of WGS 84. None if the
    coordinate system is not one of the earth.
    """
    import rasterio
    from rasterio.crs import CRS
    from rasterio.warp import transform

    crs = CRS.from_user_input(georeference.crs)

    def on_ellipsoid(points_xy: Coords) -> Coords:
        steps = (
            np.array([[-1, 0], [1, 0], [0, -1], [0, 1], [0, 0]], np.float64)
            * _AREA_STEP_PX
        )
        # (N * 5, 2)
        places = georeference.to_map(points_xy[:, None] + steps).reshape(-1, 2)
        degrees = np.stack(
            transform(crs, "EPSG:4326", places[:, 0], places[:, 1]), axis=1
        )
        left, right, above, below, here = (
            np.radians(degrees).reshape(-1, 5, 2).transpose(1, 0, 2)
        )
        # (N, 2)
        along_x, along_y = (
            (right - left) / (2 * _AREA_STEP_PX),
            (below - above) / (2 * _AREA_STEP_PX),
        )
        squared = 1 - _ECCENTRICITY**2 * np.sin(here[:, 1]) ** 2
        metres_squared = (
            _EQUATOR_M**2 * (1 - _ECCENTRICITY**2) / squared**2 * np.cos(here[:, 1])
        )
        return np.asarray(
            np.abs(along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0])
            * metres_squared
        )

    with rasterio.Env():
        try:
            middle = float(
                on_ellipsoid(np.array([[size_hw[1] / 2, size_hw[0] / 2]]))[0]
            )
        except Exception:  # GDAL's own errors are of no public class
            return None
    if not (math.isfinite(middle) and middle > 0):
        return None
    a, b, _, d, e, _ = georeference.transform
    in_map = (
        abs(a * e - b * d) * crs.linear_units_factor[1] ** 2
        if crs.is_projected
        else math.inf
    )
    if abs(in_map / middle - 1) <= _MAX_AREA_DIFFERENCE:
        return lambda points_xy: np.full(len(points_xy), in_map)
    return on_ellipsoid


@contextmanager
def quiet() -> Iterator[None]:
    """Silence two of rasterio's warnings.

    Files without a georeference are normal here, and where a nodata value hides an alpha band from GDAL's mask, the
    reader looks at both.
    """
    from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield
