"""Attention over a grid of tokens with decomposed relative positions, as in Segment Anything's encoder.

It uses torch's fused attention, with the positions as an additive mask. Prompt and prefix tuning can append tokens to
keys and values; these have no position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import Memory
from simmat.nn.prompt_tuning import join_memory


def grid_attention(
    x: Tensor,
    qkv: nn.Linear,
    proj: nn.Linear,
    *,
    heads: int,
    tables: tuple[Tensor, Tensor] | None = None,
    memory: Memory | None = None,
) -> Tensor:
    """Attend over all positions of a grid.

    Args:
        x: (B, H, W, D) tokens.
        qkv: the fused projection.
        proj: the output projection.
        heads: number of heads.
        tables: relative positions of rows and columns, (2n - 1, d) each; None for none.
        memory: tokens appended to keys and values, see `simmat.nn.prompt_tuning.join_memory`.

    Returns:
        (B, H, W, D).
    """
    batch, height, width, _ = x.shape
    tokens = height * width
    q, k, v = qkv(x).reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, H·W, d) each
    bias = None if tables is None else position_bias(q, *tables, height, width)
    if memory is not None:
        k, v = join_memory(k, v, memory, qkv)
        bias = None if bias is None else F.pad(bias, (0, k.shape[2] - tokens))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    attended: Tensor = proj(out.transpose(1, 2).reshape(batch, height, width, -1))
    return attended


def position_bias(q: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    """Return the bias of decomposed relative positions (MViTv2, arXiv 2112.01526).

    Args:
        q: (B, heads, H·W, d) queries.
        rows: table by distance (2n - 1, d), interpolated where n is not H.
        columns: the same for W.
        height: H.
        width: W.

    Returns:
        (B, heads, H·W, H·W) in the queries' dtype.
    """
    grid = q.reshape(*q.shape[:2], height, width, q.shape[-1])
    along_h = torch.einsum("bnhwc,hkc->bnhwk", grid, _by_distance(rows, height).to(q.dtype))
    along_w = torch.einsum("bnhwc,wkc->bnhwk", grid, _by_distance(columns, width).to(q.dtype))
    bias = along_h[..., :, None] + along_w[..., None, :]  # (B, heads, H, W, H, W)
    return bias.flatten(4).flatten(2, 3).to(q.dtype)


def _by_distance(table: Tensor, side: int) -> Tensor:
    """Return a table (2n - 1, d) by distance, interpolated to n = `side`, as (side, side, d): query, key."""
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T
    positions = torch.arange(side, device=table.device)
    return table[positions[:, None] - positions[None, :] + side - 1]
