"""Where to look for the object of a prompt in a large image: in windows of fixed grids, so that clicks share them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from simmat.types import BoolArray, FloatArray, Prompt, Window
from simmat.windows import window_starts

_GROWN = 4
"""Largest window around a prompt, in tiles; it grows while the mask reaches its border."""
_ROOM = 16
"""A window holds what a prompt marks with at least a side / `_ROOM` around it, except at borders of the image."""


def prompt_windows(prompt: Prompt, size_hw: tuple[int, int], tile: int) -> Iterator[Window]:
    """Yield the windows in which to look for the object of a prompt, each about twice as large as the one before.

    Those of one side lie on a grid and overlap by half; the one in which the prompt lies deepest is taken. Windows that
    do not hold the prompt with room around it are left out, and those of more than `_GROWN` tiles unless it needs them.

    Args:
        prompt: with a point on the object or a box.
        size_hw: of the image.
        tile: side of the smallest windows.
    """
    on = prompt.point_coords[prompt.point_labels == 1]
    every = np.concatenate([on, *([] if prompt.box is None else [prompt.box.reshape(2, 2)])])
    low, high = every.min(axis=0), every.max(axis=0)  # (2,) xy
    (height, width), side = size_hw, tile
    while True:
        (y0, y1, room_y), (x0, x1, room_x) = (
            _deepest(float(low[axis]), float(high[axis]), length, side) for axis, length in ((1, height), (0, width))
        )
        holds = min(room_y, room_x) >= side / _ROOM
        if holds:
            yield Window(y0, x0, y1, x1)
        side *= 2
        if side >= 2 * max(size_hw) or (holds and side > _GROWN * tile):
            return


def _deepest(low: float, high: float, length: int, side: int) -> tuple[int, int, float]:
    """Return start, end and room of the window along one side of an image in which a prompt has most room around it."""

    def room(start: int) -> float:
        end = start + side
        return min(low - start if start else math.inf, end - high if end < length else math.inf)

    start = max(window_starts(length, side, side // 2), key=room)
    return start, min(start + side, length), room(start)


def prompt_in(prompt: Prompt, window: Window) -> Prompt:
    """Return a prompt in pixels of a window, without those points not on the object that lie outside of it."""
    x, y = prompt.point_coords.T
    inside = (x >= window.x0) & (x < window.x1) & (y >= window.y0) & (y < window.y1)
    kept = inside | (prompt.point_labels == 1)
    corner: FloatArray = np.asarray([window.x0, window.y0], np.float32)
    box = None if prompt.box is None else prompt.box - np.tile(corner, 2)
    coords = prompt.point_coords[kept] - corner
    return replace(prompt, point_coords=coords, point_labels=prompt.point_labels[kept], box=box)


def reaches_border(mask: BoolArray, window: Window, size_hw: tuple[int, int]) -> bool:
    """Return whether a mask has pixels at a border of its window that is not a border of the image."""
    height, width = size_hw
    return bool(
        (window.y0 > 0 and mask[0].any())
        or (window.x0 > 0 and mask[:, 0].any())
        or (window.y1 < height and mask[-1].any())
        or (window.x1 < width and mask[:, -1].any())
    )
