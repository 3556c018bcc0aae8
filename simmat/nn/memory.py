"""How an attention takes the trained tokens of a tuner, its `memory`; see `simmat.foundation.TunableAttention`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from simmat.foundation import Memory


def join_memory(k: Tensor, v: Tensor, memory: Memory, qkv: nn.Linear) -> tuple[Tensor, Tensor]:
    """Append a memory to the keys and values of an attention with a fused qkv.

    A prompt is projected by `qkv`; a prefix is appended as it is.

    Args:
        k: (B, heads, L, d) keys.
        v: (B, heads, L, d) values.
        memory: N tokens of D = heads · d.
        qkv: D -> 3 · D, in the order q, k, v.

    Returns:
        Keys and values, (B, heads, L + N, d) each, the memory last.
    """
    more_k, more_v = memory()  # (N, D) each
    if memory.kind == "prompt":
        _, more_k, more_v = qkv(more_k).chunk(3, -1)
    return _append(k, more_k), _append(v, more_v)


def _append(tensor: Tensor, extra: Tensor) -> Tensor:
    """Append (N, heads · d) tokens to (B, heads, L, d): (B, heads, L + N, d)."""
    batch, heads = tensor.shape[:2]
    split = extra.reshape(len(extra), heads, -1).transpose(0, 1).to(tensor.dtype)  # (heads, N, d)
    return torch.cat([tensor, split.expand(batch, -1, -1, -1)], 2)
