"""Objects repeated within their image: neighbours and clutter that few training images do not show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from simmat.data.regions import EIGHT, Label, Region, region_from_mask, seen_part
from simmat.modality import ModalityAdapter
from simmat.types import BoolArray, SensorImage

MOST = 4
"""Most copies in one image."""

_TRIES = 10
_SMALLEST_PX = 16
"""A copy is halved only where this much is left of it."""


def repeat_regions(
    image: SensorImage, label: Label, adapter: ModalityAdapter, rng: np.random.Generator, *, rotate: bool
) -> tuple[SensorImage, Label]:
    """Copy 1 to `MOST` of an image's regions to where none is, half of them close to another one.

    Copy-paste (Ghiasi et al., CVPR 2021) within one image, whose light, gain and noise are then right. A copy is
    mirrored, turned or halved by chance; halving takes every second pixel, so that values stay measured ones. What the
    image's border cuts is not copied.

    Args:
        image: (C, H, W).
        label: of that image.
        adapter: knows what a flip or a turn does to its values.
        rng: where chance comes from.
        rotate: quarter turns and top-bottom flips too.

    Returns:
        The image and its label with a new region for each copy that found a place; copies never overlap a region or
        pixels that are ignored.
    """
    whole = (region for region in label.regions if not _is_cut(region, label.size_hw))
    seen = [part for region in whole if (part := seen_part(region, label.ignore)) is not None]
    if not seen:
        return image, label
    data, valid = image.data.copy(), image.valid.copy()
    closed = label.ignore | ndimage.binary_dilation(_union(label), EIGHT)
    regions = list(label.regions)
    for _ in range(int(rng.integers(1, MOST + 1))):
        source = seen[int(rng.integers(len(seen)))]
        piece, mask = _copy(image, source, adapter, rng, rotate=rotate)
        anchor = regions[int(rng.integers(len(regions)))] if rng.random() < 0.5 else None
        if (place := _free_place(mask, closed, anchor, rng)) is None:
            continue
        data[:, *place][:, mask] = piece.data[:, mask]
        valid[:, *place][:, mask] = piece.valid[:, mask]
        corner = (place[0].start, place[1].start)
        if (region := region_from_mask(mask, source.class_id, corner)) is not None:
            regions.append(region)
            closed |= ndimage.binary_dilation(region.mask(label.size_hw), EIGHT)
    return replace(image, data=data, valid=valid), replace(label, regions=tuple(regions))


def _is_cut(region: Region, size_hw: tuple[int, int]) -> bool:
    y0, x0, y1, x1 = region.box
    return y0 == 0 or x0 == 0 or y1 == size_hw[0] or x1 == size_hw[1]


def _union(label: Label) -> BoolArray:
    union = np.zeros(label.size_hw, dtype=np.bool_)
    for region in label.regions:
        y0, x0, y1, x1 = region.box
        union[y0:y1, x0:x1] |= region.crop
    return union


def _copy(
    image: SensorImage, region: Region, adapter: ModalityAdapter, rng: np.random.Generator, *, rotate: bool
) -> tuple[SensorImage, BoolArray]:
    """Return a region's box of the image and its mask, mirrored, turned and halved by chance."""
    y0, x0, y1, x1 = region.box
    cut = (slice(None), slice(y0, y1), slice(x0, x1))
    piece = replace(image, data=image.data[cut].copy(), valid=image.valid[cut].copy(), georeference=None)
    mask = region.crop
    if rng.random() < 0.5:
        piece, mask = adapter.flip(piece, "horizontal"), mask[:, ::-1]
    if rotate:
        turns = int(rng.integers(4))
        piece, mask = adapter.rotate(piece, turns), np.rot90(mask, turns)
    if rng.random() < 0.5 and np.count_nonzero(mask[::2, ::2]) >= _SMALLEST_PX:
        half = (slice(None), slice(None, None, 2), slice(None, None, 2))
        piece = replace(
            piece, data=np.ascontiguousarray(piece.data[half]), valid=np.ascontiguousarray(piece.valid[half])
        )
        mask = mask[::2, ::2]
    return piece, np.ascontiguousarray(mask)


def _free_place(
    mask: BoolArray, closed: BoolArray, anchor: Region | None, rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """Return rows and columns where a mask meets nothing closed, or None where none was found.

    Args:
        mask: (h, w).
        closed: (H, W) True where no copy may lie.
        anchor: a region to lie close to; None for anywhere.
        rng: where chance comes from.
    """
    (height, width), (rows, columns) = mask.shape, closed.shape
    if height > rows or width > columns:
        return None
    for _ in range(_TRIES):
        if anchor is None:
            y, x = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
        else:
            y0, x0, y1, x1 = anchor.box
            reach = rng.uniform(0.3, 1.2) * (np.hypot(y1 - y0, x1 - x0) + np.hypot(height, width)) / 2
            angle = rng.uniform(0, 2 * np.pi)
            y = round((y0 + y1 - height) / 2 + reach * np.sin(angle))
            x = round((x0 + x1 - width) / 2 + reach * np.cos(angle))
        if not (0 <= y <= rows - height and 0 <= x <= columns - width):
            continue
        place = slice(y, y + height), slice(x, x + width)
        if not (closed[place] & mask).any():
            return place
    return None
