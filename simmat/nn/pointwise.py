"""A 1x1 convolution that is fast on one CPU thread, too."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_FAST_FROM = 16
"""Maps in a batch from which torch computes a 1x1 convolution by oneDNN on one thread, in half the time."""


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 convolution; the positions of a small batch are computed as a larger batch.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        bias: add a bias.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H, W); no copy if the input is channels_last."""
        if not self._is_slow(input):
            return super().forward(input)
        n, c, h, w = input.shape
        rows = input.permute(0, 2, 3, 1).reshape(_FAST_FROM, 1, -1, c)
        found = super().forward(rows.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return found.reshape(n, h, w, -1).permute(0, 3, 1, 2)

    def _is_slow(self, input: Tensor) -> bool:
        if torch.jit.is_tracing() or input.device.type != "cpu":  # type: ignore[attr-defined, no-untyped-call]
            return False
        n, _, h, w = input.shape
        return n < _FAST_FROM and n * h * w % _FAST_FROM == 0
