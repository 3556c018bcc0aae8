"""The objects of an image, laid out on the grid where masks are compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simmat.data.clicks import center_click
from simmat.data.regions import Label, Region, seen_part
from simmat.errors import ConfigError
from simmat.evaluation.protocol import Protocol
from simmat.geometry import Frame
from simmat.types import BoolArray

QUARTER = 4
"""Input pixels to a side of the released protocol's grid: 1024 are compared at 256."""


@dataclass(frozen=True)
class Target:
    """One object to be found.

    Attributes:
        index: of the region within its image.
        region: the region.
        seen: its pixels that count, where clicks fall.
        click_xy: the first click, in pixels of the original image.
        image_hw: (height, width) of the original image.
        grid_hw: (h, w) of the grid.
    """

    index: int
    region: Region
    seen: Region
    click_xy: tuple[float, float]
    image_hw: tuple[int, int]
    grid_hw: tuple[int, int]

    def truth(self) -> BoolArray:
        """Return the object as (h, w) bool; made anew each time, as many objects of a large image fill the memory."""
        return resize_nearest(self.region.mask(self.image_hw), self.grid_hw)


@dataclass(frozen=True)
class Targets:
    """The objects of one image that can be scored.

    Attributes:
        found: them.
        scored: (h, w) bool, the pixels of the grid that count.
        left_out: indices of regions that have no scored pixel on the grid, though they have one in the image.
    """

    found: tuple[Target, ...]
    scored: BoolArray
    left_out: tuple[int, ...]


def grid_hw(frame: Frame, protocol: Protocol) -> tuple[int, int]:
    """Return (height, width) of the grid where masks are compared."""
    if protocol.grid == "original":
        return frame.original_hw
    if frame.size % QUARTER:
        raise ConfigError(
            f"protocol {protocol.name!r} compares masks at a quarter of the input, whose side {frame.size} px is no "
            f"multiple of {QUARTER}; use another protocol"
        )
    return frame.size // QUARTER, frame.size // QUARTER


def find_targets(label: Label, frame: Frame, protocol: Protocol) -> Targets:
    """Lay the regions of an image out on the grid; one of which nothing may be scored has no IoU and is none.

    Args:
        label: the ground truth.
        frame: how the image lies in the input; squashed for the grid "quarter".
        protocol: says the grid and the first click.
    """
    size_hw = grid_hw(frame, protocol)
    scored = resize_nearest(~label.ignore, size_hw)
    found, left_out = [], []
    for index, region in enumerate(label.regions):
        seen = seen_part(region, label.ignore)
        if seen is None:
            continue
        click_xy = _first_click(seen.mask(label.size_hw), frame, protocol)
        if click_xy is None or not (resize_nearest(region.mask(label.size_hw), size_hw) & scored).any():
            left_out.append(index)
        else:
            found.append(Target(index, region, seen, click_xy, label.size_hw, size_hw))
    return Targets(tuple(found), scored, tuple(left_out))


def _first_click(mask: BoolArray, frame: Frame, protocol: Protocol) -> tuple[float, float] | None:
    if protocol.first_click == "center":
        return center_click(mask)
    squashed = resize_nearest(mask, (frame.size, frame.size))
    if not squashed.any():
        return None
    x, y = frame.points_to_original(np.asarray(middle_pixel(squashed), dtype=np.float32)).tolist()
    return x, y


def middle_pixel(mask: BoolArray) -> tuple[float, float]:
    """Return (x, y) of the middle pixel of a (H, W) mask in raster order: number ⌊n / 2⌋ of n, counted from 0."""
    inside = np.flatnonzero(mask)
    row, column = divmod(int(inside[len(inside) // 2]), mask.shape[1])
    return float(column), float(row)


def resize_nearest(mask: BoolArray, size_hw: tuple[int, int]) -> BoolArray:
    """Bring a (H, W) mask to another size: each pixel takes the one its centre falls into."""
    if mask.shape == tuple(size_hw):
        return mask
    rows, columns = ((2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(mask.shape, size_hw, strict=True))
    return np.ascontiguousarray(mask[np.ix_(rows, columns)])
