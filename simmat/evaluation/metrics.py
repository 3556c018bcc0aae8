"""How well one mask fits another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from torch import Tensor

from simmat.data.regions import region_from_mask
from simmat.types import BoolArray

BOUNDARY_RATIO = 0.02
"""Width of the boundary as a part of the image's diagonal (Cheng et al. 2021, arXiv 2103.16562)."""


def mask_iou(masks: Tensor, truth: Tensor, scored: Tensor) -> Tensor:
    """Return the IoU of (K, M, H, W) masks with (K, H, W) truth over the scored (H, W) pixels: (K, M) float64, CPU.

    In 32 bits 9 pixels of 10 are less than 0.9, and NoC@90 would miss them. Both empty gives 0, so an object must have
    a scored pixel for the figure to mean anything.
    """
    truth = (truth & scored)[:, None]
    masks = masks & scored
    intersection = (masks & truth).flatten(2).sum(-1).cpu().double()  # not every device has 64 bits
    union = (masks | truth).flatten(2).sum(-1).cpu()
    return intersection / union.clamp(min=1)


def boundary_width(size_hw: tuple[int, int], ratio: float = BOUNDARY_RATIO) -> int:
    """Return d = round(ratio · √(H² + W²)) pixels, at least 1."""
    return max(round(ratio * float(np.hypot(*size_hw))), 1)


def boundary(mask: BoolArray, width: int) -> BoolArray:
    """Return the pixels of a (H, W) mask at most `width` from what is outside of it.

    The distance is the chessboard's, so this is the mask less its erosion by `width` steps of a 3×3 square, as the
    authors' definition has it; what lies beyond the image's border counts as outside.
    """
    band = np.zeros_like(mask)
    region = region_from_mask(mask, None)
    if region is not None:
        y0, x0, y1, x1 = region.box
        # Just around its box there is nothing of the mask, so the crop is enough.
        distance = ndimage.distance_transform_cdt(np.pad(region.crop, 1), metric="chessboard")[1:-1, 1:-1]
        band[y0:y1, x0:x1] = region.crop & (distance <= width)
    return band


def boundary_iou(prediction: BoolArray, truth: BoolArray, scored: BoolArray, width: int) -> float | None:
    """Return the boundary IoU of Cheng et al. 2021: |G_d ∩ P_d| / |G_d ∪ P_d|.

    G_d and P_d are the pixels of truth and prediction within d of their own contour, see `boundary`. What is not
    scored is left out after the boundaries are found, so the edge of an ignored area is no contour.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        scored: (H, W) bool.
        width: d in pixels, see `boundary_width`.

    Returns:
        None where no pixel of the truth's boundary is scored.
    """
    true_band = boundary(truth, width) & scored
    if not true_band.any():
        return None
    band = boundary(prediction, width) & scored
    return float(np.count_nonzero(true_band & band) / np.count_nonzero(true_band | band))


def number_of_clicks(ious: Sequence[float], target: float) -> int | None:
    """Return how many clicks it took to reach an IoU of `target`, or None where none of them did.

    Args:
        ious: after 1, 2, 3 … clicks.
        target: IoU in 0..1.
    """
    return next((count for count, iou in enumerate(ious, start=1) if iou >= target), None)
