"""SimCMF's transfer layer (arXiv 2411.18669), implemented from the paper.

A gate per channel, then two branches: a 1x1 convolution to the pretrained first layer, and a one-channel first layer
per channel, mixed and added. The mix starts at zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.nn.first_layer import BlankPadding, first_layer_of, gray_kernel, refitted
from simmat.nn.init import conv2d
from simmat.types import Channel

_WIDER = 4
"""Hidden features of the gate per input channel."""


class ChannelGate(nn.Module):
    """A factor in 0..1 for each channel of an image: conv3x3, LayerNorm over channels, ReLU, conv3x3, mean, sigmoid."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.widen = conv2d(channels, _WIDER * channels, 3, generator)
        self.norm = nn.LayerNorm(_WIDER * channels, eps=1e-6)
        self.narrow = conv2d(_WIDER * channels, channels, 3, generator)

    def forward(self, planes: Tensor, content: Tensor) -> Tensor:
        """Map planes (B, C, S, S) and content (B, S, S) to factors (B, C, 1, 1); padding has no effect."""
        inside = content[:, None]
        hidden = self.norm(self.widen(planes).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        scores = self.narrow(F.relu(hidden) * inside) * inside
        pixels = content.flatten(1).sum(1).clamp(min=1)[:, None]  # (B, 1)
        factors: Tensor = (scores.float().flatten(2).sum(2) / pixels).sigmoid().to(planes.dtype)
        return factors[..., None, None]


class SimCMF(nn.Module):
    """Gated planes as an image for the pretrained first layer, and features to add to its output.

    Args:
        channels: C.

    Attributes:
        embed: C one-channel first layers, (D, C, h, w), each the pretrained kernel summed over RGB.
        biases: (C, D) biases of these layers; None if the pretrained layer has none.
        mix: (C,) weights of these layers; 0 at the start.
    """

    def __init__(self, layer: nn.Conv2d, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gate = ChannelGate(channels, generator)
        self.to_rgb = conv2d(channels, 3, 1, generator)
        self.embed = refitted(layer, gray_kernel(layer).expand(-1, channels, -1, -1), None)
        bias = layer.bias
        self.biases = None if bias is None else nn.Parameter(bias.detach().expand(channels, -1).clone())
        self.mix = nn.Parameter(torch.zeros(channels))
        self.padding = BlankPadding(layer, torch.zeros_like(layer.weight[:, 0, 0, 0]))

    def forward(self, planes: Tensor, content: Tensor) -> tuple[Tensor, Tensor]:
        """Map planes (B, C, S, S) and content (B, S, S) to an image (B, 3, S, S) and features (B, D, h, w)."""
        gated = planes * self.gate(planes, content)
        # The layers are linear, so mixing their inputs equals mixing their outputs.
        added = self.embed(gated * self.mix[:, None, None])
        if self.biases is not None:
            added = added + (self.mix @ self.biases)[:, None, None]
        return self.to_rgb(gated), self.padding(added, content)


def build_simcmf(
    *, channels: Sequence[Channel], zero_shot: Tensor, backbone: object, generator: torch.Generator
) -> nn.Module:
    """Build SimCMF's layer; its output is "image+features".

    Raises:
        ConfigError: the model's first layer is not one convolution.
    """
    return SimCMF(first_layer_of(backbone, "simcmf"), len(channels), generator)
