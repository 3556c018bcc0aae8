"""Attention over a grid of tokens with decomposed relative positions, as in Segment Anything's encoder.

The positions are added to the logits. On a GPU they are the additive mask of torch's fused attention. On a CPU the
logits are computed block by block, also in the backward pass: torch's fused attention would need the whole mask, and
keep all logits where the mask requires a gradient. The meta device, on which memory is estimated, is treated as a CPU.
Prompt and prefix tuning can append tokens to keys and values; these have no position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from simmat.foundation import Memory
from simmat.nn.tuners import join_memory
from simmat_plugin_sam.fused import is_traced

BLOCK = 2**20
"""Logits per block of `_BlockedAttention`; one array of them takes 4 MiB."""


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
        memory: tokens appended to keys and values, see `simmat.nn.tuners.join_memory`.

    Returns:
        (B, H, W, D).
    """
    batch, height, width, _ = x.shape
    tokens = height * width
    parts = qkv(x).reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    blocked = (
        tables is not None and x.device.type in ("cpu", "meta") and not is_traced()
    )
    if blocked:
        parts = parts.contiguous()
    q, k, v = parts.unbind(0)  # (B, heads, H·W, d) each
    terms = None if tables is None else position_terms(q, *tables, height, width)
    if memory is not None:
        k, v = join_memory(k, v, memory, qkv)
    if terms is not None and blocked:
        # (B·heads, …) each
        grouped = (part.flatten(0, 1) for part in (q, k, v, *terms))
        out: Tensor = (
            cast(Any, _BlockedAttention)
            .apply(*grouped)
            .reshape(batch, heads, tokens, -1)
        )
    else:
        bias = None if terms is None else _bias(*terms, k.shape[2])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    attended: Tensor = proj(out.transpose(1, 2).reshape(batch, height, width, -1))
    return attended


def position_terms(
    q: Tensor, rows: Tensor, columns: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Return the two terms of decomposed relative positions (MViTv2, arXiv 2112.01526).

    Args:
        q: (B, heads, H·W, d) queries.
        rows: table by distance (2n - 1, d), interpolated where n is not H.
        columns: the same for W.
        height: H.
        width: W.

    Returns:
        (B, heads, H·W, H) by the row of a key, and (B, heads, H·W, W) by its column, in the queries' dtype.
    """
    grid = q.reshape(*q.shape[:2], height, width, q.shape[-1])
    along_h = torch.einsum(
        "bnhwc,hkc->bnhwk", grid, _by_distance(rows, height).to(q.dtype)
    )
    along_w = torch.einsum(
        "bnhwc,wkc->bnhwk", grid, _by_distance(columns, width).to(q.dtype)
    )
    return along_h.flatten(2, 3).to(q.dtype), along_w.flatten(2, 3).to(q.dtype)


def _bias(along_h: Tensor, along_w: Tensor, keys: int) -> Tensor:
    """Return the position logits of each key: (…, N, H) and (…, N, W) -> (…, N, keys), 0 from H·W on."""
    bias = (along_h[..., :, None] + along_w[..., None, :]).flatten(-2)
    return bias if bias.shape[-1] == keys else F.pad(bias, (0, keys - bias.shape[-1]))


def _by_distance(table: Tensor, side: int) -> Tensor:
    """Return a table (2n - 1, d) by distance, interpolated to n = `side`, as (side, side, d): query, key."""
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T
    positions = torch.arange(side, device=table.device)
    return table[positions[:, None] - positions[None, :] + side - 1]


class _BlockedAttention(torch.autograd.Function):
    """Attention with position logits that keeps one block of logits at a time, recomputed in the backward pass.

    Inputs should be contiguous: in bf16, a product copies others in every block.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, along_h: Tensor, along_w: Tensor
    ) -> Tensor:
        """Attend.

        Args:
            ctx: autograd's context.
            q: (G, N, d) queries, N = H·W.
            k: (G, M, d) keys, of which the first N have a position.
            v: (G, M, d) values.
            along_h: (G, N, H) position logits by the row of a key.
            along_w: (G, N, W) position logits by its column.

        Returns:
            (G, N, d).
        """
        ctx.save_for_backward(q, k, v, along_h, along_w)
        out = torch.empty_like(q)
        with torch.autocast("cpu", enabled=False):
            for groups, rows in _blocks(q, k):
                logits = _logits(
                    q[groups, rows],
                    k[groups],
                    along_h[groups, rows],
                    along_w[groups, rows],
                )
                out[groups, rows] = torch.bmm(torch.softmax(logits, -1), v[groups])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of all inputs from that of the output, (G, N, d)."""
        q, k, v, along_h, along_w = ctx.saved_tensors
        sides, scale = (along_h.shape[-1], along_w.shape[-1]), q.shape[-1] ** -0.5
        grad = grad.contiguous()
        grad_q, grad_h, grad_w = (
            torch.empty_like(part) for part in (q, along_h, along_w)
        )
        # Sums over blocks, so in full precision.
        grad_k, grad_v = (
            torch.zeros(k.shape, dtype=torch.float32, device=k.device) for _ in range(2)
        )
        with torch.autocast("cpu", enabled=False):
            for groups, rows in _blocks(q, k):
                grad_out = grad[groups, rows]
                logits = _logits(
                    q[groups, rows],
                    k[groups],
                    along_h[groups, rows],
                    along_w[groups, rows],
                )
                with torch.enable_grad():
                    weights = torch.softmax(logits.requires_grad_(), -1)
                # (g, n, M)
                (grad_logits,) = torch.autograd.grad(
                    weights, logits, torch.bmm(grad_out, v[groups].mT)
                )
                grad_v[groups] += torch.bmm(weights.detach().mT, grad_out)
                grad_k[groups] += torch.bmm(grad_logits.mT, q[groups, rows])
                grad_q[groups, rows] = torch.bmm(grad_logits, k[groups]).mul_(scale)
                # (g, n, H, W)
                grad_grid = grad_logits[..., : sides[0] * sides[1]].view(
                    *grad_logits.shape[:2], *sides
                )
                grad_h[groups, rows], grad_w[groups, rows] = (
                    grad_grid.sum(-1),
                    grad_grid.sum(-2),
                )
        return (
            grad_q,
            grad_k.mul_(scale).to(k.dtype),
            grad_v.to(v.dtype),
            grad_h,
            grad_w,
        )


def _blocks(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of G and N whose block has at most `BLOCK` logits, or those of one query."""
    groups, queries = q.shape[:2]
    rows = min(max(BLOCK // k.shape[1], 1), queries)
    group_count = max(BLOCK // (queries * k.shape[1]), 1)
    for first in range(0, groups, group_count):
        for row in range(0, queries, rows):
            yield slice(first, first + group_count), slice(row, row + rows)


def _logits(q: Tensor, k: Tensor, along_h: Tensor, along_w: Tensor) -> Tensor:
    """Return the logits (g, n, M) of queries (g, n, d), computed in place; see `_BlockedAttention`."""
    return _bias(along_h, along_w, k.shape[1]).baddbmm_(
        q, k.mT, alpha=q.shape[-1] ** -0.5
    )
