"""Georeferenced tiles of one map, read as one image: windows may cross the borders of tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simmat.errors import DataError, all_problems
from simmat.types import Georeference, ImageReader, SensorImage, Window
from simmat_plugin_geo.georeference import crs_name, same_crs

_MAX_OFF_GRID_PX = 0.05
"""How far a corner of a tile may lie off the grid of the first one: coordinates are rounded in files."""
_MIN_COVERED = 0.01
"""Part of the rectangle around all tiles that they cover at least; else they are of places far from each other."""


class Mosaic:
    """An image that consists of tiles. Where they overlap, the first one with a measurement counts.

    Only what is known of the tiles stays in memory. No file is read but the tiles.

    Args:
        tiles: images of the same channels.

    Raises:
        DataError: tiles have no georeference, different coordinate systems or pixel grids, or are far from each other.
    """

    def __init__(self, tiles: Sequence[ImageReader]) -> None:
        first, windows, problems = tiles[0].georeference, [], []
        for tile in tiles:
            try:
                windows.append(_tile_window(first, tile))
            except DataError as error:
                problems.append(str(error))
        if problems or first is None:
            raise DataError(
                all_problems(
                    f"these tiles do not fit {tiles[0].origin}, the first one:",
                    problems,
                )
            )
        around = windows[0]
        for window in windows:
            around = around.enclosing(window)
        covered = sum(math.prod(window.size_hw) for window in windows)
        if covered < _MIN_COVERED * math.prod(around.size_hw):
            raise DataError(
                f"{tiles[0].origin} and the other tiles cover less than 1 % of the {around.size_hw[1]}x"
                f"{around.size_hw[0]} pixels around them; make a separate mosaic of each area"
            )
        self._tiles, self._channels = tiles, tiles[0].read(Window(0, 0, 1, 1)).channels
        # (N, 4) as `Window`
        self._corners = np.asarray(windows) - (around.y0, around.x0) * 2
        self._place = first.shifted(around.y0, around.x0)
        self.georeference: Georeference | None = self._place
        self.size_hw = around.size_hw
        self.origin = f"mosaic of {len(tiles)} tiles, {tiles[0].origin} first"

    def read(self, window: Window) -> SensorImage:
        """Read a part of the mosaic; what no tile covers is not valid."""
        data = np.zeros((len(self._channels), *window.size_hw), np.float32)
        valid = np.zeros(data.shape, np.bool_)
        y0, x0, y1, x1 = self._corners.T
        touched = (
            (y0 < window.y1) & (y1 > window.y0) & (x0 < window.x1) & (x1 > window.x0)
        )
        for index in np.flatnonzero(touched).tolist():
            tile = Window(*self._corners[index].tolist())
            shared = window.intersection(tile)
            assert shared is not None
            part = self._tiles[index].read(shared.relative_to(tile))
            inside = (slice(None), *shared.relative_to(window).slices)
            free = ~valid[inside].any(axis=0)
            np.copyto(data[inside], part.data, where=free)
            np.copyto(valid[inside], part.valid, where=free)
        return SensorImage(
            data,
            valid,
            self._channels,
            self.origin,
            self._place.shifted(window.y0, window.x0),
        )


def _tile_window(grid: Georeference | None, tile: ImageReader) -> Window:
    """Return where a tile lies, in pixels of a grid; raise DataError if its pixels are not those of the grid."""
    place, (height, width) = tile.georeference, tile.size_hw
    if place is None or grid is None:
        raise DataError(
            f"{tile.origin}: it or the first tile has no georeference, so its place in a mosaic is unknown"
        )
    if not same_crs(place.crs, grid.crs):
        raise DataError(
            f"{tile.origin}: has the coordinate system {crs_name(place.crs)}, the first tile {crs_name(grid.crs)}; "
            "reproject it (gdalwarp -t_srs), or make a separate mosaic of each coordinate system"
        )
    own = np.array([[0, 0], [width, 0], [0, height]], np.float64)
    there = grid.to_pixels(place.to_map(own))
    x0, y0 = np.rint(there[0]).astype(int).tolist()
    off = float(np.abs(there - own - (x0, y0)).max())
    if off <= _MAX_OFF_GRID_PX:
        return Window(y0, x0, y0 + height, x0 + width)
    sizes = _pixel_size(place), _pixel_size(grid)
    if sizes[0] == sizes[1]:
        differs = (
            f"its pixels lie up to {off:.3g} pixels off the grid of the first tile"
        )
    else:
        differs = f"its pixels have the size {sizes[0]} in map units, those of the first tile {sizes[1]}"
    raise DataError(
        f"{tile.origin}: {differs}; resample it to the same grid: gdalwarp -tap -tr X Y"
    )


def _pixel_size(place: Georeference) -> str:
    """Return the width and height of a pixel: "10 x 10"."""
    a, b, _, d, e, _ = place.transform
    return f"{math.hypot(a, d):.6g} x {math.hypot(b, e):.6g}"
