"""Layers of the neck and the decoder.

All maps are (N, C, H, W). Normalization is over the channels at each position, so padding and other samples of a batch
do not affect it.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import Memory
from simmat.nn.pointwise import PointwiseConv2d
from simmat.nn.tuners import join_memory


class LayerNorm2d(nn.LayerNorm):
    """Layer normalization over the channels at each position of an (N, C, H, W) map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, H, W)."""
        # no copy if the input is channels_last
        return maps_of(super().forward(rows_of(input))).to(input.dtype)


class ConvBlock(nn.Module):
    """Residual block: norm, dilated 3x3 convolution, ReLU, 1x1 convolution."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.spatial = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation
        )
        self.mix = PointwiseConv2d(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        change: Tensor = self.mix(F.relu(self.spatial(self.norm(x))))
        return x + change


class AttentionBlock(nn.Module):
    """Residual self-attention over all positions, then an MLP; a depthwise convolution encodes position.

    Attributes:
        width: channels.
        memory: tokens that a tuner appends to keys and values, or None.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = 4
        self.width = channels
        self.memory: Memory | None = None
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, 2 * channels)
        self.fc2 = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        n, c, h, w = x.shape
        x = x + self.position(x)
        tokens = x.permute(0, 2, 3, 1).reshape(n, h * w, c)
        qkv = self.qkv(self.norm1(tokens)).reshape(
            n, h * w, 3, self.heads, c // self.heads
        )
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, H*W, C/heads)
        if self.memory is not None:
            k, v = join_memory(k, v, self.memory, self.qkv)
        mixed = (
            F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        )
        tokens = tokens + self.proj(mixed)
        change: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(tokens))))
        grid: Tensor = (tokens + change).reshape(n, h, w, c)
        return grid.permute(0, 3, 1, 2)


class PromptImages:
    """The images of K prompts, in G groups of P prompts of one image: K = G·P.

    If the prompts stand in the order of their images, P for each, the groups are the images, so that nothing of an
    image is copied for each of its prompts. Otherwise each prompt is a group.

    Attributes:
        index: (K,) long, the image of each prompt.
        groups: G.
        per_group: P.
    """

    def __init__(self, index: Tensor, images: int) -> None:
        self.index = index
        self.groups = index.shape[0]
        self.per_group = 1
        self.in_order = self._are_in_order(images)
        if self.in_order:
            self.per_group = self.groups // images
            self.groups = images

    def _are_in_order(self, images: int) -> bool:
        # a traced graph must take any order
        if cast(Any, torch.jit).is_tracing():
            return False
        count = self.index.shape[0]
        if images == 1 or count == 0 or count % images:
            return images == 1
        numbers = torch.arange(images, device=self.index.device)
        return torch.equal(self.index, numbers.repeat_interleave(count // images))

    def of_groups(self, maps: Tensor) -> Tensor:
        """Return the maps of each group's image: (B, ...) -> (G, ...)."""
        return maps if self.in_order else maps.index_select(0, self.index)

    def split(self, rows: Tensor) -> Tensor:
        """Split prompts into groups: (K, ...) -> (G, P, ...)."""
        return rows.reshape(self.groups, self.per_group, *rows.shape[1:])


def rows_of(maps: Tensor) -> Tensor:
    """Move channels to the end, without a copy: (N, D, h, w) -> (N, h, w, D)."""
    return maps.permute(0, 2, 3, 1)


def maps_of(rows: Tensor) -> Tensor:
    """Move channels from the end, without a copy: (N, h, w, D) -> (N, D, h, w)."""
    return rows.permute(0, 3, 1, 2)


def add_image(prompts: Tensor, image: Tensor, images: PromptImages) -> Tensor:
    """Add to each prompt's maps (K, D, h, w) those of its image, (B, D, h, w)."""
    of_groups = images.of_groups(rows_of(image))[:, None]  # (G, 1, h, w, D)
    return maps_of((images.split(rows_of(prompts)) + of_groups).flatten(0, 1))


def mean_over(maps: Tensor) -> Tensor:
    """Return the mean over all positions, (N, D, h, w) -> (N, D), with a gradient that is channels_last."""
    return rows_of(maps).mean((1, 2))


class DoubleSize(nn.Conv2d):
    """A 1x1 convolution and a pixel shuffle to twice the size."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, 4 * out_channels, 1)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', 2H, 2W)."""
        n, c, h, w = input.shape
        assert self.bias is not None
        # a pixel shuffle takes outputs in the order (C', 2, 2); channels_last rows have C' last
        weight = self.weight.reshape(-1, 4, c).transpose(0, 1).reshape(-1, c, 1, 1)
        bias = self.bias.reshape(-1, 4).t().flatten()
        rows = rows_of(F.conv2d(input, weight, bias)).reshape(n, h, w, 2, 2, -1)
        return maps_of(rows.transpose(2, 3).reshape(n, 2 * h, 2 * w, -1))


def sample_points(
    level: Tensor, images: PromptImages, coords_xy: Tensor, stride: int
) -> Tensor:
    """Sample a level bilinearly at points of the model input.

    Args:
        level: (B, D, h, w).
        images: the images of K prompts.
        coords_xy: (K, N, 2) pixel indices of the input; a pixel's centre is at +0.5.
        stride: stride of the level.

    Returns:
        (K, N, D).
    """
    _, d, h, w = level.shape
    u = ((coords_xy[..., 0].float() + 0.5) / stride - 0.5).clamp(0, w - 1)
    v = ((coords_xy[..., 1].float() + 0.5) / stride - 0.5).clamp(0, h - 1)
    x0, y0 = u.floor().long(), v.floor().long()
    x1, y1 = (x0 + 1).clamp(max=w - 1), (y0 + 1).clamp(max=h - 1)
    fx, fy = (u - x0)[..., None].to(level.dtype), (v - y0)[..., None].to(level.dtype)
    flat = level.permute(0, 2, 3, 1).reshape(-1, d)
    row = images.index[:, None] * h

    def at(y: Tensor, x: Tensor) -> Tensor:
        index = (row + y) * w + x  # (K, N)
        return flat.index_select(0, index.reshape(-1)).reshape(*index.shape, d)

    top = at(y0, x0) * (1 - fx) + at(y0, x1) * fx
    bottom = at(y1, x0) * (1 - fx) + at(y1, x1) * fx
    return top * (1 - fy) + bottom * fy


def unit_vectors(x: Tensor, dim: int) -> Tensor:
    """Divide vectors along a dimension by their length; zero vectors stay zero.

    As `F.normalize`, whose norm takes 20 times as long on a CPU where the dimension is not the last one.
    """
    wide = x.float()
    # clamped first: no gradient of rsqrt(0)
    square = (wide * wide).sum(dim, keepdim=True).clamp_min(1e-24)
    return (wide * square.rsqrt()).to(x.dtype)


def pool_region(maps: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted means of maps.

    Args:
        maps: (G, D, h, w).
        weight: (G, P, M, h, w), not negative.

    Returns:
        (G·P, M, D); zero if a weight is zero everywhere.
    """
    flat = rows_of(maps).flatten(1, 2)  # (G, h*w, D)
    g, p, m, _, _ = weight.shape
    w = weight.flatten(3).flatten(1, 2).to(flat.dtype).float()  # (G, P*M, h*w)
    # dividing in two halves keeps both in the range of fp16
    root = w.sum(-1, keepdim=True).clamp(min=1e-4).sqrt()
    means = ((w / root).to(flat.dtype) @ flat).float().div(root).to(flat.dtype)
    return means.reshape(g * p, m, flat.shape[-1])
