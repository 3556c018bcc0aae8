"""The windows of an image: cut it, look around a prompt, and merge what was found in each.

Windows come in raster order. Class probabilities are blended where windows overlap. Objects that a border cuts are
merged where both windows agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject, Instance
from simmat.types import BoolArray, FloatArray, Prompt, Window

_MAX_TILES = 4
"""Largest side of a window around a prompt, in tiles; it grows while the mask reaches its border."""
_MARGIN = 1 / 16
"""A window holds what a prompt marks with at least this share of its side around it, except at borders of the image."""
_AGREEMENT = 0.7
"""Part of the smaller of two masks that the other one covers, where both windows look, if they are one object."""


@dataclass(frozen=True)
class WindowResult:
    """What the model found in one window.

    Attributes:
        objects: found ones, in pixels of the whole image.
        probabilities: (K, h, w) float32 of the classes, 0 where nothing is measured; None if not asked for.
        is_empty: nothing is measured in the window.
    """

    objects: tuple[FoundObject, ...] = ()
    probabilities: FloatArray | None = None
    is_empty: bool = False


def window_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where windows start along one side, evenly, with at least this overlap; the last ends with the image."""
    if size <= tile:
        return [0]
    count = math.ceil((size - overlap) / (tile - overlap))
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def window_weights(starts: Sequence[int], size: int) -> list[FloatArray]:
    """Return the (t,) weights of each window along one side: highest in its middle; they add up to 1 at each pixel."""
    length = size - starts[-1]
    tent = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    total = np.zeros(size)
    for start in starts:
        total[start : start + length] += tent
    return [
        (tent / total[start : start + length]).astype(np.float32) for start in starts
    ]


def plan_windows(size_hw: tuple[int, int], tile: int, overlap: int) -> list[Window]:
    """Cover an image with windows, row by row from the top left.

    Args:
        size_hw: (H, W) of the image in pixels.
        tile: side of a window in pixels.
        overlap: smallest overlap of neighbouring windows in pixels, from 0 to less than `tile`.
    """
    height, width = size_hw
    windows = []
    for y in window_starts(height, tile, overlap):
        for x in window_starts(width, tile, overlap):
            windows.append(Window(y, x, min(y + tile, height), min(x + tile, width)))
    return windows


class ClassMapBlender:
    """Blends the class maps of windows into one of the whole image, of which few rows are in memory at a time."""

    def __init__(
        self, size_hw: tuple[int, int], tile: int, overlap: int, classes: int
    ) -> None:
        """Begin with an empty map of K `classes`; the windows are those of `plan_windows`."""
        height, width = size_hw
        self._row_starts = window_starts(height, tile, overlap)
        self._column_starts = window_starts(width, tile, overlap)
        self._row_weights = window_weights(self._row_starts, height)
        self._column_weights = window_weights(self._column_starts, width)
        self._window_height = height - self._row_starts[-1]
        self._window_width = width - self._column_starts[-1]
        self._count = 0  # windows that are added
        # from the first row of the present windows
        self._band = np.zeros((classes, 0, width), np.float32)

    def add(self, probabilities: FloatArray | None) -> Iterator[tuple[int, FloatArray]]:
        """Add the next window, and yield the rows that no later window reaches, if there are any.

        Args:
            probabilities: (K, h, w) of the window; None adds 0 everywhere.

        Yields:
            The first row, and the (K, h, W) probabilities of the classes.
        """
        row, column = divmod(self._count, len(self._column_starts))
        self._count += 1
        if column == 0:
            self._extend_band()
        if probabilities is not None:
            x0 = self._column_starts[column]
            # (h, w)
            weights = np.outer(self._row_weights[row], self._column_weights[column])
            self._band[:, :, x0 : x0 + self._window_width] += probabilities * weights
        if column == len(self._column_starts) - 1:
            done = self._window_height
            if row + 1 < len(self._row_starts):
                done = self._row_starts[row + 1] - self._row_starts[row]
            finished = self._band[:, :done]
            self._band = self._band[:, done:].copy()
            yield self._row_starts[row], finished

    def _extend_band(self) -> None:
        """Make room for a row of windows."""
        classes, known, width = self._band.shape
        band = np.zeros((classes, self._window_height, width), np.float32)
        band[:, :known] = self._band
        self._band = band


def most_likely(
    probabilities: FloatArray, values: Sequence[int], nodata: int
) -> tuple[npt.NDArray[Any], FloatArray]:
    """Return the most likely class of each pixel, and its probability.

    Args:
        probabilities: (K, h, w) of the classes; 0 where nothing is measured.
        values: label value of each class.
        nodata: label value where nothing is measured.

    Returns:
        (h, w) label values, and (h, w) float32.
    """
    certainty: FloatArray = probabilities.max(0)
    labels = np.asarray(values)[probabilities.argmax(0)]
    return np.where(certainty > 0, labels, nodata), certainty


class _SeenObject(NamedTuple):
    """An object in pixels of the whole image, and the windows in which parts of it were found."""

    found: FoundObject
    windows: list[Window]


