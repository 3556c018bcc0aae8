"""A feature pyramid in front of a mask decoder, for backbones that bring none.

A plain ViT has one map, of which ViTDet's simple pyramid (Li et al. 2022, arXiv 2203.16527) makes the finer ones by
transposed convolutions; a hierarchical backbone has several, which are joined top-down (FPN, Lin et al. 2017,
arXiv 1612.03144). Either way three levels come out, each twice as fine as the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 3


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each place of a (B, D, H, W) map."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (B, D, H, W)."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeaturePyramid(nn.Module):
    """One map, or several at strides that double, to three levels of widths dim / 8, dim / 4 and dim.

    Args:
        widths: channels of each map it is given, finest first.
        strides: their strides in input pixels; three or more maps are joined top-down, the three finest strides stay;
            one or two are split further by transposed convolutions.
        dim: channels of the coarsest level, a multiple of 8.

    Attributes:
        strides: of the levels, finest first. A patch of 14 gives 3.5, 7 and 14.
        widths: of the levels.

    Raises:
        ValueError: the strides do not double from map to map.
    """

    def __init__(self, widths: Sequence[int], strides: Sequence[float], dim: int) -> None:
        super().__init__()
        if len(widths) != len(strides) or any(b != 2 * a for a, b in pairwise(strides)):
            raise ValueError(f"a pyramid joins maps whose strides double, got strides {list(strides)}")
        finer = max(LEVELS - len(strides), 0)
        self.strides = tuple(strides[0] / 2**step for step in range(finer, 0, -1)) + tuple(strides)
        self.strides = tuple(int(s) if s == int(s) else s for s in self.strides[:LEVELS])
        self.widths = (dim // 8, dim // 4, dim)
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(width, dim, 1), ChannelNorm(dim)) for width in widths)
        self.smooth = nn.ModuleList(_smooth(dim) for _ in widths[:LEVELS])
        self.split = nn.ModuleList(_split(dim) for _ in range(finer))
        self.narrow = nn.ModuleList(nn.Conv2d(dim, width, 1) for width in self.widths[:-1])

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make levels.

        Args:
            maps: (B, D_m, S / stride_m, S / stride_m), finest first.

        Returns:
            (B, width, S / stride, S / stride) for each of `strides` and `widths`, finest first.
        """
        joined: list[Tensor] = []  # coarsest first
        for lateral, level in zip(reversed(self.lateral), reversed(list(maps)), strict=True):
            own = lateral(level)
            joined.append(own + F.interpolate(joined[-1], scale_factor=2.0) if joined else own)
        levels = [smooth(level) for smooth, level in zip(self.smooth, reversed(joined), strict=False)]
        for split in self.split:
            levels.insert(0, split(levels[0]))
        return (*(narrow(level) for narrow, level in zip(self.narrow, levels, strict=False)), levels[-1])


def _smooth(dim: int) -> nn.Sequential:
    """Mix neighbours after the sum, as both papers do; without the nonlinearity, as they do."""
    return nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1), ChannelNorm(dim))


def _split(dim: int) -> nn.Sequential:
    """Make a map twice as fine."""
    return nn.Sequential(nn.ConvTranspose2d(dim, dim, 2, stride=2), ChannelNorm(dim), nn.GELU())
