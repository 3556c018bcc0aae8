"""Where to look for the object of a prompt in a large image."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from simmat.predictor.prediction import Prediction
from simmat.predictor.reading import ImageReader
from simmat.types import FloatArray, Prompt, Window


def room_of(prompt: Prompt) -> int:
    """Return the side of a window that holds the points and the box of a prompt, and half as much around them."""
    low, high = _extent(prompt)
    return math.ceil(1.5 * float((high - low).max()))


def _extent(prompt: Prompt) -> tuple[FloatArray, FloatArray]:
    """Return the smallest and the largest xy of the points on an object and of its box."""
    on = prompt.point_coords[prompt.point_labels == 1]
    places = [on, *([] if prompt.box is None else [prompt.box.reshape(2, 2)])]
    every = np.concatenate(places)
    return every.min(axis=0), every.max(axis=0)


def prompt_in(prompt: Prompt, window: Window) -> Prompt:
    """Return a prompt in pixels of a window, without those points not on the object that lie outside of it."""
    x, y = prompt.point_coords.T
    inside = (x >= window.x0) & (x < window.x1) & (y >= window.y0) & (y < window.y1)
    kept = inside | (prompt.point_labels == 1)
    corner = np.asarray([window.x0, window.y0], np.float32)
    box = None if prompt.box is None else prompt.box - np.tile(corner, 2)
    coords = prompt.point_coords[kept] - corner
    return replace(prompt, point_coords=coords, point_labels=prompt.point_labels[kept], box=box)


def window_around(prompt: Prompt, size_hw: tuple[int, int], side: int) -> Window:
    """Return the window of a side around a prompt, moved and cut to lie in the image.

    It starts at a multiple of half its side, so that prompts near each other share one embedding. Where a prompt would
    then come close to its border, the prompt is in its middle.
    """
    (height, width), (low, high) = size_hw, _extent(prompt)
    y, x = (_start(float(low[i]), float(high[i]), length, side) for i, length in ((1, height), (0, width)))
    return Window(y, x, min(y + side, height), min(x + side, width))


def _start(low: float, high: float, length: int, side: int) -> int:
    """Return where a window around a prompt starts along one side of an image."""
    last, middle, step = max(length - side, 0), (low + high - side) / 2, max(side // 2, 1)
    start = min(max(round(middle / step) * step, 0), last)
    is_near = (start > 0 and low < start + side / 8) or (start < last and high > start + 7 * side / 8)
    return min(max(round(middle), 0), last) if is_near else start


def reaches_border(found: Prediction, reader: ImageReader) -> bool:
    """Return whether a mask has pixels at a border of its window that is not a border of the image."""
    window, mask = found.window, found.mask
    height, width = reader.size_hw
    return bool(
        (window.y0 > 0 and mask[0].any())
        or (window.x0 > 0 and mask[:, 0].any())
        or (window.y1 < height and mask[-1].any())
        or (window.x1 < width and mask[:, -1].any())
    )
