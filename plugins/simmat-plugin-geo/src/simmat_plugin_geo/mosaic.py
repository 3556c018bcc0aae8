"""Georeferenced tiles of one map, read as one image: windows may cross the borders of tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simmat.data.instances import enclosing_window, shared_window
from simmat.errors import DataError, SimMATError, all_problems
from simmat.predictor.reading import Files, ImageReader, Inputs
from simmat.types import Channel, Georeference, SensorImage, Window, same_channels

_OFF_GRID = 0.05
"""How far a corner of a tile may lie off the grid of the first one, in pixels: coordinates are rounded in files."""
_LEAST_COVERED = 0.01
"""Part of the rectangle around all tiles that they cover at least; else they are of places far from each other."""


class Mosaic:
    """An image that consists of tiles. Where they overlap, the first one with a measurement counts.

    Only what is known of the tiles stays in memory. No file is read but the tiles.
    """

    def __init__(self, tiles: Sequence[ImageReader], channels: tuple[Channel, ...]) -> None:
        """Lay tiles side by side.

        Args:
            tiles: with a georeference each.
            channels: what every tile holds.

        Raises:
            DataError: tiles have different coordinate systems or pixel grids, or are far from each other.
        """
        first = tiles[0].georeference
        assert first is not None
        windows, problems = [], []
        for tile in tiles:
            try:
                windows.append(_window_on(first, tile))
            except DataError as error:
                problems.append(str(error))
        if problems:
            raise DataError(all_problems(f"these tiles do not fit {tiles[0].origin}, the first one:", problems))
        around = windows[0]
        for window in windows:
            around = enclosing_window(around, window)
        covered = sum(math.prod(window.size_hw) for window in windows)
        if covered < _LEAST_COVERED * math.prod(around.size_hw):
            raise DataError(
                f"{tiles[0].origin} and the other tiles cover less than 1 % of the {around.size_hw[1]}x"
                f"{around.size_hw[0]} pixels around them; make a mosaic of each area by itself"
            )
        self._tiles, self._channels = tiles, channels
        self._corners = np.asarray(windows) - (around.y0, around.x0) * 2  # (N, 4) as `Window`
        self.size_hw = around.size_hw
        self.georeference: Georeference | None = first.shifted(around.y0, around.x0)
        self.origin = f"mosaic of {len(tiles)} tiles, {tiles[0].origin} first"

    def read(self, window: Window) -> SensorImage:
        """Read a part of the mosaic; what no tile covers is not valid."""
        data = np.zeros((len(self._channels), *window.size_hw), np.float32)
        valid = np.zeros(data.shape, np.bool_)
        y0, x0, y1, x1 = self._corners.T
        touched = (y0 < window.y1) & (y1 > window.y0) & (x0 < window.x1) & (x1 > window.x0)
        for index in np.flatnonzero(touched).tolist():
            tile = Window(*self._corners[index].tolist())
            shared = shared_window(window, tile)
            assert shared is not None
            part = self._tiles[index].read(_moved(shared, tile))
            inside = (slice(None), *_moved(shared, window).slices)
            free = ~valid[inside].any(axis=0)
            np.copyto(data[inside], part.data, where=free)
            np.copyto(valid[inside], part.valid, where=free)
        place = self.georeference
        assert place is not None
        return SensorImage(data, valid, self._channels, self.origin, place.shifted(window.y0, window.x0))


def open_mosaic(inputs: Inputs, tiles: Sequence[Path | str | Files], missing: Sequence[str | int]) -> Mosaic:
    """Open georeferenced files of one map as one image.

    Args:
        inputs: the sensor and its channels.
        tiles: a file each, or {source: file}.
        missing: channels that all tiles lack, as for `Inputs.missing_channels`.

    Raises:
        DataError: some files cannot be read or do not fit together; the message names all of them.
    """
    opened: list[ImageReader] = []
    channels: tuple[Channel, ...] | None = None
    problems = []
    for tile in tiles:
        try:
            image, own = inputs.file_image(tile, missing)
            if image.georeference is None:
                raise DataError(f"{image.origin}: has no georeference, so its place in a mosaic is unknown")
            channels = channels or own
            if not same_channels(own, channels):
                raise DataError(f"{image.origin}: has other channels than {opened[0].origin}")
        except SimMATError as error:
            problems.append(str(error))
        else:
            opened.append(image)
    if problems or channels is None:
        raise DataError(all_problems("a mosaic needs all its tiles:", problems or ["there are none"]))
    return Mosaic(opened, channels)


def _moved(window: Window, origin: Window) -> Window:
    """Return a window in pixels of another one."""
    return Window(window.y0 - origin.y0, window.x0 - origin.x0, window.y1 - origin.y0, window.x1 - origin.x0)


def _window_on(grid: Georeference, tile: ImageReader) -> Window:
    """Return where a tile lies, in pixels of a grid; raise DataError if its pixels are not those of the grid."""
    from rasterio.crs import CRS

    place, (height, width) = tile.georeference, tile.size_hw
    assert place is not None
    if place.crs != grid.crs and CRS.from_user_input(place.crs) != CRS.from_user_input(grid.crs):
        raise DataError(
            f"{tile.origin}: has the coordinate system {_short(place.crs)}, the first tile {_short(grid.crs)}; "
            "reproject it (gdalwarp -t_srs), or make a mosaic of each coordinate system by itself"
        )
    own = np.array([[0, 0], [width, 0], [0, height]], np.float64)
    there = grid.to_pixels(place.to_map(own))
    x0, y0 = np.rint(there[0]).astype(int).tolist()
    off = float(np.abs(there - own - (x0, y0)).max())
    if not off <= _OFF_GRID:
        raise DataError(
            f"{tile.origin}: its pixels lie up to {off:.3g} pixels off the grid of the first tile; resample it to the "
            "same grid: gdalwarp -tap -tr X Y"
        )
    return Window(y0, x0, y0 + height, x0 + width)


def _short(crs: str) -> str:
    return crs if len(crs) < 40 else f"{crs[:40]}…"
