"""How well one mask fits another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simmat.data.regions import Region
from simmat.types import BoolArray

BOUNDARY_RATIO = 0.02
"""Width of the boundary as a part of the image's diagonal (Cheng et al. 2021, arXiv 2103.16562)."""


def mask_iou(mask: Region | None, truth: Region, scored: BoolArray) -> float:
    """Return the IoU of a mask, None where it is empty, with the truth over the scored (H, W) pixels.

    It is a quotient of whole numbers in 64 bits: in 32 bits 9 pixels of 10 are less than 0.9, and NoC@90 would miss
    them. Both empty gives 0, so an object must have a scored pixel for the figure to mean anything. The cost is that
    of the two boxes.
    """
    if mask is None:
        return 0.0
    true = _scored_part(truth, scored)
    shared = int(np.count_nonzero(true & mask.within(truth.box)))
    union = int(np.count_nonzero(true)) + int(np.count_nonzero(_scored_part(mask, scored))) - shared
    return shared / max(union, 1)


def _scored_part(region: Region, scored: BoolArray) -> BoolArray:
    y0, x0, y1, x1 = region.box
    part: BoolArray = region.crop & scored[y0:y1, x0:x1]
    return part


def boundary_width(size_hw: tuple[int, int], ratio: float = BOUNDARY_RATIO) -> int:
    """Return d = round(ratio · √(H² + W²)) pixels, at least 1."""
    return max(round(ratio * float(np.hypot(*size_hw))), 1)


def boundary(region: Region, width: int) -> Region:
    """Return the pixels of a region at most `width` from what is outside of it, in the same box.

    The distance is the chessboard's, so this is the region less its erosion by `width` steps of a 3×3 square, as the
    authors' definition has it; what lies beyond the image's border counts as outside.
    """
    inside = region.crop
    for axis in (0, 1):  # a square is eroded by its sides one after the other
        inside = _eroded(inside, width, axis)
    return Region(region.class_id, region.box, region.crop & ~inside)


def _eroded(mask: BoolArray, width: int, axis: int) -> BoolArray:
    """Return the pixels of a (h, w) mask whose `width` neighbours on both sides along an axis are all in it."""
    eroded = np.zeros_like(mask)
    whole, lines = 2 * width + 1, np.moveaxis(mask, axis, 0)  # lines: (n, m)
    if len(lines) < whole:
        return eroded
    runs, length = lines, 1  # runs[i]: whether `length` pixels from i on are in the mask
    while length < whole:
        step = min(length, whole - length)
        runs, length = runs[: len(runs) - step] & runs[step:], length + step
    np.moveaxis(eroded, axis, 0)[width : len(lines) - width] = runs
    return eroded


def boundary_iou(prediction: Region | None, truth: Region, scored: BoolArray, width: int) -> float | None:
    """Return the boundary IoU of Cheng et al. 2021: |G_d ∩ P_d| / |G_d ∪ P_d|.

    G_d and P_d are the pixels of truth and prediction within d of their own contour, see `boundary`. What is not
    scored is left out after the boundaries are found, so the edge of an ignored area is no contour.

    Args:
        prediction: None where it is empty.
        truth: the object.
        scored: (H, W) bool.
        width: d in pixels, see `boundary_width`.

    Returns:
        None where no pixel of the truth's boundary is scored.
    """
    true_band = boundary(truth, width)
    if not _scored_part(true_band, scored).any():
        return None
    return mask_iou(None if prediction is None else boundary(prediction, width), true_band, scored)


def number_of_clicks(ious: Sequence[float], target: float) -> int | None:
    """Return how many clicks it took to reach an IoU of `target`, or None where none of them did.

    Args:
        ious: after 1, 2, 3 … clicks.
        target: IoU in 0..1.
    """
    return next((count for count, iou in enumerate(ious, start=1) if iou >= target), None)
