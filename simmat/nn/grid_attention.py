"""Attention over a grid of tokens with decomposed relative positions, as in Segment Anything's encoder.

The positions are added to the logits. On a GPU they are the additive mask of torch's fused attention. On a CPU a
matrix of logits is made, used and dropped block by block, also in the backward pass: torch's fused attention would need
the whole mask, and keep every matrix where the mask requires a gradient. The meta device, on which memory is estimated,
does as a CPU does. Prompt and prefix tuning can append tokens to keys and values; these have no position.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from simmat.foundation import Memory
from simmat.nn.prompt_tuning import join_memory

_BLOCK = 2**20
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
        memory: tokens appended to keys and values, see `simmat.nn.prompt_tuning.join_memory`.

    Returns:
        (B, H, W, D).
    """
    batch, height, width, _ = x.shape
    tokens = height * width
    parts = qkv(x).reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)
    blocked = tables is not None and x.device.type in ("cpu", "meta") and not _is_traced()
    if blocked:
        parts = parts.contiguous()
    q, k, v = parts.unbind(0)  # (B, heads, H·W, d) each
    along = None if tables is None else position_terms(q, *tables, height, width)
    if memory is not None:
        k, v = join_memory(k, v, memory, qkv)
    if along is not None and blocked:
        grouped = (part.flatten(0, 1) for part in (q, k, v, *along))  # (B·heads, …) each
        out: Tensor = cast(Any, _BlockedAttention).apply(*grouped).reshape(batch, heads, tokens, -1)
    else:
        bias = None if along is None else _bias(*along, k.shape[2])
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    attended: Tensor = proj(out.transpose(1, 2).reshape(batch, height, width, -1))
    return attended


def _is_traced() -> bool:
    """Return whether torch records the computation, to compile or to export it: without loops over blocks."""
    return torch.compiler.is_compiling() or bool(cast(Any, torch.jit).is_tracing())


def position_terms(q: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
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
    along_h = torch.einsum("bnhwc,hkc->bnhwk", grid, _by_distance(rows, height).to(q.dtype))
    along_w = torch.einsum("bnhwc,wkc->bnhwk", grid, _by_distance(columns, width).to(q.dtype))
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
    """Attention with position logits that holds one block of the logits at a time, and recomputes it backwards.

    Inputs should be contiguous: in bf16, a product copies others, once a block.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, along_h: Tensor, along_w: Tensor) -> Tensor:
        """Attend.

        Args:
            ctx: of autograd.
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
            for some, rows in _blocks(q, k):
                logits = _logits(q[some, rows], k[some], along_h[some, rows], along_w[some, rows])
                out[some, rows] = torch.bmm(torch.softmax(logits, -1), v[some])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        """Return the gradients of all inputs from that of the output, (G, N, d)."""
        q, k, v, along_h, along_w = ctx.saved_tensors
        sides, scale = (along_h.shape[-1], along_w.shape[-1]), q.shape[-1] ** -0.5
        grad = grad.contiguous()
        grad_q, grad_h, grad_w = (torch.empty_like(part) for part in (q, along_h, along_w))
        # Every block adds to these: in full precision.
        grad_k, grad_v = (torch.zeros(k.shape, dtype=torch.float32, device=k.device) for _ in range(2))
        with torch.autocast("cpu", enabled=False):
            for some, rows in _blocks(q, k):
                own = grad[some, rows]
                logits = _logits(q[some, rows], k[some], along_h[some, rows], along_w[some, rows])
                with torch.enable_grad():
                    shares = torch.softmax(logits.requires_grad_(), -1)
                (wanted,) = torch.autograd.grad(shares, logits, torch.bmm(own, v[some].mT))  # (g, n, M)
                grad_v[some] += torch.bmm(shares.detach().mT, own)
                grad_k[some] += torch.bmm(wanted.mT, q[some, rows])
                grad_q[some, rows] = torch.bmm(wanted, k[some]).mul_(scale)
                placed = wanted[..., : sides[0] * sides[1]].view(*wanted.shape[:2], *sides)  # (g, n, H, W)
                grad_h[some, rows], grad_w[some, rows] = placed.sum(-1), placed.sum(-2)
        return grad_q, grad_k.mul_(scale).to(k.dtype), grad_v.to(v.dtype), grad_h, grad_w


def _blocks(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of G and N, so that `_BLOCK` logits, or those of one query, are in a block."""
    groups, queries = q.shape[:2]
    rows = min(max(_BLOCK // k.shape[1], 1), queries)
    together = max(_BLOCK // (queries * k.shape[1]), 1)
    for first in range(0, groups, together):
        for row in range(0, queries, rows):
            yield slice(first, first + together), slice(row, row + rows)


def _logits(q: Tensor, k: Tensor, along_h: Tensor, along_w: Tensor) -> Tensor:
    """Return the logits (g, n, M) of queries (g, n, d), without a gradient, see `_BlockedAttention`."""
    return _bias(along_h, along_w, k.shape[1]).baddbmm_(q, k.mT, alpha=q.shape[-1] ** -0.5)
