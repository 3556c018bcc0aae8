"""Copy objects within their image, so that a small training set shows neighbours and clutter too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from simmat.data.card import DataCard
from simmat.data.instances import (
    EIGHT,
    Annotation,
    Instance,
    region_from_mask,
    visible_part,
)
from simmat.errors import ConfigError
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import BoolArray, SensorImage

MAX_COPIES = 4
"""Largest number of copies in one image."""

_MAX_TRIES = 10
_MAX_HIDDEN = 0.1
"""A region is cut off if more than this fraction of the pixels around it are outside the image or ignored."""


def check_repeats(paste: float, card: DataCard, root: Path) -> None:
    """Refuse to repeat objects where the region rule of the data leaves no place for a copy."""
    if card.regions == "classes":
        raise ConfigError(
            f"--paste {paste:g} repeats objects, but in {root} all pixels of a class are one region "
            '(regions = "classes"); leave --paste out, or use --regions components if each connected '
            "piece is an object"
        )
    if card.zero_means == "none":
        raise ConfigError(
            f"--paste {paste:g} repeats objects on background, but in {root} every pixel is in a region "
            '(zero_means = "none"); leave --paste out'
        )


def repeat_regions(
    image: SensorImage,
    label: Annotation,
    adapter: ModalityAdapter,
    rng: np.random.Generator,
    *,
    rotate: bool,
) -> tuple[SensorImage, Annotation]:
    """Copy up to `MAX_COPIES` of an image's regions to free places, with probability 0.5 close to another region.

    Copy-paste (Ghiasi et al., CVPR 2021) within one image, so that light, gain and noise match. A copy is mirrored,
    rotated or halved at random. Halving takes every second pixel, so that all values are measured ones, unless that
    splits the object or makes it too small. Copies touch no region and cover no ignored pixel. Without a `repeatable`
    region the arguments are returned.
    """
    sources = repeatable(label)
    if not sources:
        return image, label
    data = image.data.copy()
    valid = image.valid.copy()
    union = np.zeros(label.size_hw, dtype=np.bool_)
    for region in label.regions:
        union[region.window.slices] |= region.crop
    closed = label.ignore | ndimage.binary_dilation(union, EIGHT)
    regions = list(label.regions)
    for _ in range(int(rng.integers(1, MAX_COPIES + 1))):
        source = sources[int(rng.integers(len(sources)))]
        piece, mask = _copy(
            image, source, adapter, rng, rotate=rotate, smallest=label.smallest
        )
        anchor = None
        if rng.random() < 0.5:
            anchor = regions[int(rng.integers(len(regions)))]
        place = _free_place(mask, closed, anchor, rng)
        if place is None:
            continue
        data[:, *place][:, mask] = piece.data[:, mask]
        valid[:, *place][:, mask] = piece.valid[:, mask]
        rows, columns = place
        copied = region_from_mask(mask, source.class_id, (rows.start, columns.start))
        if copied is not None:
            regions.append(copied)
            closed |= ndimage.binary_dilation(copied.mask(label.size_hw), EIGHT)
    copies = regions[len(label.regions) :]
    small = []
    for region in label.small:
        left = _uncovered(region, copies)
        if left is not None:
            small.append(left)
    return replace(image, data=data, valid=valid), replace(
        label, regions=tuple(regions), small=tuple(small)
    )


def _uncovered(region: Instance, copies: Sequence[Instance]) -> Instance | None:
    """Return the part of a region that no copy covers; None if there is none."""
    crop = region.crop
    for copied in copies:
        crop = crop & ~copied.within(region.window)
    return region_from_mask(crop, region.class_id, region.window[:2])


def repeatable(label: Annotation) -> Sequence[Instance]:
    """Return the visible parts of regions that are not cut off by the image's border or by ignored pixels."""
    unknown = np.pad(label.ignore, 1, constant_values=True)  # (H + 2, W + 2)
    found = []
    for region in label.regions:
        y0, x0, y1, x1 = region.window
        padded = np.pad(region.crop, 1)
        ring = ndimage.binary_dilation(padded, EIGHT) & ~padded
        hidden = unknown[y0 : y1 + 2, x0 : x1 + 2] & ring
        is_cut = np.count_nonzero(hidden) > _MAX_HIDDEN * np.count_nonzero(ring)
        part = visible_part(region, label.ignore)
        if part is not None and not is_cut:
            found.append(part)
    return found


def _copy(
    image: SensorImage,
    region: Instance,
    adapter: ModalityAdapter,
    rng: np.random.Generator,
    *,
    rotate: bool,
    smallest: int,
) -> tuple[SensorImage, BoolArray]:
    """Return the image within a region's box and the region's mask, both mirrored, rotated and halved at random."""
    piece = replace(image.cut(region.window), georeference=None)
    mask = region.crop
    if rng.random() < 0.5:
        piece = adapter.flip(piece, "horizontal")
        mask = mask[:, ::-1]
    if rotate:
        turns = int(rng.integers(4))
        piece = adapter.rotate(piece, turns)
        mask = np.rot90(mask, turns)
    if rng.random() < 0.5 and _can_be_halved(mask, smallest):
        data = np.ascontiguousarray(piece.data[:, ::2, ::2])
        valid = np.ascontiguousarray(piece.valid[:, ::2, ::2])
        piece = replace(piece, data=data, valid=valid)
        mask = mask[::2, ::2]
    return piece, np.ascontiguousarray(mask)


def _can_be_halved(mask: BoolArray, smallest: int) -> bool:
    """Return True if every second pixel of an object is large enough and has as many pieces as the object."""
    half = mask[::2, ::2]
    if np.count_nonzero(half) < smallest:
        return False
    _, pieces = ndimage.label(mask, EIGHT)
    _, pieces_of_half = ndimage.label(half, EIGHT)
    return bool(pieces_of_half == pieces)


def _free_place(
    mask: BoolArray,
    closed: BoolArray,
    anchor: Instance | None,
    rng: np.random.Generator,
) -> tuple[slice, slice] | None:
    """Draw rows and columns where a mask overlaps no `closed` (H, W) pixel, near `anchor` if given; else None."""
    height, width = mask.shape
    rows, columns = closed.shape
    if height > rows or width > columns:
        return None
    for _ in range(_MAX_TRIES):
        if anchor is None:
            y = int(rng.integers(rows - height + 1))
            x = int(rng.integers(columns - width + 1))
        else:
            y0, x0, y1, x1 = anchor.window
            reach = (
                rng.uniform(0.3, 1.2)
                * (np.hypot(y1 - y0, x1 - x0) + np.hypot(height, width))
                / 2
            )
            angle = rng.uniform(0, 2 * np.pi)
            y = round((y0 + y1 - height) / 2 + reach * np.sin(angle))
            x = round((x0 + x1 - width) / 2 + reach * np.cos(angle))
        if not (0 <= y <= rows - height and 0 <= x <= columns - width):
            continue
        place = slice(y, y + height), slice(x, x + width)
        if not (closed[place] & mask).any():
            return place
    return None
