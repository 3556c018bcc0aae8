"""Call Segment Anything's prompt encoder with SimMAT's prompts, in full precision."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import DataError
from simmat.foundation import PromptBatch
from simmat_plugin_sam.fused import is_traced
from simmat_plugin_sam.layers import PromptEncoder


def embed_prompts(
    encoder: PromptEncoder, prompts: PromptBatch
) -> tuple[Tensor, Tensor]:
    """Return sparse (K, tokens, D) and dense (K, D, g, g) embeddings of K prompts.

    As in segment-anything, a padding point is added where there are points but no box.

    Raises:
        DataError: a prompt is empty, or its mask has a size other than the encoder's.
    """
    has_points = prompts.point_coords.shape[1] > 0
    if not has_points and prompts.boxes is None and prompts.mask_input is None:
        raise DataError("a prompt needs at least one point, a box or a mask")
    height, width = encoder.mask_input_size
    masks = prompts.mask_input
    if masks is not None and tuple(masks.shape[1:]) != (1, height, width):
        raise DataError(
            f"mask_input must be (K, 1, {height}, {width}) logits, got {tuple(masks.shape)}"
        )
    # Positions are sines of coordinates times 2π; half precision would shift a point by pixels.
    with torch.autocast(prompts.point_coords.device.type, enabled=False):
        sparse = _embed_points(encoder, prompts)
        if masks is not None:
            return sparse, encoder.mask_downscaling(masks.float())
        no_mask = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return sparse, no_mask.expand(
            sparse.shape[0], -1, *encoder.image_embedding_size
        )


def _embed_points(encoder: PromptEncoder, prompts: PromptBatch) -> Tensor:
    """Return (K, tokens, D): embedded points, and box corners or one padding point.

    The result is that of `PromptEncoder`, which assigns through boolean masks; ONNX has no operator for that.
    """
    coords, labels = prompts.point_coords.float(), prompts.point_labels
    if prompts.boxes is not None:
        corners = prompts.boxes.float().reshape(-1, 2, 2)
        coords, labels = (
            torch.cat([coords, corners], 1),
            F.pad(F.pad(labels, (0, 1), value=2), (0, 1), value=3),
        )
    elif coords.shape[1]:
        coords, labels = (
            F.pad(coords, (0, 0, 0, 1), value=-0.5),
            F.pad(labels, (0, 1), value=-1),
        )
    positions = encoder.pe_layer.forward_with_coords(
        coords + 0.5, encoder.input_image_size
    )
    kinds = torch.cat(
        [
            encoder.not_a_point_embed.weight,
            *(kind.weight for kind in encoder.point_embeddings),
        ]
    )
    return torch.where((labels >= 0)[..., None], positions, 0.0) + kinds[labels + 1]


def dense_positions(encoder: PromptEncoder) -> Tensor:
    """Return the (1, D, g, g) positions of the grid in full precision, without autocast.

    They are computed once for an encoder: a grid of 64x64 takes 2 ms, a click 40.
    """
    matrix: Tensor = encoder.pe_layer.positional_encoding_gaussian_matrix
    known = None if is_traced() else _positions.get(encoder)
    if (
        known is not None
        and known[0].device == matrix.device
        and torch.equal(known[0], matrix)
    ):
        return known[1]
    with torch.inference_mode(False), torch.autocast(matrix.device.type, enabled=False):
        positions: Tensor = encoder.get_dense_pe()
        if not is_traced():
            _positions[encoder] = matrix.clone(), positions
    return positions


_positions: WeakKeyDictionary[nn.Module, tuple[Tensor, Tensor]] = WeakKeyDictionary()
"""Encoder -> its random matrix and the positions that follow from it."""
