"""A prompt as one plane: 1 on the object, -1 off it, 0 unknown."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.foundation import PromptBatch

CLICK_RADIUS_PX = 5
"""Radius of a click's disk, the best one in Sofiiuk et al. 2021 (arXiv 2102.06583)."""


def prompt_plane(prompts: PromptBatch, size: int) -> Tensor:
    """Draw K prompts: (K, 1, S, S) float32 in -1..1.

    In this order, the later over the earlier: a previous mask, as its probability minus one half; -1 outside a box; a
    disk for each click, 1 if it is on the object and -1 if not.

    Args:
        prompts: K prompts in input pixels.
        size: S.
    """
    plane = _previous(prompts, size)
    x = torch.arange(size, device=plane.device, dtype=torch.float32)
    y = x[:, None]  # (S, 1)
    if prompts.boxes is not None:
        x0, y0, x1, y1 = prompts.boxes.float()[:, :, None, None].unbind(1)  # (K, 1, 1) each: outer edges
        centre_x, centre_y = x + 0.5, y + 0.5
        inside = (centre_x >= x0) & (centre_x <= x1) & (centre_y >= y0) & (centre_y <= y1)  # (K, S, S)
        plane = torch.where(inside, plane, -1.0)
    labels = prompts.point_labels
    if labels.shape[1]:
        px, py = prompts.point_coords.float()[..., None, None].unbind(2)  # (K, N, 1, 1) each
        disks = ((x - px) ** 2 + (y - py) ** 2 <= CLICK_RADIUS_PX**2) & (labels >= 0)[..., None, None]  # (K, N, S, S)
        rank = torch.ones_like(labels).cumsum(1)[..., None, None]  # 1 to N, without a loop that tracing would fix
        last = (disks * rank).amax(1, keepdim=True)  # (K, 1, S, S), 0 outside of all disks
        sign = ((rank == last) * (2.0 * labels - 1)[..., None, None]).sum(1)
        plane = torch.where(last[:, 0] > 0, sign, plane)
    return plane[:, None]


def _previous(prompts: PromptBatch, size: int) -> Tensor:
    """Return the probabilities of previous masks minus one half, (K, S, S); 0 without masks."""
    if prompts.mask_input is None:
        return prompts.point_coords.new_zeros((prompts.image_index.shape[0], size, size), dtype=torch.float32)
    logits = prompts.mask_input.float()
    if logits.shape[-2:] != (size, size):
        logits = F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
    return logits[:, 0].sigmoid() - 0.5
