"""Layers of the neck and the decoder.

All maps are (N, C, H, W). Normalization is over the channels at each position, so padding and other samples of a batch
do not affect it.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import Memory
from simmat.nn.tuners import join_memory


class LayerNorm2d(nn.LayerNorm):
    """Layer normalization over the channels at each position of an (N, C, H, W) map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (N, C, H, W)."""
        # (N, H, W, C); no copy if the input is channels_last
        rows = super().forward(input.permute(0, 2, 3, 1))
        return rows.permute(0, 3, 1, 2).to(input.dtype)


class ConvBlock(nn.Module):
    """Residual block: norm, dilated 3x3 convolution, ReLU, 1x1 convolution."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.spatial = nn.Conv2d(
            channels, channels, 3, padding=dilation, dilation=dilation
        )
        self.mix = nn.Conv2d(channels, channels, 1)

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


def gather_images(level: Tensor, image_index: Tensor) -> Tensor:
    """Select the map of each prompt's image, channels_last: (B, D, h, w) and (K,) long in 0..B-1 -> (K, D, h, w)."""
    return level.permute(0, 2, 3, 1).index_select(0, image_index).permute(0, 3, 1, 2)


def sample_points(
    level: Tensor, image_index: Tensor, coords_xy: Tensor, stride: int
) -> Tensor:
    """Sample a level bilinearly at points of the model input.

    Args:
        level: (B, D, h, w).
        image_index: (K,) long.
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
    row = image_index[:, None] * h

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
    # clamped first: no gradient of sqrt(0)
    length = wide.square().sum(dim, keepdim=True).clamp_min(1e-24).sqrt()
    return (wide / length).to(x.dtype)


def pool_region(maps: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted means of maps.

    Args:
        maps: (K, D, h, w).
        weight: (K, M, h, w), not negative.

    Returns:
        (K, M, D); zero if a weight is zero everywhere.
    """
    flat = maps.flatten(2).transpose(1, 2)  # (K, h*w, D)
    w = weight.flatten(2).to(flat.dtype).float()
    # dividing in two halves keeps both in the range of fp16
    root = w.sum(-1, keepdim=True).clamp(min=1e-4).sqrt()
    return ((w / root).to(flat.dtype) @ flat).float().div(root).to(flat.dtype)
