"""Windows over an image that is too large for one look, and how their answers become one.

This is `simmat.predictor.tiles` once more, since SimMAT cannot be installed without torch; the tests compare both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from simmat_runtime.letterbox import (
    BoolArray,
    FloatArray,
    Letterbox,
    averaged,
    resized,
    shrunk,
)
from simmat_runtime.objects import FoundObject, Window, enclosing_window, shared_window

AGREEMENT = 0.7
"""Part of the smaller of two masks that the other one covers, where both windows look, if they are one object."""
MAX_TILES = 4
"""Largest window around a prompt, in sides of a window."""
MARGIN = 1 / 16
"""A window holds what a prompt marks with at least this share of its side around it, except at borders of the image."""


def window_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where windows start along one side, evenly, with at least this overlap; the last ends with the image."""
    if size <= tile:
        return [0]
    count = math.ceil((size - overlap) / (tile - overlap))
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def plan_windows(size_hw: tuple[int, int], tile: int, overlap: int) -> list[Window]:
    """Cover an image with windows (y0, x0, y1, x1), row by row from the top left."""
    height, width = size_hw
    return [
        (y, x, min(y + tile, height), min(x + tile, width))
        for y in window_starts(height, tile, overlap)
        for x in window_starts(width, tile, overlap)
    ]


def blended(
    size_hw: tuple[int, int],
    windows: Sequence[Window],
    probabilities: Iterable[FloatArray | None],
    classes: int,
) -> Iterator[tuple[int, FloatArray]]:
    """Blend class probabilities, with weights that are highest in the middle of a window and 1 together.

    Args:
        size_hw: of the image.
        windows: of `plan_windows`.
        probabilities: (K, h, w) of each window; None if nothing is measured.
        classes: K.

    Yields:
        The first row, and the (K, rows, W) probabilities, of rows that no later window reaches.
    """
    rows, columns = (
        sorted({(box[axis], box[axis + 2]) for box in windows}) for axis in (0, 1)
    )
    down, across = (
        _weights(spans, size)
        for spans, size in zip((rows, columns), size_hw, strict=True)
    )
    answers = iter(probabilities)
    band = np.zeros((classes, 0, size_hw[1]), np.float32)
    for row, (y0, y1) in enumerate(rows):
        rest, band = band, np.zeros((classes, y1 - y0, size_hw[1]), np.float32)
        band[:, : rest.shape[1]] = rest
        for column, (x0, x1) in enumerate(columns):
            part = next(answers)
            if part is not None:
                band[:, :, x0:x1] += part * np.outer(down[row], across[column])
        done = rows[row + 1][0] - y0 if row + 1 < len(rows) else y1 - y0
        yield y0, band[:, :done]
        band = band[:, done:]


def _weights(spans: Sequence[tuple[int, int]], size: int) -> list[FloatArray]:
    """Return the weights of each window along one side; they add up to 1 at each pixel."""
    length = spans[0][1] - spans[0][0]
    tent = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    total = np.zeros(size)
    for start, end in spans:
        total[start:end] += tent
    return [(tent / total[start:end]).astype(np.float32) for start, end in spans]


def joined(parts: Iterable[tuple[Window, Sequence[FoundObject]]]) -> list[FoundObject]:
    """Join the objects of windows, in pixels of the image: those that a border cuts become one.

    Args:
        parts: each window, in raster order, with its objects.
    """
    every: list[tuple[FoundObject, list[Window]]] = []
    for window, found in parts:
        near = [item for item in every if shared_window(item[0].window, window)]
        every = [item for item in every if not shared_window(item[0].window, window)]
        for one in sorted(found, key=lambda item: -item.score):
            whole, windows, rest = one, [window], []
            for item in near:
                if shared_window(whole.window, item[0].window) and _agree(
                    whole, item, window
                ):
                    whole, windows = _union(item[0], whole), [*windows, *item[1]]
                else:
                    rest.append(item)
            near = [*rest, (whole, windows)]
        every += near
    return [found for found, _ in every]