def merge_objects(
    windows: Sequence[Window], found: Iterable[Sequence[FoundObject]]
) -> list[FoundObject]:
    """Merge the objects of windows into those of one image, best first.

    Args:
        windows: in raster order.
        found: the objects of each window, in pixels of the image.
    """
    merged: list[FoundObject] = []
    growing: list[_SeenObject] = []  # a later window may show more of them
    for index, (window, objects) in enumerate(zip(windows, found, strict=True)):
        # only objects with pixels in this window can agree
        near: list[_SeenObject] = []
        far: list[_SeenObject] = []
        for known in growing:
            if known.found.instance.window.intersection(window) is None:
                far.append(known)
            else:
                near.append(known)
        for one in sorted(objects, key=lambda item: -item.score):
            near = _merge_into(near, one, window)
        next_y0 = windows[index + 1].y0 if index + 1 < len(windows) else math.inf
        growing = []
        for known in (*far, *near):
            if known.found.instance.window.y1 > next_y0:
                growing.append(known)
            else:
                merged.append(known.found)
    return sorted(merged, key=lambda item: -item.score)


def _merge_into(
    known: Sequence[_SeenObject], one: FoundObject, window: Window
) -> list[_SeenObject]:
    """Return known objects with one more of a window, which may be a part of some of them."""
    windows = [window]
    rest: list[_SeenObject] = []
    for other in known:
        if _is_same(one.instance, window, other):
            one = _union(other.found, one)
            windows += other.windows
        else:
            rest.append(other)
    return [*rest, _SeenObject(one, windows)]


def _is_same(instance: Instance, window: Window, other: _SeenObject) -> bool:
    """Return whether an object of a window agrees with another one where both were looked at."""
    known = other.found.instance
    if instance.window.intersection(known.window) is None:
        return False
    reached = instance.window.enclosing(known.window)
    for earlier in other.windows:
        both = window.intersection(earlier)
        if earlier == window or both is None:
            continue
        shared = both.intersection(reached)
        if shared is None:
            continue
        mask = instance.within(shared)
        known_mask = known.within(shared)
        smaller = min(np.count_nonzero(mask), np.count_nonzero(known_mask))
        if smaller and np.count_nonzero(mask & known_mask) / smaller > _AGREEMENT:
            return True
    return False


def _union(first: FoundObject, second: FoundObject) -> FoundObject:
    """Return the pixels of both with the class, score and click of the one with the higher score."""
    better = first if first.score >= second.score else second
    window = first.instance.window.enclosing(second.instance.window)
    mask = first.instance.within(window) | second.instance.within(window)
    return replace(better, instance=Instance(better.instance.class_id, window, mask))


def prompt_windows(
    prompt: Prompt, size_hw: tuple[int, int], tile: int
) -> Iterator[Window]:
    """Yield the windows in which to look for the object of a prompt, each with about twice the side of the one before.

    Those of one side lie on a grid and overlap by half, so that clicks share them; the one in which the prompt lies
    deepest is taken. Windows that do not hold the prompt with `_MARGIN` are left out, and those of more than
    `_MAX_TILES` unless it needs them.

    Args:
        prompt: with a point on the object or a box.
        size_hw: (H, W) of the image in pixels.
        tile: side of the smallest windows in pixels.
    """
    places = prompt.point_coords[prompt.point_labels == 1]  # (N, 2) xy
    if prompt.box is not None:
        places = np.concatenate([places, prompt.box.reshape(2, 2)])
    low_x, low_y = places.min(axis=0).tolist()
    high_x, high_y = places.max(axis=0).tolist()
    height, width = size_hw
    side = tile
    while True:
        y0, y1, margin_y = _deepest(low_y, high_y, height, side)
        x0, x1, margin_x = _deepest(low_x, high_x, width, side)
        fits = min(margin_y, margin_x) >= side * _MARGIN
        if fits:
            yield Window(y0, x0, y1, x1)
        side *= 2
        # the window before held the whole image, or the next one would be too large
        if side >= 2 * max(size_hw) or (fits and side > _MAX_TILES * tile):
            return


def by_next_window(
    searches: Sequence[Iterator[Window]], rows: Iterable[int]
) -> dict[Window, list[int]]:
    """Take the next window of some searches, and group these by it; a search without a further window is left out.

    Args:
        searches: the windows of each prompt, see `prompt_windows`.
        rows: indices of the searches that go on.

    Returns:
        Window -> indices of the searches that look there.
    """
    groups: dict[Window, list[int]] = {}
    for row in rows:
        window = next(searches[row], None)
        if window is not None:
            groups.setdefault(window, []).append(row)
    return groups


def _deepest(low: float, high: float, length: int, side: int) -> tuple[int, int, float]:
    """Return start, end and margin of the window that has most margin around a prompt, along one axis of an image.

    Args:
        low: smallest coordinate of the prompt in pixels.
        high: largest coordinate.
        length: of the image.
        side: of the window.
    """

    def margin(start: int) -> float:
        before = low - start if start > 0 else math.inf
        end = start + side
        behind = end - high if end < length else math.inf
        return min(before, behind)

    start = max(window_starts(length, side, side // 2), key=margin)
    return start, min(start + side, length), margin(start)


def reaches_border(mask: BoolArray, window: Window, size_hw: tuple[int, int]) -> bool:
    """Return whether an (h, w) mask has pixels at a border of its window that is not a border of the image (H, W)."""
    height, width = size_hw
    return bool(
        (window.y0 > 0 and mask[0].any())
        or (window.x0 > 0 and mask[:, 0].any())
        or (window.y1 < height and mask[-1].any())
        or (window.x1 < width and mask[:, -1].any())
    )
