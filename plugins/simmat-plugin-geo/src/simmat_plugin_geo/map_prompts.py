"""Prompts in map coordinates: brought to pixels of an image, and read from files of points and polygons.

X stands before Y, so longitude before latitude, whatever order a coordinate system's register has.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, all_problems, shortened
from simmat.io.vectors import field_names, one_layer, read_features, require_geo
from simmat.types import Georeference, Prompt

Places = npt.NDArray[np.float64]
"""(N, 2) x and y."""

OBJECT_FIELD = "object"
"""Property that names the object of a feature; features of one name are one prompt."""


def to_pixels(
    places_xy: npt.ArrayLike, crs: str, georeference: Georeference | None, origin: str = "the image"
) -> Places:
    """Return where places are in an image, as points of a `Prompt`: 0, 0 is the centre of the top-left pixel.

    Args:
        places_xy: (N, 2) x and y, or longitude and latitude.
        crs: their coordinate system, such as EPSG:4326.

    Returns:
        (N, 2) float64 xy in pixels, which may lie outside of the image.

    Raises:
        ConfigError: the coordinate system is unknown, or a library is missing.
        DataError: the image has no georeference, or the places do not exist in its coordinate system.
    """
    return _edges(places_xy, crs, georeference, origin) - 0.5


def box_to_pixels(
    box_xyxy: npt.ArrayLike, crs: str, georeference: Georeference | None, origin: str = "the image"
) -> Places:
    """Return the box in pixels around a box in map coordinates, as the box of a `Prompt`: (4,) XYXY of outer edges.

    For arguments and errors see `to_pixels`.
    """
    x0, y0, x1, y1 = np.asarray(box_xyxy, np.float64).tolist()
    edges = _edges([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], crs, georeference, origin)
    return np.concatenate([edges.min(0), edges.max(0)])


def read_prompt_features(
    path: Path, crs: str | None, georeference: Georeference | None, size_hw: tuple[int, int], origin: str = "the image"
) -> dict[str, Prompt]:
    """Read prompts from a GeoJSON, a GeoPackage, a shapefile or a FlatGeobuf: object -> prompt.

    A point is a click; a polygon stands for its bounding box, which is cut to the image. Objects are named by the
    property `object`, or numbered from 1; all features of an object are one prompt.

    Args:
        path: a file of one layer.
        crs: coordinate system of the features; None takes the file's own.

    Raises:
        ConfigError: the coordinate system is unknown, or a library is missing.
        DataError: the image has no georeference; the file cannot be read, is without features or coordinate system, or
            holds others than points and polygons; a feature lies outside of the image.
    """
    shapes, names, stated = _read_features(path)
    if crs is None and stated is None:
        raise DataError(f"{path}: has no coordinate reference system; give it, such as --crs EPSG:4326")
    parts: dict[str, _Parts] = {}
    problems: list[str] = []
    for name, shape in zip(names, shapes, strict=True):
        try:
            edges = _edges(_corners(shape), crs or stated or "", georeference, origin)
            parts.setdefault(name, _Parts()).add(shape.geom_type, edges, size_hw)
        except _FeatureError as error:
            problems.append(f"object {name!r}: {error}")
    if problems:
        height, width = size_hw
        raise DataError(all_problems(f"{path}: prompts that {origin} ({width}x{height}) cannot take:", problems))
    return {name: part.prompt() for name, part in parts.items()}


class _FeatureError(Exception):
    """A feature is not a prompt for this image."""


class _Parts:
    """What the features of one object say, in pixels."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []
        self._box: Places | None = None

    def add(self, kind: str, edges: Places, size_hw: tuple[int, int]) -> None:
        """Take a feature whose corners lie at (N, 2) pixels."""
        limits = np.asarray(size_hw[::-1], np.float64)
        if kind in ("Point", "MultiPoint"):
            if not ((edges >= 0) & (edges < limits)).all():
                raise _FeatureError(f"{_text(edges[0] - 0.5)} is outside of it, in pixels")
            self._points += [(x, y) for x, y in (edges - 0.5).tolist()]
            return
        low, high = np.maximum(edges.min(0), 0), np.minimum(edges.max(0), limits)
        if not (low < high).all():
            raise _FeatureError(f"{_text(edges.min(0))} to {_text(edges.max(0))} is outside of it, in pixels")
        if self._box is not None:
            raise _FeatureError("has two polygons; a prompt has one box")
        self._box = np.concatenate([low, high])

    def prompt(self) -> Prompt:
        """Return the prompt of all features."""
        points = np.asarray(self._points, np.float32).reshape(-1, 2)
        box = None if self._box is None else self._box.astype(np.float32)
        return Prompt(points, np.ones(len(points), np.int64), box)


def _edges(places_xy: npt.ArrayLike, crs: str, georeference: Georeference | None, origin: str) -> Places:
    """Return (N, 2) xy in pixels with the outer corner of the top-left one at 0, 0; see `to_pixels`."""
    if georeference is None:
        raise DataError(f"{origin}: has no coordinate reference system; give prompts in pixels")
    require_geo("a prompt in map coordinates", "rasterio")
    from rasterio.crs import CRS
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    places = np.asarray(places_xy, np.float64).reshape(-1, 2)
    try:
        source, target = CRS.from_user_input(crs), CRS.from_user_input(georeference.crs)
    except CRSError as error:
        raise ConfigError(f"unknown coordinate reference system {crs!r}; give a code such as EPSG:4326") from error
    if source == target:
        return georeference.to_pixels(places)
    try:
        moved = np.asarray(transform(source, target, *places.T), np.float64).T
        if not np.isfinite(moved).all():
            raise ValueError("no finite coordinates")
    except Exception as error:  # PROJ's own errors are of no public class
        raise DataError(
            f"{_text(places[0])} cannot be transformed from {shortened(crs, 40)} to the coordinate system of {origin}, "
            f"{shortened(georeference.crs, 40)}: {error}. X comes before Y, so longitude before latitude"
        ) from error
    return georeference.to_pixels(moved)


def _read_features(path: Path) -> tuple[list[Any], list[str], str | None]:
    """Return the shapely geometries of a file, the names of their objects, and its coordinate system."""
    layer = one_layer(path, "prompts")
    found = read_features(path, layer, [OBJECT_FIELD] if OBJECT_FIELD in field_names(path, layer) else None)
    if not len(found.shapes):
        raise DataError(f"{path}: no features; a prompt is a point on the object or a polygon around it")
    stated = found.fields.get(OBJECT_FIELD, [None] * len(found.shapes))
    names = [str(n + 1) if name is None else str(name) for n, name in zip(found.numbers, stated, strict=True)]
    if odd := next((name for name in names if any(mark in name for mark in "/\\\0") or name in (".", "..")), None):
        raise DataError(f"{path}: object {odd!r} becomes part of a file name; leave out / and \\")
    return list(found.shapes), names, found.crs


def _corners(shape: Any) -> Places:
    """Return the (N, 2) corners of a point or polygon."""
    import shapely

    if shape.geom_type not in ("Point", "MultiPoint", "Polygon", "MultiPolygon"):
        raise _FeatureError(f"is a {shape.geom_type}; a prompt is a point or a polygon")
    return np.asarray(shapely.get_coordinates(shape), np.float64)


def _text(place: Iterable[float]) -> str:
    return ",".join(f"{value:.6g}" for value in place)
