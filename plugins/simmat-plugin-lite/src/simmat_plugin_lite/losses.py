"""What pretraining minimises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.foundation import MaskPrediction

OUTSIDE = 0.1
"""Weight of the frame's padding in the mask losses: nothing is there, and it is cheap to learn."""

LOSERS = 0.05
"""What all alternatives share, the best among them, so that none dies (Rupprecht et al. 2017, arXiv 1612.00197)."""

_LARGEST_BOOST = 6.0


def to_size(region: Tensor, height: int, width: int) -> Tensor:
    """(K, S, S) bool -> (K, height, width) float 0 or 1, by majority."""
    share = F.adaptive_avg_pool2d(region.float()[:, None], (height, width))[:, 0]
    return (share >= 0.5).float()


def mask_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Dice plus cross-entropy of each mask.

    Cross-entropy is summed and divided by the geometric mean of the frame's and the object's areas, so
    that a small object counts nearly as much as a large one.

    Args:
        logits: (K, M, h, w).
        target: (K, h, w) 0 or 1.
        weight: (K, h, w).

    Returns:
        (K, M).
    """
    truth = target[:, None].expand_as(logits)
    w = weight[:, None]
    probability = logits.sigmoid()
    overlap = (w * probability * truth).sum((2, 3))
    total = (w * (probability + truth)).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (total + 1)
    frame = w.sum((2, 3))
    area = (w * truth).sum((2, 3)).clamp(min=1.0)
    boost = (frame / area).sqrt().clamp(max=_LARGEST_BOOST)
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return dice + boost * (w * entropy).sum((2, 3)) / frame


@torch.no_grad()
def true_iou(logits: Tensor, target: Tensor, content: Tensor) -> Tensor:
    """IoU of each thresholded mask within the content: (K, M, h, w), (K, h, w), (K, h, w) -> (K, M)."""
    guess = (logits > 0) & (content[:, None] > 0)
    truth = (target[:, None] > 0) & (content[:, None] > 0)
    union = (guess | truth).sum((2, 3)).clamp(min=1)
    return (guess & truth).sum((2, 3)) / union


def pretraining_loss(
    prediction: MaskPrediction, coarse: Tensor, region: Tensor, content: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Single mask, best of three (relaxed), half-way mask and IoU head.

    Args:
        prediction: of K prompts.
        coarse: (K, 1, S/8, S/8) half-way logits.
        region: (K, S, S) bool truth.
        content: (K, S, S) bool, the image without padding.

    Returns:
        the loss, and its parts for the log.
    """
    h, w = prediction.logits.shape[-2:]
    target, inside = to_size(region, h, w), to_size(content, h, w)
    weight = inside + OUTSIDE * (1 - inside)
    each = mask_loss(prediction.logits, target, weight)  # (K, 4)
    single = each[:, 0].mean()
    several = each[:, 1:]
    winner = ((1 - LOSERS) * several.amin(1) + LOSERS * several.mean(1)).mean()
    small = to_size(region, *coarse.shape[-2:])
    small_inside = to_size(content, *coarse.shape[-2:])
    halfway = mask_loss(coarse, small, small_inside + OUTSIDE * (1 - small_inside)).mean()
    iou = true_iou(prediction.logits, target, inside)
    head = F.smooth_l1_loss(prediction.iou, iou, beta=0.1)
    loss = single + 0.6 * winner + 0.3 * halfway + head
    parts = {"single": single, "winner": winner, "halfway": halfway, "iou_head": head, "iou": iou[:, 0].mean()}
    return loss, {name: float(value.detach()) for name, value in parts.items()}
