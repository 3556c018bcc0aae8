"""SAM's two-way transformer between the few tokens of a prompt and the many of an image, in about half the work.

A weighted sum of projected tokens is the projection of the weighted sum, and q · W k = (Wᵀ q) · k. So the tokens of the
prompt are projected, 7 for each of 8 heads, instead of the 4096 of the image at 1024 px.

Shapes: K prompts of T tokens; N tokens of an image, of which there are K, or one for all prompts; D features, of which
the attention's heads share d.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from simmat.foundation import Memory
from simmat_plugin_sam.layers import DecoderAttention, TwoWayTransformer


class TokenAttention(DecoderAttention):  # type: ignore[misc]
    """The attention of SAM's mask decoder, with the tokens of a memory added before its projections.

    It has the parameters of the module it replaces, under their names; without a memory it computes the same.
    """

    def __init__(self, source: DecoderAttention) -> None:
        rate = source.embedding_dim // source.internal_dim
        with torch.device("meta"):
            super().__init__(
                source.embedding_dim, source.num_heads, downsample_rate=rate
            )
        for name, layer in source.named_children():
            setattr(self, name, layer)
        self.width: int = source.embedding_dim
        self.memory: Memory | None = None

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: (B, Q, D) queries, (B, N, D) keys and values, to (B, Q, D)."""
        attended: Tensor = super().forward(q, *self._with_memory(k, v))
        return attended

    def _with_memory(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.memory is None:
            return k, v
        keys, values = (tokens.expand(k.shape[0], -1, -1) for tokens in self.memory())
        return torch.cat([k, keys.to(k.dtype)], 1), torch.cat(
            [v, values.to(v.dtype)], 1
        )

    def _by_head(self, tokens: Tensor) -> Tensor:
        """Repeat each token for every head, the features of other heads zero: (K, T, d) -> (K, heads · T, d)."""
        heads, features = self.num_heads, tokens.shape[2]
        own = torch.eye(heads, dtype=tokens.dtype, device=tokens.device)[
            :, None, :, None
        ]
        split = tokens.reshape(tokens.shape[0], 1, -1, heads, features // heads) * own
        return split.reshape(tokens.shape[0], -1, features)

    def _logits(self, tokens: Tensor, layer: nn.Module, image: Tensor) -> Tensor:
        """Return the scaled products of projected tokens (K, T, d) and `layer(image)`: (K, heads · T, N)."""
        tokens = self._by_head(tokens) * (self.num_heads / tokens.shape[2]) ** 0.5
        if type(layer) is nn.Linear and len(tokens) == len(image):
            logits = (
                image @ (tokens @ layer.weight).transpose(1, 2)
                + (tokens @ layer.bias)[:, None]
            )
        else:  # one image for all, or a layer that a tuner has changed
            logits = layer(image) @ tokens.transpose(1, 2)
        return logits.transpose(1, 2)


class TokenToImageAttention(TokenAttention):
    """Attention with queries of prompts, keys and values of images."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: (K, T, D) queries, (K or 1, N, D) keys and values, to (K, T, D)."""
        k, v = self._with_memory(k, v)
        weights = self._logits(self.q_proj(q), self.k_proj, k).softmax(2)
        # (K, heads · T, d)
        means = (
            self.v_proj(weights @ v) if len(q) == len(v) else weights @ self.v_proj(v)
        )
        split = means.reshape(
            means.shape[0], self.num_heads, q.shape[1], self.num_heads, -1
        )
        own = split.diagonal(dim1=1, dim2=3)  # (K, T, d / heads, heads)
        out: Tensor = self.out_proj(own.transpose(2, 3).flatten(2))
        return out


class ImageToTokenAttention(TokenAttention):
    """Attention with queries of images, keys and values of prompts."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend: (K or 1, N, D) queries, (K, T, D) keys and values, to (K, N, D)."""
        k, v = self._with_memory(k, v)
        logits = self._logits(self.k_proj(k), self.q_proj, q)
        weights = (
            logits.reshape(k.shape[0], self.num_heads, k.shape[1], -1)
            .softmax(2)
            .flatten(1, 2)
        )
        # (K, heads · T, D), the bias once a head instead of once
        values = self.out_proj(self._by_head(self.v_proj(v)))
        bias = self.out_proj(torch.zeros_like(k[:1, :1, : self.internal_dim]))
        out: Tensor = weights.transpose(1, 2) @ (
            values - bias * (1 - 1 / self.num_heads)
        )
        return out


def set_token_attention(transformer: TwoWayTransformer) -> None:
    """Replace the attentions of a transformer by those of this file."""
    kinds = {
        "self_attn": TokenAttention,
        "cross_attn_image_to_token": ImageToTokenAttention,
    }
    for layer in [*transformer.layers, transformer]:
        for name, module in list(layer.named_children()):
            if isinstance(module, DecoderAttention):
                setattr(layer, name, kinds.get(name, TokenToImageAttention)(module))


def attend_two_ways(
    transformer: TwoWayTransformer,
    image: Tensor,
    positions: Tensor,
    tokens: Tensor,
    wanted: int,
) -> tuple[Tensor, Tensor]:
    """Run a transformer whose attentions are those of this file.

    Args:
        image: (K or 1, N, D).
        positions: (1, N, D).
        tokens: (K, T, D).
        wanted: number of tokens to return, the first.

    Returns:
        The tokens (K, wanted, D) and the image (K, N, D).
    """
    queries = tokens
    for layer in cast(Any, transformer.layers):
        located = image + positions
        if layer.skip_first_layer_pe:
            queries = layer.norm1(layer.self_attn(queries, queries, queries))
        else:
            places = queries + tokens
            queries = layer.norm1(queries + layer.self_attn(places, places, queries))
        queries = layer.norm2(
            queries + layer.cross_attn_token_to_image(queries + tokens, located, image)
        )
        queries = layer.norm3(queries + layer.mlp(queries))
        image = layer.norm4(
            image + layer.cross_attn_image_to_token(located, queries + tokens, queries)
        )
    queries, places = queries[:, :wanted], (queries + tokens)[:, :wanted]
    found = transformer.final_attn_token_to_image(places, image + positions, image)
    return transformer.norm_final_attn(queries + found), image
