"""Protocols: which prompts are scored, where masks are compared with the truth, and the objects of an image there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from simmat.data.instances import (
    Annotation,
    Instance,
    center_click,
    pixels_under_centres,
    region_from_mask,
    visible_part,
)
from simmat.errors import ConfigError, unknown_name
from simmat.types import BoolArray, Letterbox


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol, as data.

    Attributes:
        name: what `--protocol` takes.
        first_click: "center", the maximum of the region's distance transform, see `simmat.data.instances.center_click`,
            or "middle", pixel ⌊n / 2⌋ of the n of the region in raster order, in the network's input.
        grid: where masks are compared: "original", at the size of the image, or "quarter", at a quarter of the
            network's input, into which the image is stretched.
        alternatives: also score the best-predicted and the best of a decoder's alternative masks.
        clicks: clicks per object; each one after the first is placed on the largest error.
        repeats: random clicks and jittered boxes per object; 0 leaves out tight boxes too, unless `boxes`.
        seed: seed of the random clicks and boxes.
        boxes: prompt with the tight box of each object, too.
    """

    name: str
    first_click: Literal["center", "middle"] = "center"
    grid: Literal["original", "quarter"] = "original"
    alternatives: bool = True
    clicks: int = 1
    repeats: int = 0
    seed: int = 0
    boxes: bool = False


ONE_CLICK = Protocol("one-click")
"""One click per object at its centre, masks compared at the original size."""
FULL = Protocol("full", clicks=20, repeats=5)
"""One click, then clicks on errors (mIoU by clicks, NoC), boxes tight and jittered, and random clicks.

NoC stops at 20 clicks, as the interactive benchmarks do (Sofiiuk et al. 2021, arXiv 2102.06583).
"""
COMPAT = Protocol("simmat-compat", first_click="middle", grid="quarter", alternatives=False)
"""The protocol of the paper's released code: middle pixel, squashed image, masks compared at a quarter of the input."""

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({p.name: p for p in (ONE_CLICK, FULL, COMPAT)})
"""By name; the first is the default."""


def find_protocol(
    name: str = ONE_CLICK.name, *, clicks: int | None = None, repeats: int | None = None, seed: int | None = None
) -> Protocol:
    """Return a protocol by name, with its numbers replaced by those that are given."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    numbers = {"clicks": clicks, "repeats": repeats, "seed": seed}
    given: dict[str, Any] = {key: value for key, value in numbers.items() if value is not None}
    if given and name != FULL.name:
        options = ", ".join(f"--{key}" for key in given)
        raise ConfigError(f"protocol {name!r} takes no {options}; leave it out, or use --protocol {FULL.name}")
    return replace(PROTOCOLS[name], **given)


QUARTER = 4
"""Pixels of the input per pixel of the grid "quarter", along one side."""


@dataclass(frozen=True)
class Target:
    """One object to be scored.

    Attributes:
        index: index of the region within its image.
        seen: the pixels of the region that are not ignored, where clicks are placed.
        truth: the region on the grid.
        click_xy: the first click, in pixels of the original image.
    """

    index: int
    region: Instance
    seen: Instance
    truth: Instance
    click_xy: tuple[float, float]


@dataclass(frozen=True)
class Targets:
    """The objects of one image that can be scored.

    Attributes:
        scored: (h, w) bool, the pixels of the grid that are scored.
        left_out: indices of regions with a scored pixel in the image but none on the grid.
    """

    found: tuple[Target, ...]
    scored: BoolArray
    left_out: tuple[int, ...]


def grid_hw(letterbox: Letterbox, protocol: Protocol) -> tuple[int, int]:
    """Return (height, width) of the grid where masks are compared."""
    if protocol.grid == "original":
        return letterbox.original_hw
    if letterbox.size % QUARTER:
        raise ConfigError(
            f"protocol {protocol.name!r} compares masks at a quarter of the input, but its side of {letterbox.size} px "
            f"is not a multiple of {QUARTER}; use another protocol"
        )
    return letterbox.size // QUARTER, letterbox.size // QUARTER


def find_targets(label: Annotation, letterbox: Letterbox, protocol: Protocol) -> Targets:
    """Bring the regions of an image to the grid; a region that is ignored as a whole is not a target."""
    size_hw = grid_hw(letterbox, protocol)
    ignore = resize_nearest(label.ignore, size_hw)
    found = []
    left_out = []
    for index, region in enumerate(label.regions):
        seen = visible_part(region, label.ignore)
        if seen is None:
            continue
        click_xy = _first_click(seen, letterbox, protocol)
        truth = resize_region_nearest(region, label.size_hw, size_hw)
        if click_xy is None or truth is None or visible_part(truth, ignore) is None:
            left_out.append(index)
        else:
            found.append(Target(index, region, seen, truth, click_xy))
    return Targets(tuple(found), ~ignore, tuple(left_out))


def _first_click(seen: Instance, letterbox: Letterbox, protocol: Protocol) -> tuple[float, float] | None:
    if protocol.first_click == "center":
        return center_click(seen)
    stretched = resize_region_nearest(seen, letterbox.original_hw, (letterbox.size, letterbox.size))
    if stretched is None:
        return None
    middle = stretched.pixel_xy(stretched.area // 2)
    x, y = letterbox.points_to_original(np.asarray(middle, dtype=np.float32)).tolist()
    return x, y


def resize_nearest(mask: BoolArray, size_hw: tuple[int, int]) -> BoolArray:
    """Resize an (H, W) mask: each new pixel takes the value of the old pixel that its centre falls into."""
    if mask.shape == tuple(size_hw):
        return mask
    rows, columns = map(pixels_under_centres, mask.shape, size_hw)
    return np.ascontiguousarray(mask[np.ix_(rows, columns)])


def resize_region_nearest(region: Instance, old_hw: tuple[int, int], new_hw: tuple[int, int]) -> Instance | None:
    """Resize a region with its image as `resize_nearest` does; None if no pixel is left."""
    if old_hw == new_hw:
        return region
    left = region.picked(*map(pixels_under_centres, old_hw, new_hw))
    return region_from_mask(left.crop, region.class_id, left.window[:2])
