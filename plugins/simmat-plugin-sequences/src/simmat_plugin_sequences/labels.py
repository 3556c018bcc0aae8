"""The soft labels of frames: each in the cells around its object, and compressed for later frames."""

from __future__ import annotations

import io
from collections.abc import (
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.data.instances import region_from_mask
from simmat.types import BoolArray, FloatArray, Window

Kind = Literal["found", "back", "given"]
"""Of labels: as found, propagated back from the next frame with masks, or those of the given masks."""
_ONE = 255
"""A label of 1 as it is stored."""


class ObjectLabel(NamedTuple):
    """How much of each cell is an object's.

    Attributes:
        cells: of the grid; in all others it is 0.
        values: (h, w) of the cells, 0 to 1.
    """

    cells: Window
    values: FloatArray

    def within(self, window: Window) -> FloatArray:
        """Return the (h, w) values in a window of cells."""
        part = np.zeros(window.size_hw, np.float32)
        shared = window.intersection(self.cells)
        if shared is not None:
            own = shared.relative_to(self.cells)
            part[shared.relative_to(window).slices] = self.values[own.slices]
        return part


@dataclass(frozen=True)
class Labels:
    """The labels of a frame.

    Attributes:
        of_objects: object id -> label; an object that is missing is 0 in every cell.
    """

    of_objects: Mapping[int, ObjectLabel]

    @cached_property
    def _boxes(self) -> npt.NDArray[np.int64]:
        """(K, 4) cells of each object: y0, x0, y1, x1."""
        boxes = [label.cells for label in self.of_objects.values()]
        return np.array(boxes, np.int64).reshape(-1, 4)

    @cached_property
    def _numbers(self) -> npt.NDArray[np.int64]:
        """(K,) ids of the objects."""
        return np.array(list(self.of_objects), np.int64)

    def touching(self, window: Window) -> list[int]:
        """Return the objects with cells in a window."""
        y0, x0, y1, x1 = self._boxes.T
        is_inside = (y0 < window.y1) & (window.y0 < y1)
        is_inside &= (x0 < window.x1) & (window.x0 < x1)
        found: list[int] = self._numbers[is_inside].tolist()
        return found

    def within(self, numbers: Sequence[int], window: Window) -> FloatArray:
        """Return (K, h, w): the labels of K objects in a window of cells."""
        found = np.zeros((len(numbers), *window.size_hw), np.float32)
        for place, number in enumerate(numbers):
            label = self.of_objects.get(number)
            if label is not None:
                found[place] = label.within(window)
        return found

    def covered(self, size_hw: tuple[int, int]) -> BoolArray:
        """Return (h, w): where the label of an object is above 0, in a grid of that many cells."""
        covered = np.zeros(size_hw, np.bool_)
        for label in self.of_objects.values():
            covered[label.cells.slices] |= label.values > 0
        return covered


def joined_label(pieces: Iterable[ObjectLabel]) -> ObjectLabel | None:
    """Return the label of pieces that share no cell; None if it is 0 everywhere."""
    tight = []
    for cells, values in pieces:
        region = region_from_mask(values != 0, None)
        if region is not None:
            inside = region.window
            tight.append(
                ObjectLabel(
                    inside.moved(cells.y0, cells.x0),
                    values[inside.slices],
                )
            )
    if not tight:
        return None
    around = tight[0].cells
    for one in tight[1:]:
        around = around.enclosing(one.cells)
    joined = np.zeros(around.size_hw, np.float32)
    for one in tight:
        joined[one.cells.relative_to(around).slices] = one.values
    return ObjectLabel(around, joined)


def blended_label(
    one: ObjectLabel | None, other: ObjectLabel | None, share: float
) -> ObjectLabel | None:
    """Return the mean of two labels, of which the other one has a share; None is 0 in every cell."""
    known = [label for label in (one, other) if label is not None]
    if not known:
        return None
    around = known[0].cells.enclosing(known[-1].cells)
    values = np.zeros(around.size_hw, np.float32)
    of_other = np.float32(share)
    if one is not None:
        values += (np.float32(1) - of_other) * one.within(around)
    if other is not None:
        values += of_other * other.within(around)
    return ObjectLabel(around, values)


def halfway(label: ObjectLabel, other: ObjectLabel) -> ObjectLabel:
    """Return a label moved half of the way to another one."""
    around = label.cells.enclosing(other.cells)
    values = label.within(around)
    values += (other.within(around) - values) / 2
    return ObjectLabel(around, values)


class LabelKey(NamedTuple):
    """Which labels of which frame."""

    kind: Kind
    frame: int

    @property
    def name(self) -> str:
        """The name under which they are stored."""
        return f"{self.kind[0]}{self.frame}"


class LabelStore:
    """Labels of frames in 8 bits: a run that is resumed has the same ones."""

    def __init__(self, stored: MutableMapping[str, bytes]) -> None:
        """Keep labels in `stored`, which may have those of an earlier run."""
        self._stored = stored

    def __contains__(self, key: LabelKey) -> bool:
        """Return whether labels are there."""
        return key.name in self._stored

    def keep(self, key: LabelKey, labels: Labels) -> None:
        """Store labels."""
        arrays: dict[str, Any] = {
            "cells": np.array([one.cells for one in labels.of_objects.values()])
        }
        for number, label in labels.of_objects.items():
            rounded = np.rint(label.values * np.float32(_ONE))
            arrays[str(number)] = rounded.astype(np.uint8)
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        self._stored[key.name] = content.getvalue()

    def load(self, key: LabelKey) -> Labels | None:
        """Return labels; None if they are not there."""
        stored = self._stored.get(key.name)
        if stored is None:
            return None
        found = {}
        with np.load(io.BytesIO(stored)) as arrays:
            cells, *numbers = arrays.files
            for number, box in zip(numbers, arrays[cells].tolist(), strict=True):
                values = arrays[number].astype(np.float32) / np.float32(_ONE)
                found[int(number)] = ObjectLabel(Window(*box), values)
        return Labels(found)

    def drop(self, key: LabelKey) -> None:
        """Remove labels that may be there."""
        self._stored.pop(key.name, None)

    def keep_only(self, kind: Kind, keys: Collection[LabelKey]) -> None:
        """Remove all labels of a kind but some."""
        names = {key.name for key in keys}
        for name in list(self._stored):
            if name.startswith(kind[0]) and name not in names:
                del self._stored[name]
