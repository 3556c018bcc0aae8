"""The objects of an image, and the windows around them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simmat_runtime.letterbox import BoolArray

Window = tuple[int, int, int, int]
"""(y0, x0, y1, x1) in pixels, y1 and x1 exclusive."""


@dataclass(frozen=True)
class FoundObject:
    """An object of an image.

    Attributes:
        window: (y0, x0, y1, x1), the pixels of the image around it, y1 and x1 exclusive.
        crop: (y1 - y0, x1 - x0) bool, the mask in the window.
        size_hw: (height, width) of the image in pixels.
        score: predicted IoU, times the probabilities of the class map if there is one.
        point_xy: the click that found it.
        class_id: label value of its class; None if the model does not distinguish classes.
        class_probability: probability of that class among the classes of objects.
    """

    window: Window
    crop: BoolArray
    size_hw: tuple[int, int]
    score: float
    point_xy: tuple[float, float]
    class_id: int | None = None
    class_probability: float | None = None

    @property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of its outer edges in pixels, as `Model.predict` takes a box."""
        y0, x0, y1, x1 = self.window
        return x0, y0, x1, y1

    @property
    def mask(self) -> BoolArray:
        """(H, W) bool at the size of the image."""
        return self.within((0, 0, *self.size_hw))

    def within(self, window: Window) -> BoolArray:
        """Return the part of the mask inside a window, as (y1 - y0, x1 - x0) bool."""
        y0, x0, y1, x1 = window
        part = np.zeros((y1 - y0, x1 - x0), np.bool_)
        top, left, bottom, right = self.window
        rows, columns = (
            slice(max(y0, top), min(y1, bottom)),
            slice(max(x0, left), min(x1, right)),
        )
        if rows.start < rows.stop and columns.start < columns.stop:
            shared = self.crop[
                rows.start - top : rows.stop - top,
                columns.start - left : columns.stop - left,
            ]
            part[
                rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0
            ] = shared
        return part

    def shifted(self, y0: int, x0: int, size_hw: tuple[int, int]) -> FoundObject:
        """Return the object of a window that starts at row y0 and column x0 of a larger image."""
        (top, left, bottom, right), (x, y) = self.window, self.point_xy
        window = (top + y0, left + x0, bottom + y0, right + x0)
        return replace(self, window=window, size_hw=size_hw, point_xy=(x + x0, y + y0))


def shared_window(first: Window, second: Window) -> Window | None:
    """Return the pixels that two windows have in common; None if there are none."""
    y0, x0 = max(first[0], second[0]), max(first[1], second[1])
    y1, x1 = min(first[2], second[2]), min(first[3], second[3])
    return (y0, x0, y1, x1) if y0 < y1 and x0 < x1 else None


def enclosing_window(first: Window, second: Window) -> Window:
    """Return the smallest window around two windows."""
    y0, x0 = min(first[0], second[0]), min(first[1], second[1])
    return y0, x0, max(first[2], second[2]), max(first[3], second[3])
