"""Segment Anything's prompt encoder, called with SimMAT's prompts in full precision."""

from __future__ import annotations

import torch
from segment_anything.modeling import PromptEncoder  # type: ignore[import-untyped]
from torch import Tensor

from simmat.errors import DataError
from simmat.foundation import PromptBatch


def embed_prompts(encoder: PromptEncoder, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
    """Return sparse (K, tokens, D) and dense (K, D, g, g) embeddings of K prompts.

    The package adds a padding point where there are points but no box.

    Raises:
        DataError: a prompt is empty, or its mask has a size other than the encoder's.
    """
    has_points = prompts.point_coords.shape[1] > 0
    if not has_points and prompts.boxes is None and prompts.mask_input is None:
        raise DataError("a prompt needs at least one point, a box or a mask")
    height, width = encoder.mask_input_size
    masks = prompts.mask_input
    if masks is not None and tuple(masks.shape[1:]) != (1, height, width):
        raise DataError(f"mask_input must be (K, 1, {height}, {width}) logits, got {tuple(masks.shape)}")
    # Positions are sines of coordinates times 2π: half precision would shift a point by pixels.
    with torch.autocast(prompts.point_coords.device.type, enabled=False):
        sparse, dense = encoder(
            points=(prompts.point_coords.float(), prompts.point_labels) if has_points else None,
            boxes=prompts.boxes.float() if prompts.boxes is not None else None,
            masks=masks.float() if masks is not None else None,
        )
    return sparse, dense


def dense_positions(encoder: PromptEncoder, like: Tensor) -> Tensor:
    """Return the (1, D, g, g) positions of the grid in full precision, without autocast on `like`'s device."""
    with torch.autocast(like.device.type, enabled=False):
        positions: Tensor = encoder.get_dense_pe()
    return positions
