"""The masks that a user gives in some frames: what is followed, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simmat.data.instances import LabelArray
from simmat.errors import DataError
from simmat.types import BoolArray

Masks = Mapping[int, BoolArray]
"""Object id -> (H, W) bool."""


@dataclass(frozen=True)
class GivenMasks:
    """The masks of the frames that have some.

    Attributes:
        masks: number of the frame -> object id -> (H, W) bool, both sorted; all False where the object is not there.
            An object that a frame does not name is looked for in it.
    """

    masks: Mapping[int, Masks]

    @property
    def frames(self) -> list[int]:
        """The numbers of the frames with masks, sorted."""
        return list(self.masks)

    @property
    def ids(self) -> list[int]:
        """The objects, sorted."""
        found: set[int] = set()
        for masks in self.masks.values():
            found.update(masks)
        return sorted(found)

    @property
    def areas(self) -> list[int]:
        """The pixels of every mask that is not empty."""
        found = []
        for masks in self.masks.values():
            for mask in masks.values():
                if mask.any():
                    found.append(int(mask.sum()))
        return found

    def names_all(self, frame: int) -> bool:
        """Return whether a frame names every object, so that nothing has to be found in it."""
        return len(self.masks[frame]) == len(self.ids)

    def first_frame(self, number: int) -> int:
        """Return the first frame that names an object."""
        return next(frame for frame, masks in self.masks.items() if number in masks)

    def first_mask(self, number: int) -> tuple[int, BoolArray]:
        """Return the first frame in which an object has a mask that is not empty, and the mask."""
        for frame, masks in self.masks.items():
            if number in masks and masks[number].any():
                return frame, masks[number]
        raise ValueError(f"object {number} has no mask")


def read_given_masks(
    given: Mapping[int, LabelArray | Masks],
) -> dict[int, dict[int, BoolArray]]:
    """Return frame -> object id -> mask; a label image says that the objects that it lacks are not there.

    Args:
        given: frame -> (H, W) whole numbers, the id of the object of each pixel; or object id -> (H, W) bool.

    Raises:
        DataError: a mask is not (H, W) bool, or a label image not (H, W) whole numbers from 0.
    """
    ids: set[int] = set()
    for frame, one in given.items():
        if isinstance(one, np.ndarray):
            _check(frame, one, "iu")
            ids.update(np.unique(one).tolist())
            continue
        for mask in one.values():
            _check(frame, mask, "b")
        ids.update(one)
    ids.discard(0)
    found: dict[int, dict[int, BoolArray]] = {}
    for frame, one in given.items():
        if isinstance(one, np.ndarray):
            found[frame] = {number: one == number for number in sorted(ids)}
        else:
            found[frame] = dict(one)
    return found


def _check(frame: int, array: LabelArray | BoolArray, kinds: str) -> None:
    """Raise DataError unless an array is (H, W) of one of some kinds of numpy dtypes, without negative numbers."""
    lowest = array.min() if array.size else 0
    if array.ndim != 2 or array.dtype.kind not in kinds or lowest < 0:
        raise DataError(
            f"frame {frame}: masks are (H, W) whole numbers from 0, the id of the object of each pixel, or "
            f"{{id: (H, W) bool}}; got {array.dtype} of shape {array.shape}, from {lowest}"
        )


def iou(one: BoolArray, other: BoolArray) -> float:
    """Return the intersection over union of two (H, W) masks, not both empty."""
    return float((one & other).sum() / (one | other).sum())
