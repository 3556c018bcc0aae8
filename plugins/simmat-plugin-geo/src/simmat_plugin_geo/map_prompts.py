"""Prompts in map coordinates: brought to pixels of an image, and read from files of points and polygons.

X stands before Y, so longitude before latitude, whatever order a coordinate system's register has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely

from simmat.errors import DataError, all_problems
from simmat.geo import Coords
from simmat.types import ImageReader, Prompt
from simmat_plugin_geo.georeference import crs_name, reproject
from simmat_plugin_geo.vectors import open_layer

OBJECT_FIELD = "object"
"""Property that names the object of a feature; features of one name are one prompt."""


def to_pixels(coords_xy: npt.ArrayLike, crs: str, image: ImageReader) -> Coords:
    """Return (N, 2) places in a coordinate system as xy in pixels of an image, which may lie outside of it.

    0, 0 is the outer corner of the top-left pixel, as for the box of a `Prompt`; its points are half a pixel less.

    Raises:
        DataError: the image has no georeference, or the places do not exist in its coordinate system.
    """
    coords = np.asarray(coords_xy, np.float64).reshape(-1, 2)
    if image.georeference is None:
        raise DataError(
            f"{image.origin}: has no coordinate reference system; give prompts in pixels"
        )
    try:
        return image.georeference.to_pixels(
            reproject(coords, crs, image.georeference.crs)
        )
    except ValueError as error:
        raise DataError(
            f"{_text(coords[0])} cannot be transformed from {crs_name(crs)} to {crs_name(image.georeference.crs)}, the "
            f"coordinate system of {image.origin}: {error}. X comes before Y, so longitude before latitude"
        ) from error


def read_prompts(path: Path, crs: str | None, image: ImageReader) -> dict[str, Prompt]:
    """Read prompts from a file of points and polygons: object -> prompt.

    A point is a click; a polygon stands for its bounding box, which is cut to the image. Objects are named by the
    property `object`, or numbered from 1; all features of an object are one prompt, with one box around its polygons.

    Args:
        path: a file of one layer.
        crs: coordinate system of the features; None takes the file's own.

    Raises:
        DataError: the image has no georeference; the file cannot be read, is without features or coordinate system, or
            holds others than points and polygons; a feature lies outside of the image.
    """
    layer = open_layer(path, "prompts")
    numbers, shapes, names = layer.read(
        OBJECT_FIELD if OBJECT_FIELD in layer.fields else None
    )
    if not numbers:
        raise DataError(
            f"{path}: no features; a prompt is a point on the object or a polygon around it"
        )
    if (crs := crs or layer.crs) is None:
        raise DataError(
            f"{path}: has no coordinate reference system; give it, such as --crs EPSG:4326"
        )
    points: dict[str, list[list[float]]] = {}
    corners: dict[str, list[Coords]] = {}
    problems: list[str] = []
    for number, shape, stated in zip(numbers, shapes, names, strict=True):
        name = stated or str(number + 1)
        try:
            if any(mark in name for mark in "/\\\0") or name in (".", ".."):
                raise DataError("becomes part of a file name; leave out / and \\")
            edges = _pixels_of(shape, crs, image)
        except DataError as error:
            problems.append(f"object {name!r}: {error}")
            continue
        points.setdefault(name, [])
        if shape.geom_type.endswith("Point"):
            points[name] += (edges - 0.5).tolist()  # 0, 0 is the centre of a pixel
        else:
            corners.setdefault(name, []).append(edges.clip(0, image.size_hw[::-1]))
    if problems:
        height, width = image.size_hw
        raise DataError(
            all_problems(
                f"{path}: prompts that {image.origin} ({width}x{height}) cannot take:",
                problems,
            )
        )
    prompts = {}
    for name, clicks in points.items():
        edges = np.concatenate(corners.get(name, [np.zeros((0, 2))]))
        box = (
            np.concatenate([edges.min(0), edges.max(0)]).astype(np.float32)
            if len(edges)
            else None
        )
        prompts[name] = Prompt(
            np.asarray(clicks, np.float32).reshape(-1, 2),
            np.ones(len(clicks), np.int64),
            box,
        )
    return prompts


def _pixels_of(shape: Any, crs: str, image: ImageReader) -> Coords:
    """Return the (N, 2) corners of a point in an image, or of a polygon that overlaps it."""
    if shape.geom_type not in ("Point", "MultiPoint", "Polygon", "MultiPolygon"):
        raise DataError(f"is a {shape.geom_type}; a prompt is a point or a polygon")
    edges = to_pixels(shapely.get_coordinates(shape), crs, image)
    low, high, size = edges.min(0), edges.max(0), np.asarray(image.size_hw[::-1])
    is_point = shape.geom_type.endswith("Point")
    if not (
        (low >= 0) & (high < size) if is_point else (high > 0) & (low < size)
    ).all():
        raise DataError(f"{_text(low)} to {_text(high)} is outside of it, in pixels")
    return edges


def _text(coords: Coords) -> str:
    return ",".join(f"{value:.6g}" for value in coords)
