"""Outlines of objects and of the regions of class maps, as shapely polygons in pixels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import shapely
from rasterio import Affine, features
from shapely.geometry import shape

from simmat.data.instances import Instance
from simmat.errors import DataError
from simmat.inference import ImageResult, label_bands


def object_outline(instance: Instance) -> Any:
    """Return the MultiPolygon of an object; pixels that touch at a corner alone are of two polygons."""
    y0, x0, _, _ = instance.window
    return shapely.multipolygons([outline for _, outline in _outlines(instance.crop, instance.crop, y0, x0)])


def class_outlines(result: ImageResult) -> Iterator[tuple[int, Any]]:
    """Yield value and Polygon of each region of connected pixels of one class, in any order.

    Pixels that touch at a corner alone are not connected. The map is read in bands of rows. Regions that reach into
    more than one band are kept as parts and joined at the end, so memory grows with these outlines, not with the map.
    """
    ignored = sorted(result.ignored_values)
    parts: defaultdict[int, list[Any]] = defaultdict(list)
    for y0, band in label_bands(result):
        y1 = y0 + len(band)
        if (band > np.iinfo(np.int32).max).any():
            raise DataError("the class map has label values above 2^31, which have no polygons; use --format labels")
        for value, outline in _outlines(band, ~np.isin(band, ignored), y0, 0):
            _, top, _, bottom = outline.bounds
            if 0 < top == y0 or bottom == y1 < result.size_hw[0]:
                parts[value].append(outline)
            else:
                yield value, outline
    for value, outlines in parts.items():
        for outline in shapely.get_parts(shapely.simplify(shapely.union_all(outlines), 0)):  # no corners at bands
            yield value, outline


def _outlines(values: npt.NDArray[Any], mask: npt.NDArray[np.bool_], y0: int, x0: int) -> Iterator[tuple[int, Any]]:
    """Yield value and Polygon of the regions of a part of an image whose first pixel is at row y0 and column x0."""
    if mask.any():
        kept = values if values.dtype in (np.uint8, np.uint16) else values.astype(np.int32)
        for outline, value in features.shapes(kept, mask, connectivity=4, transform=Affine.translation(x0, y0)):
            yield int(value), shape(outline)
