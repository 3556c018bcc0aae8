"""TinyViT (Wu et al. 2022, arXiv 2207.10666) as the image encoder of MobileSAM (Zhang et al. 2023, arXiv 2306.14289).

Maps are (B, H, W, C) from the second convolution on: channels last for convolutions, tokens for attention. BatchNorm is
folded into the convolutions, and 1x1 convolutions are linear layers. Parameter names are otherwise MobileSAM's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simmat.foundation import ImageEmbedding, Memory
from simmat.nn.tuners import join_memory
from simmat_plugin_sam.fused import affine, can_fuse, depthwise_gelu, linear, on_map

STRIDES = (2.0, 4.0, 8.0, 16.0)
"""Of the embedding, in pixels of the input."""
EXPANSION = 4
"""Width of the blocks' hidden layers, as a multiple of that of the blocks."""


def _conv(
    inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups)


class MBConv(nn.Module):
    """Residual 1x1, depthwise 3x3 and 1x1 convolution with a GELU after each and after the sum (arXiv 1801.04381)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = EXPANSION * width
        self.conv1 = nn.Linear(width, hidden)
        self.conv2 = _conv(hidden, hidden, 3, groups=hidden)
        self.conv3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        if can_fuse(x) and type(self.conv1) is type(self.conv3) is nn.Linear:
            return F.gelu(self._by_channels(x))
        return F.gelu(
            x
            + linear(
                self.conv3, depthwise_gelu(self.conv2, linear(self.conv1, x, gelu=True))
            )
        )

    def _by_channels(self, x: Tensor) -> Tensor:
        """Return the sum of input and change, from a few hidden channels at a time: less memory, more in the cache."""
        out, bias = x, self.conv3.bias
        for start in range(0, self.conv2.out_channels, 64):
            part = slice(start, start + 64)
            hidden = affine(
                x, self.conv1.weight[part], self.conv1.bias[part], gelu=True
            )
            hidden = depthwise_gelu(self.conv2, hidden, part)
            out = out + affine(
                hidden, self.conv3.weight[:, part], bias if start == 0 else None
            )
        return out


class PatchMerging(nn.Module):
    """1x1, depthwise 3x3 and 1x1 convolution between two stages; the second has the stride."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Linear(inside, outside)
        self.conv2 = _conv(outside, outside, 3, stride, groups=outside)
        self.conv3 = nn.Linear(outside, outside)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inside) -> (B, H / stride, W / stride, outside)."""
        return linear(
            self.conv3, depthwise_gelu(self.conv2, linear(self.conv1, x, gelu=True))
        )


def distances(window: int) -> Tensor:
    """Return row distance · window + column distance of the tokens of a window: (window², window²) int64."""
    with torch.device("cpu"):  # a model built on the meta device gets its values, too
        along = torch.arange(window)
    apart = (along[:, None] - along[None, :]).abs()  # (window, window)
    return (apart[:, None, :, None] * window + apart[None, :, None, :]).reshape(
        window**2, window**2
    )


class WindowAttention(nn.Module):
    """Norm and attention over the tokens of a window, with a learned logit for each distance of rows and columns.

    Attributes:
        attention_biases: (heads, window²), by row distance · window + column distance.
        width: D, as `simmat.foundation.TunableAttention` wants it.
        memory: tokens that a tuner appends to keys and values, or None.
    """

    attention_bias_idxs: Tensor

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.width = heads, width
        self.memory: Memory | None = None
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)  # all of q, then k, then v
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        self.register_buffer("attention_bias_idxs", distances(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each of N windows: (N, window, window, D) -> the same shape."""
        n, h, w, d = x.shape
        qkv = linear(self.qkv, self.norm(x)).reshape(
            n, h * w, 3, self.heads, d // self.heads
        )
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (N, heads, window², d) each
        # (heads, window², window²)
        bias = self.attention_biases[:, self.attention_bias_idxs]
        if self.memory is not None:
            k, v = join_memory(k, v, self.memory, self.qkv)
            bias = F.pad(bias, (0, k.shape[2] - h * w))
        if (
            torch.is_grad_enabled()
            and q.device.type == "cpu"
            and q.dtype == torch.bfloat16
        ):
            # The gradient of torch's fused attention takes two to seven times as long.
            out = (
                q * (d // self.heads) ** -0.5 @ k.transpose(2, 3) + bias.to(q.dtype)
            ).softmax(-1) @ v
        else:
            # 4-D: fused
            out = F.scaled_dot_product_attention(
                q, k, v, attn_mask=bias[None].to(q.dtype)
            )
        return linear(self.proj, out.transpose(1, 2).reshape(n, h, w, d))


class Mlp(nn.Module):
    """Norm, linear layer to `EXPANSION` times the width, GELU, linear layer back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, EXPANSION * width)
        self.fc2 = nn.Linear(EXPANSION * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> the same shape."""
        return linear(self.fc2, linear(self.fc1, self.norm(x), gelu=True))


class TinyVitBlock(nn.Module):
    """Residual attention in windows, a depthwise convolution, and a residual MLP.

    The map is padded with zeros at the right and at the bottom; padding takes part in the attention, as in training.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(width, heads, window)
        self.local_conv = _conv(width, width, 3, groups=width)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, D) -> the same shape."""
        x = x + self._attended(x).to(x.dtype)
        x = on_map(self.local_conv, x)
        change: Tensor = self.mlp(x)
        return x + change.to(x.dtype)

    def _attended(self, x: Tensor) -> Tensor:
        b, h, w, d = x.shape
        side = self.window
        padded = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        windows = (
            padded.reshape(b, rows, side, columns, side, d)
            .transpose(2, 3)
            .reshape(-1, side, side, d)
        )
        joined: Tensor = (
            self.attn(windows).reshape(b, rows, columns, side, side, d).transpose(2, 3)
        )
        return joined.reshape(b, rows * side, columns * side, d)[:, :h, :w]


class Stem(nn.Module):
    """Two convolutions of stride 2 with a GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seq = nn.ModuleList(
            [_conv(3, width // 2, 3, 2), nn.GELU(), _conv(width // 2, width, 3, 2)]
        )

    @property
    def first(self) -> nn.Conv2d:
        """The first convolution."""
        return cast(nn.Conv2d, self.seq[0])

    def forward(self, first: Tensor) -> Tensor:
        """Run what follows the first convolution: its output (B, D, S/2, S/2) -> (B, S/4, S/4, 2D)."""
        return on_map(
            cast(nn.Conv2d, self.seq[2]), F.gelu(first.permute(0, 2, 3, 1).contiguous())
        )


class TinyVitStage(nn.Module):
    """Blocks of one width, and the change to the next width after them; None after the last."""

    def __init__(
        self, blocks: Sequence[nn.Module], downsample: nn.Module | None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample


def _normalized(tokens: Tensor) -> Tensor:
    """Normalize each token (..., D)."""
    return F.layer_norm(tokens, tokens.shape[-1:])


class TinyVit(nn.Module):
    """TinyViT with the neck of Segment Anything.

    Args:
        widths: channels of the four stages.
        depths: blocks of the four stages.
        heads: attention heads of the four stages; the first stage has none.
        windows: side of the windows of the four stages, in tokens.
        out: channels of the embedding.

    Attributes:
        checkpoint_blocks: recompute the blocks in the backward pass instead of keeping activations; saves memory.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int],
        depths: Sequence[int],
        heads: Sequence[int],
        windows: Sequence[int],
        out: int,
    ) -> None:
        super().__init__()
        self.checkpoint_blocks = False
        self.patch_embed = Stem(widths[0])
        self.layers = nn.ModuleList()
        for index, width in enumerate(widths):
            blocks = [
                TinyVitBlock(width, heads[index], windows[index])
                if index
                else MBConv(width)
                for _ in range(depths[index])
            ]
            last = index == len(widths) - 1
            after = (
                None
                if last
                else PatchMerging(
                    width, widths[index + 1], 1 if index == len(widths) - 2 else 2
                )
            )
            self.layers.append(TinyVitStage(blocks, after))
        self.neck = nn.ModuleList(
            [
                nn.Linear(widths[-1], out, bias=False),
                nn.LayerNorm(out, eps=1e-6),
                nn.Conv2d(out, out, 3, padding=1, bias=False),
                nn.LayerNorm(out, eps=1e-6),
            ]
        )

    def forward(self, stem: Tensor, *, finer: bool) -> tuple[Tensor, ...]:
        """Map the first convolution's output (B, D, S/2, S/2) to levels, finest first.

        The last one is (B, out, S/16, S/16). With `finer`, the normalized outputs of the first convolution and of the
        first two stages, of strides 2, 4 and 8, come before it.
        """
        levels: list[Tensor] = []
        if finer:
            levels.append(_normalized(F.gelu(stem.permute(0, 2, 3, 1))))
        x = self.patch_embed(stem)
        for stage in cast(Iterable[TinyVitStage], self.layers):
            for block in stage.blocks:
                if self.checkpoint_blocks and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            if finer and len(levels) < 3:
                levels.append(_normalized(x))
            if stage.downsample is not None:
                x = stage.downsample(x)
        conv1, norm1, conv2, norm2 = self.neck
        levels.append(norm2(on_map(cast(nn.Conv2d, conv2), norm1(linear(conv1, x)))))
        return tuple(level.permute(0, 3, 1, 2) for level in levels)


class TinyVitBackbone(nn.Module):
    """`TinyVit` in two steps.

    Attributes:
        image_encoder: the network.
        finer_levels: see `simmat.foundation.HasFinerLevels`.
    """

    def __init__(self, image_encoder: TinyVit) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.finer_levels = False

    @property
    def first_layer(self) -> nn.Conv2d:
        """The first of the two convolutions of the stem."""
        return self.image_encoder.patch_embed.first

    def embed(self, image: Tensor) -> Tensor:
        """Run the first convolution: (B, 3, S, S) -> (B, D, S/2, S/2)."""
        features: Tensor = self.first_layer(
            image.contiguous(memory_format=torch.channels_last)
        )
        return features

    def encode(self, features: Tensor) -> ImageEmbedding:
        """Run the rest: features of `embed` -> (B, out, S/16, S/16), after finer levels if a dense head takes them."""
        levels = self.image_encoder(features, finer=self.finer_levels)
        return ImageEmbedding(levels, STRIDES[-len(levels) :])
