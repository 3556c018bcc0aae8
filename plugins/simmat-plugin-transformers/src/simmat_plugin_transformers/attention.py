"""Append the tokens of prompt and prefix tuning to the keys and values of the library's attentions.

Most attentions use the library's attention interface, where `memory_attention` replaces `sdpa` and appends the memory
of the module. The vision attention of SAM and SAM-HQ does not use it, and is replaced by `WindowAttention`.

Appended tokens have no position: rotary embeddings are applied before, and relative ones are zero for them.
"""

from __future__ import annotations

from typing import Any

import torch
from simmat_plugin_sam.grid_attention import grid_attention
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from simmat.foundation import Memory

IMPLEMENTATION = "simmat_memory"
"""Name of `memory_attention` in the library."""


def memory_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Attend like `sdpa`, with the memory of the module appended to keys and values.

    Args:
        module: an attention of the library.
        query: (B, heads, Q, d).
        key: (B, heads, N, d).
        value: (B, heads, N, d).
        attention_mask: added to the scores, (B or 1, heads or 1, Q, N), or None.
        options: options of the library for `sdpa`.

    Returns:
        Output (B, Q, heads, d), and None instead of the attention weights.
    """
    if getattr(module, "memory", None) is not None:
        keys, values = (_split(tokens, key) for tokens in _projected(module))
        key, value = torch.cat([key, keys], 2), torch.cat([value, values], 2)
        if attention_mask is not None:
            attention_mask = F.pad(attention_mask, (0, keys.shape[2]), value=attention_mask.dtype == torch.bool)
    attended: tuple[Tensor, Tensor | None] = sdpa_attention_forward(
        module, query, key, value, attention_mask, **options
    )
    return attended


def _projected(module: Any) -> tuple[Tensor, Tensor]:
    """Return the keys and values to append, (N, heads · d) each."""
    keys, values = module.memory()
    if module.memory.kind == "prefix" and not module.prefix_is_projected:
        return keys, values
    if isinstance(fused := getattr(module, "qkv", None), nn.Linear):
        return fused(keys).chunk(3, -1)[1], fused(values).chunk(3, -1)[2]
    return module.k_proj(keys), module.v_proj(values)


def _split(tokens: Tensor, like: Tensor) -> Tensor:
    """Reshape (N, heads · d) to (B, heads, N, d), with the dtype and batch of `like`, (B, heads, …, d)."""
    heads = tokens.reshape(len(tokens), like.shape[1], like.shape[3]).transpose(0, 1)
    return heads.to(like.dtype).expand(like.shape[0], -1, -1, -1)


def make_tunable(module: Any, width: int, *, prefix_is_projected: bool) -> None:
    """Make an attention of the library a `simmat.foundation.TunableAttention`, in place.

    Args:
        module: an attention that uses the library's attention interface.
        width: D, width of a token before the projections.
        prefix_is_projected: project a prefix, for projections that change the width; else append it unchanged.
    """
    module.width, module.memory, module.prefix_is_projected = width, None, prefix_is_projected
    module.config._attn_implementation = IMPLEMENTATION


class WindowAttention(nn.Module):
    """The vision attention of SAM and SAM-HQ that can take a memory; parameters keep their names.

    A prompt is projected by `qkv`; a prefix is appended to keys and values unchanged.
    """

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.heads: int = source.num_attention_heads
        self.qkv: nn.Linear = source.qkv
        self.proj: nn.Linear = source.proj
        self.relative: bool = source.use_rel_pos
        if self.relative:
            self.rel_pos_h: Tensor = source.rel_pos_h
            self.rel_pos_w: Tensor = source.rel_pos_w
        self.width: int = self.qkv.in_features
        self.memory: Memory | None = None

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        """Attend: (B, H, W, D) tokens to (B, H, W, D)."""
        tables = (self.rel_pos_h, self.rel_pos_w) if self.relative else None
        return grid_attention(
            hidden_states, self.qkv, self.proj, heads=self.heads, tables=tables, memory=self.memory
        ), None


AttentionInterface.register(IMPLEMENTATION, memory_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
