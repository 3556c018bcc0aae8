"""Outlines of objects and of the regions of a class map, exactly along the edges of their pixels.

Coordinates are x, y in pixels, the corner of the first pixel at 0, 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.results.result import ImageResult, label_bands

if TYPE_CHECKING:
    from simmat.data.instances import Instance

_SHEET_WIDTH = 4096
"""Columns of objects that are outlined at once, fewer than 2^16."""


def object_outlines(instances: Iterable[Instance]) -> Iterator[Any]:
    """Yield the shapely MultiPolygon of each object; pixels that touch at a corner alone are of two polygons."""
    row: list[Instance] = []
    width = 0
    for instance in instances:
        if row and width + instance.crop.shape[1] > _SHEET_WIDTH:
            yield from _outlined(row)
            row, width = [], 0
        row.append(instance)
        width += instance.crop.shape[1]
    yield from _outlined(row)


def _outlined(instances: Sequence[Instance]) -> list[Any]:
    """Return the outlines of objects whose crops are laid side by side: a call for each takes several times longer."""
    import shapely
    from rasterio import features

    lefts = np.cumsum([0, *(instance.crop.shape[1] for instance in instances)]).tolist()
    sheet = np.zeros((max((len(instance.crop) for instance in instances), default=0), lefts[-1]), np.uint16)
    for number, instance in enumerate(instances, start=1):
        sheet[: len(instance.crop), lefts[number - 1] : lefts[number]][instance.crop] = number
    polygons: list[list[Any]] = [[] for _ in instances]
    for outline, value in features.shapes(sheet, mask=sheet > 0, connectivity=4) if sheet.size else ():
        index = int(value) - 1
        y0, x0, _, _ = instances[index].box
        move = np.asarray([x0 - lefts[index], y0])
        shell, *holes = (np.asarray(ring) + move for ring in outline["coordinates"])
        polygons[index].append(shapely.Polygon(shell, holes))
    return [shapely.multipolygons(found) for found in polygons]


def class_outlines(result: ImageResult) -> Iterator[tuple[int, Any]]:
    """Yield value and shapely Polygon of each region of connected pixels of one class, in any order.

    Pixels that touch at a corner alone are not connected. The map is read in bands of rows. Regions that reach into
    more than one band are kept as parts and joined at the end, so memory grows with these outlines, not with the map.
    """
    import shapely
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unseen = sorted(result.unseen)
    height, width = result.size_hw
    parts: list[tuple[int, Any]] = []
    pairs: list[npt.NDArray[np.int64]] = []
    above = np.full(width, -1)  # the part at each pixel of the last row of the band above
    for y0, band in label_bands(result):
        y1 = y0 + len(band)
        top, bottom = np.full(width, -1), np.full(width, -1)
        for value, outline in _band_outlines(band, y0, unseen):
            _, first, _, last = shapely.bounds(outline).tolist()
            at_top, at_bottom = first == y0 > 0, last == y1 < height
            if not at_top and not at_bottom:
                yield value, outline
                continue
            if at_top:
                _mark(top, outline, y0, len(parts))
            if at_bottom:
                _mark(bottom, outline, y1, len(parts))
            parts.append((value, outline))
        values = np.asarray([value for value, _ in parts], np.int64)
        touching = (above >= 0) & (top >= 0)
        touching[touching] = values[above[touching]] == values[top[touching]]
        pairs.append(np.unique(np.stack([above[touching], top[touching]], axis=1), axis=0))
        above = bottom
    links = np.concatenate(pairs).astype(np.int32)  # (L, 2) parts that share an edge; older scipy takes no wider type
    graph = coo_array((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(len(parts), len(parts)))
    count, groups = connected_components(graph, directed=False)
    order = np.argsort(groups, kind="stable")
    for members in np.split(order, np.searchsorted(groups[order], np.arange(1, count))) if parts else []:
        value = parts[members[0]][0]
        joined = shapely.union_all([parts[index][1] for index in members])
        for outline in shapely.get_parts(shapely.simplify(joined, 0)):  # no corners where bands met
            yield value, outline


def _band_outlines(band: npt.NDArray[Any], y0: int, unseen: list[int]) -> Iterator[tuple[int, Any]]:
    """Yield value and Polygon of the regions of a band whose first row is y0."""
    from rasterio import features, transform
    from shapely.geometry import shape

    seen = ~np.isin(band, unseen)
    if not seen.any():
        return
    values = band if band.dtype in (np.uint8, np.uint16) else band.astype(np.int32)
    if (values != band).any():
        raise DataError("the class map has label values above 2^31, which have no polygons; use --format labels")
    place = transform.Affine.translation(0, y0)
    for outline, value in features.shapes(values, mask=seen, connectivity=4, transform=place):
        yield int(value), shape(outline)


def _mark(row: npt.NDArray[np.int64], outline: Any, y: int, number: int) -> None:
    """Write a number to the (W,) pixels of a row along which an outline runs at height y."""
    import shapely

    corners, rings = shapely.get_coordinates(shapely.get_rings(outline), return_index=True)
    along = (corners[:-1, 1] == y) & (corners[1:, 1] == y) & (rings[:-1] == rings[1:])
    for one, other in zip(corners[:-1][along, 0].tolist(), corners[1:][along, 0].tolist(), strict=True):
        row[int(min(one, other)) : int(max(one, other))] = number