def _agree(
    one: FoundObject, item: tuple[FoundObject, list[Window]], window: Window
) -> bool:
    """Return whether two objects are one, by the pixels that both windows look at."""
    other, windows = item
    for seen in windows:
        both = shared_window(window, seen)
        shared = (
            shared_window(both, enclosing_window(one.window, other.window))
            if both and seen != window
            else None
        )
        if shared is None:
            continue
        a, b = one.within(shared), other.within(shared)
        smaller = min(np.count_nonzero(a), np.count_nonzero(b))
        if smaller and np.count_nonzero(a & b) / smaller > AGREEMENT:
            return True
    return False


def _union(first: FoundObject, second: FoundObject) -> FoundObject:
    """Return the pixels of both with the class, score and click of the one with the higher score."""
    window = enclosing_window(first.window, second.window)
    better = first if first.score >= second.score else second
    return replace(
        better, window=window, crop=first.within(window) | second.within(window)
    )


def prompt_windows(
    low: FloatArray, high: FloatArray, size_hw: tuple[int, int], tile: int
) -> Iterator[Window]:
    """Yield the windows in which to look for the object of a prompt, each about twice as large as the one before.

    Those of one side lie on a grid and overlap by half; the one in which the prompt lies deepest is taken. Windows that
    do not hold the prompt with a margin are left out, and those of more than `MAX_TILES` unless it needs them.

    Args:
        low: smallest xy of the prompt.
        high: largest.
        size_hw: of the image.
        tile: side of the smallest windows.
    """
    (height, width), side = size_hw, tile
    while True:
        (y0, y1, margin_y), (x0, x1, margin_x) = (
            _deepest(float(low[axis]), float(high[axis]), length, side)
            for axis, length in ((1, height), (0, width))
        )
        fits = min(margin_y, margin_x) >= side * MARGIN
        if fits:
            yield y0, x0, y1, x1
        side *= 2
        if side >= 2 * max(size_hw) or (fits and side > MAX_TILES * tile):
            return


def _deepest(low: float, high: float, length: int, side: int) -> tuple[int, int, float]:
    """Return start, end and margin of the window along one side of an image that has most margin around a prompt."""

    def margin(start: int) -> float:
        end = start + side
        return min(
            low - start if start else math.inf, end - high if end < length else math.inf
        )

    start = max(window_starts(length, side, side // 2), key=margin)
    return start, min(start + side, length), margin(start)


def mask_in(
    mask: FloatArray, known: Window, window: Window, letterbox: Letterbox
) -> FloatArray:
    """Return (h, w) mask logits of one window as those of another; what the first does not show is not the object.

    Args:
        mask: logits at the decoder's own size.
        known: the window that they cover.
        window: another window.
        letterbox: position of the other window in the network's input.
    """
    if window == known:
        return mask
    known_hw = known[2] - known[0], known[3] - known[1]
    height, width = replace(letterbox, original_hw=known_hw).scaled_hw
    whole = resized(mask[None], (letterbox.size, letterbox.size))
    logits = resized(whole[:, :height, :width], known_hw)[0]
    lowest = min(float(logits.min()), -1.0)
    # above the lowest, so that the padding is lowest, too
    placed = np.zeros((1, *letterbox.original_hw), np.float32)
    both = shared_window(known, window)
    if both is not None:
        y0, x0, y1, x1 = both
        seen = logits[y0 - known[0] : y1 - known[0], x0 - known[1] : x1 - known[1]]
        rows = slice(y0 - window[0], y1 - window[0])
        columns = slice(x0 - window[1], x1 - window[1])
        placed[0, rows, columns] = seen - lowest
    height, width = letterbox.scaled_hw
    planes = np.zeros((1, letterbox.size, letterbox.size), np.float32)
    planes[:, :height, :width] = shrunk(placed, (height, width))
    moved = averaged(planes, (mask.shape[0], mask.shape[1]))[0]
    return np.asarray(moved + lowest, np.float32)


def reaches_border(mask: BoolArray, window: Window, size_hw: tuple[int, int]) -> bool:
    """Return whether a mask has pixels at a border of its window that is not a border of the image."""
    y0, x0, y1, x1 = window
    return bool(
        (y0 > 0 and mask[0].any())
        or (x0 > 0 and mask[:, 0].any())
        or (y1 < size_hw[0] and mask[-1].any())
        or (x1 < size_hw[1] and mask[:, -1].any())
    )
