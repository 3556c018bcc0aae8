"""The library's attentions, opened to the tokens that prompt and prefix tuning join to their keys and values.

Most go through the library's attention interface, where a function of ours stands in for `sdpa` and joins what a
module remembers. The vision attention of SAM and SAM-HQ goes another way and is replaced by `WindowAttention`.

Joined tokens have no position: a rotary embedding is behind them, a relative one is zero there.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from simmat.foundation import Memory
from simmat.nn.grid_attention import grid_attention

IMPLEMENTATION = "simmat_memory"
"""What this attention function is called in the library."""


class _Projections(Protocol):
    """What an opened attention of the library has."""

    memory: Memory | None
    prefix_is_projected: bool


def memory_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Attend as `sdpa` does, with a module's memory joined behind its keys and values.

    Args:
        module: an attention of the library.
        query: (B, heads, Q, d).
        key: (B, heads, N, d).
        value: (B, heads, N, d).
        attention_mask: added to the scores, (B or 1, heads or 1, Q, N), or None.
        options: as the library passes them.

    Returns:
        (B, Q, heads, d), and None in place of the weights.
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


def _projected(module: nn.Module) -> tuple[Tensor, Tensor]:
    """Return what joins keys and values, (N, heads · d) each."""
    opened = cast(_Projections, module)
    assert opened.memory is not None
    keys, values = opened.memory()
    if opened.memory.kind == "prefix" and not opened.prefix_is_projected:
        return keys, values
    if isinstance(fused := getattr(module, "qkv", None), nn.Linear):
        return fused(keys).chunk(3, -1)[1], fused(values).chunk(3, -1)[2]
    projections = cast(Any, module)
    return projections.k_proj(keys), projections.v_proj(values)


def _split(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, heads · d) to (B, heads, N, d) of the dtype and batch of (B, heads, …, d)."""
    heads = tokens.reshape(len(tokens), like.shape[1], like.shape[3]).transpose(0, 1)
    return heads.to(like.dtype).expand(like.shape[0], -1, -1, -1)


def open_attention(module: nn.Module, width: int, *, prefix_is_projected: bool) -> None:
    """Give an attention of the library what `simmat.foundation.TunableAttention` asks for.

    Args:
        module: an attention that goes through the library's interface.
        width: D of a token before the projections.
        prefix_is_projected: a prefix joins before the projections, as where they change the width; else as it is.
    """
    opened = cast(Any, module)
    opened.width, opened.memory, opened.prefix_is_projected = width, None, prefix_is_projected
    opened.config._attn_implementation = IMPLEMENTATION


class WindowAttention(nn.Module):
    """The vision attention of SAM and SAM-HQ, with its parameters under their names.

    A prompt goes through `qkv`; a prefix, as wide as keys and values are, joins as it is.
    """

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        given = cast(Any, source)
        self.heads: int = given.num_attention_heads
        self.qkv: nn.Linear = given.qkv
        self.proj: nn.Linear = given.proj
        self.relative: bool = given.use_rel_pos
        if self.relative:
            self.rel_pos_h: Tensor = given.rel_pos_h
            self.rel_pos_w: Tensor = given.rel_pos_w
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
