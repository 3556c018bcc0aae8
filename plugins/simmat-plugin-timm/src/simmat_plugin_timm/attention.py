"""timm's attentions, with tokens that prompt and prefix tuning append to their keys and values.

Without such tokens, all but Segment Anything's run timm's own forward. With them, and always in Segment Anything's,
timm's projections and norms run around torch's fused attention. Appended tokens have no position.
"""

from __future__ import annotations

from typing import Any

import timm.models.eva
import timm.models.vision_transformer_sam
import torch
from timm.layers import Attention, AttentionRope, apply_rot_embed_cat  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import Memory

EvaAttention = timm.models.eva.EvaAttention
SamAttention = timm.models.vision_transformer_sam.Attention


class _WithMemory:
    """Base of the attentions below.

    Attributes:
        width: features D of a token.
        memory: tokens to append to keys and values; None at first.
    """

    width: int
    memory: Memory | None

    def _join(self: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append the memory of N tokens to keys and values: (B, heads, L, d) to (B, heads, L + N, d)."""
        tokens, values = self.memory()
        if self.memory.kind == "prompt":
            _, more_k, more_v = self._project(tokens[None])  # (1, heads, N, d)
        else:
            more_k, more_v = (t[None].unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for t in (tokens, values))
        return (
            torch.cat([k, more_k.to(k.dtype).expand(k.shape[0], -1, -1, -1)], 2),
            torch.cat([v, more_v.to(v.dtype).expand(v.shape[0], -1, -1, -1)], 2),
        )

    def _project(self: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens (B, L, D) to queries and keys, both normalized, and values: (B, heads, L, d) each."""
        if self.qkv is not None:
            qkv = self.qkv(x)
            if getattr(self, "q_bias", None) is not None:
                qkv = qkv + torch.cat([self.q_bias, self.k_bias, self.v_bias])
            parts = qkv.chunk(3, -1)
        else:
            parts = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return self.q_norm(q), self.k_norm(k), v

    def _attend(self: Any, x: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend and project back: (B, L, D)."""
        dropout = self.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        out = out.transpose(1, 2).flatten(2)  # (B, L, heads · d)
        out = self.norm(out) if getattr(self, "norm", None) is not None else out
        if getattr(self, "gate", None) is not None:
            out = out * self.gate(x).sigmoid()
        attended: Tensor = self.proj_drop(self.proj(out))
        return attended


class TunableAttention(_WithMemory, Attention):
    """The attention of plain ViTs."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Attend: (B, L, D) to (B, L, D)."""
        if self.memory is None:
            plain: Tensor = super().forward(x, *args, **kwargs)
            return plain
        q, k, v = self._project(x)
        return self._attend(x, q, *self._join(k, v))


class _Rotary(_WithMemory):
    """Base of attentions with rotary positions on all tokens but the prefix."""

    def forward(self: Any, x: Tensor, rope: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """Attend: (B, L, D) to (B, L, D)."""
        if self.memory is None:
            plain: Tensor = super().forward(x, rope, *args, **kwargs)  # type: ignore[misc]
            return plain
        q, k, v = self._project(x)
        if rope is not None:
            q, k = self._rotate(q, rope, v), self._rotate(k, rope, v)
        attended: Tensor = self._attend(x, q, *self._join(k, v))
        return attended

    def _rotate(self: Any, tokens: Tensor, rope: Tensor, like: Tensor) -> Tensor:
        prefix = self.num_prefix_tokens
        rotated = apply_rot_embed_cat(tokens[:, :, prefix:], rope, half=getattr(self, "rotate_half", False))
        return torch.cat([tokens[:, :, :prefix], rotated], 2).type_as(like)


class TunableEvaAttention(_Rotary, EvaAttention):
    """The attention of EVA."""


class TunableRopeAttention(_Rotary, AttentionRope):
    """timm's general rotary attention, of later models."""


class TunableSamAttention(_WithMemory, SamAttention):
    """The attention of Segment Anything; its layer `qkv` gets a grid, as Conv-LoRA needs."""

    def forward(self, x: Tensor) -> Tensor:
        """Attend: (B, H, W, D) to (B, H, W, D)."""
        height, width = x.shape[1:3]
        q, k, v = (part.flatten(1, 2).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
                   for part in self.qkv(x).chunk(3, -1))  # fmt: skip
        q, k = self.q_norm(q), self.k_norm(k)
        bias = self._positions(q, height, width)
        if self.memory is not None:
            k, v = self._join(k, v)
            bias = F.pad(bias, (0, k.shape[2] - bias.shape[-1]))
        return self._attend(x.flatten(1, 2), q, k, v, bias).reshape(x.shape)

    def _positions(self, q: Tensor, height: int, width: int) -> Tensor:
        """Return the bias of relative positions: (B, heads, H·W, H·W)."""
        flat, size = q.flatten(0, 1), (height, width)
        of = timm.models.vision_transformer_sam.get_decomposed_rel_pos_bias
        bias: Tensor = of(flat, self.rel_pos_h, self.rel_pos_w, size, size)
        return bias.reshape(*q.shape[:2], *bias.shape[1:]).to(q.dtype)  # (B · heads, …) to (B, heads, …)


_TUNABLE: dict[type[nn.Module], type[nn.Module]] = {
    Attention: TunableAttention,
    EvaAttention: TunableEvaAttention,
    AttentionRope: TunableRopeAttention,
    SamAttention: TunableSamAttention,
}


def takes_memory(attention: nn.Module) -> bool:
    """True for an attention that one of the classes above can replace."""
    heads, out = getattr(attention, "num_heads", 0), getattr(attention, "proj", None)
    return (
        type(attention) in _TUNABLE
        and isinstance(out, nn.Linear)
        and out.in_features == out.out_features == heads * int(getattr(attention, "head_dim", 0))
        and getattr(attention, "num_kv_groups", 1) == 1
        and (type(attention) is not SamAttention or (bool(attention.use_rel_pos) and attention.rope is None))
    )


def make_tunable(network: nn.Module) -> None:
    """Make every supported attention of a network tunable, in place; parameters keep their names."""
    for module in network.modules():
        if takes_memory(module):
            # Only `forward` changes, so the object changes class and nothing is copied.
            module.__class__ = _TUNABLE[type(module)]
            module.width = module.proj.in_features  # type: ignore[union-attr]
            setattr(module, "memory", None)  # noqa: B010 - typed as Tensor | Module otherwise
