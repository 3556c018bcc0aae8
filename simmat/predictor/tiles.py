"""Cut an image into windows, and merge what was found in each of them.

Windows come in raster order. Class probabilities are blended where windows overlap. Objects that a border cuts are
merged where both windows agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject, Instance
from simmat.types import FloatArray, Window

if TYPE_CHECKING:
    pass

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
    return [(tent / total[start : start + length]).astype(np.float32) for start in starts]


def plan_windows(size_hw: tuple[int, int], tile: int, overlap: int) -> list[Window]:
    """Cover an image with windows, row by row from the top left.

    Args:
        size_hw: (H, W) of the image in pixels.
        tile: side of a window in pixels.
        overlap: smallest overlap of neighbouring windows in pixels.

    Raises:
        ValueError: the overlap is not smaller than the window, or negative.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must be from 0 to {tile - 1}, less than the window's side {tile}; got {overlap}")
    height, width = size_hw
    windows = []
    for y in window_starts(height, tile, overlap):
        for x in window_starts(width, tile, overlap):
            windows.append(Window(y, x, min(y + tile, height), min(x + tile, width)))
    return windows


class ClassMapBlender:
    """Blends the class maps of windows into one of the whole image, of which few rows are in memory at a time."""

    def __init__(self, size_hw: tuple[int, int], tile: int, overlap: int, classes: int) -> None:
        """Begin with an empty map of K `classes`; the windows are those of `plan_windows`."""
        height, width = size_hw
        self._rows = window_starts(height, tile, overlap)
        self._columns = window_starts(width, tile, overlap)
        self._row_weights = window_weights(self._rows, height)
        self._column_weights = window_weights(self._columns, width)
        self._window_height = height - self._rows[-1]
        self._window_width = width - self._columns[-1]
        self._count = 0  # windows that are added
        self._band = np.zeros((classes, 0, width), np.float32)  # from the first row of the present windows

    def add(self, probabilities: FloatArray | None) -> Iterator[tuple[int, FloatArray]]:
        """Add the next window, and yield the rows that no later window reaches, if there are any.

        Args:
            probabilities: (K, h, w) of the window; None adds 0 everywhere.

        Yields:
            The first row, and the (K, h, W) probabilities of the classes.
        """
        row, column = divmod(self._count, len(self._columns))
        self._count += 1
        if column == 0:
            self._extend_band()
        if probabilities is not None:
            x0 = self._columns[column]
            weights = np.outer(self._row_weights[row], self._column_weights[column])  # (h, w)
            self._band[:, :, x0 : x0 + self._window_width] += probabilities * weights
        if column == len(self._columns) - 1:
            done = self._window_height
            if row + 1 < len(self._rows):
                done = self._rows[row + 1] - self._rows[row]
            finished = self._band[:, :done]
            self._band = self._band[:, done:].copy()
            yield self._rows[row], finished

    def _extend_band(self) -> None:
        """Make room for a row of windows."""
        classes, known, width = self._band.shape
        band = np.zeros((classes, self._window_height, width), np.float32)
        band[:, :known] = self._band
        self._band = band


def most_likely(probabilities: FloatArray, values: Sequence[int], nodata: int) -> tuple[npt.NDArray[Any], FloatArray]:
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
    """An object, and the windows that show parts of it."""

    found: FoundObject
    windows: list[Window]


def merge_objects(windows: Sequence[Window], found: Iterable[Sequence[FoundObject]]) -> list[FoundObject]:
    """Merge the objects of windows into those of one image, best first.

    Args:
        windows: in raster order.
        found: the objects of each window, in pixels of the image.
    """
    merged: list[FoundObject] = []
    growing: list[_SeenObject] = []  # a later window may show more of them
    for index, (window, objects) in enumerate(zip(windows, found, strict=True)):
        near: list[_SeenObject] = []  # only objects with pixels in this window can agree
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


def _merge_into(known: Sequence[_SeenObject], one: FoundObject, window: Window) -> list[_SeenObject]:
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
