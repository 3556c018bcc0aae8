"""The masks that a user gives in some frames: what is followed, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from simmat.data.instances import (
    Instance,
    LabelArray,
    check_equal_size,
    region_from_mask,
    regions_by_value,
)
from simmat.errors import DataError
from simmat.types import BoolArray

Masks = Mapping[int, BoolArray]
"""Object id -> (H, W) bool."""
Regions = Mapping[int, Instance | None]
"""Object id -> its pixels; None where it is not in the frame."""


@dataclass(frozen=True)
class GivenFrame:
    """The masks of a frame.

    Attributes:
        size_hw: (H, W) pixels of each mask; (0, 0) without one.
        regions: object id -> its pixels; None where it is not there.
    """

    size_hw: tuple[int, int]
    regions: Regions

    def over(self, other: GivenFrame | None) -> GivenFrame:
        """Return these masks, and those of other objects in the same frame."""
        if other is None:
            return self
        return GivenFrame(self.size_hw, {**other.regions, **self.regions})


@dataclass(frozen=True)
class GivenMasks:
    """The masks of the frames that have some.

    Attributes:
        regions: number of the frame -> object id -> its pixels, both sorted; None where the object is not there. An
            object that a frame does not name is looked for in it.
    """

    regions: Mapping[int, Regions]

    @property
    def frames(self) -> list[int]:
        """The numbers of the frames with masks, sorted."""
        return list(self.regions)

    @property
    def ids(self) -> list[int]:
        """The objects, sorted."""
        found: set[int] = set()
        for regions in self.regions.values():
            found.update(regions)
        return sorted(found)

    @property
    def areas(self) -> list[int]:
        """The pixels of every mask that is not empty."""
        found = []
        for regions in self.regions.values():
            for region in regions.values():
                if region is not None:
                    found.append(region.area)
        return found

    def names_all(self, frame: int) -> bool:
        """Return whether a frame names every object, so that nothing has to be found in it."""
        return len(self.regions[frame]) == len(self.ids)

    def first_frame(self, number: int) -> int:
        """Return the first frame that names an object."""
        return next(
            frame for frame, regions in self.regions.items() if number in regions
        )

    def first_region(self, number: int) -> tuple[int, Instance]:
        """Return the first frame in which an object has a mask that is not empty, and its pixels."""
        for frame, regions in self.regions.items():
            region = regions.get(number)
            if region is not None:
                return frame, region
        raise ValueError(f"object {number} has no mask")


def sorted_masks(given: Mapping[int, GivenFrame]) -> GivenMasks:
    """Return the masks of frames in the order of the frames and ids."""
    return GivenMasks(
        {frame: dict(sorted(given[frame].regions.items())) for frame in sorted(given)}
    )


def read_given_masks(
    given: Mapping[int, LabelArray | Masks],
) -> dict[int, GivenFrame]:
    """Return the masks of each frame; a label image says that the objects that it lacks are not there.

    Args:
        given: frame -> (H, W) whole numbers, the id of the object of each pixel; or object id -> (H, W) bool.

    Raises:
        DataError: a mask is not (H, W) bool, or a label image not (H, W) whole numbers from 0, or two masks of a frame
            differ in their size.
    """
    sizes: dict[int, tuple[int, int]] = {}
    found: dict[int, dict[int, Instance | None]] = {}
    ids: set[int] = set()
    for frame, one in given.items():
        if isinstance(one, np.ndarray):
            _check(frame, one, "iu")
            sizes[frame] = one.shape[0], one.shape[1]
            found[frame] = dict(regions_of(one))
        else:
            found[frame] = {}
            for number, mask in one.items():
                _check(frame, mask, "b")
                sizes.setdefault(frame, (mask.shape[0], mask.shape[1]))
                check_equal_size(
                    f"mask of object {number} in frame {frame}",
                    mask.shape,
                    "the other masks of this frame",
                    sizes[frame],
                )
                found[frame][number] = region_from_mask(mask, None)
        ids.update(found[frame])
    for frame, one in given.items():
        if isinstance(one, np.ndarray):
            found[frame] = {number: found[frame].get(number) for number in sorted(ids)}
    return {
        frame: GivenFrame(sizes.get(frame, (0, 0)), regions)
        for frame, regions in found.items()
    }


def regions_of(labels: LabelArray) -> dict[int, Instance]:
    """Return the pixels of each id above 0 of an (H, W) label image, sorted."""
    found = {}
    if labels.size:
        for number, window, crop in regions_by_value(labels, zero=False):
            found[number] = Instance(None, window, crop)
    return found


def _check(frame: int, array: LabelArray | BoolArray, kinds: str) -> None:
    """Raise DataError unless an array is (H, W) of one of some kinds of numpy dtypes, without negative numbers."""
    lowest = array.min() if array.size else 0
    if array.ndim != 2 or array.dtype.kind not in kinds or lowest < 0:
        raise DataError(
            f"frame {frame}: masks are (H, W) whole numbers from 0, the id of the object of each pixel, or "
            f"{{id: (H, W) bool}}; got {array.dtype} of shape {array.shape}, from {lowest}"
        )


def iou(one: Instance | None, other: Instance) -> float:
    """Return the intersection over union of two regions; None is one without a pixel."""
    if one is None:
        return 0.0
    shared = one.window.intersection(other.window)
    if shared is None:
        return 0.0
    both = int(np.count_nonzero(one.within(shared) & other.within(shared)))
    return both / (one.area + other.area - both)
