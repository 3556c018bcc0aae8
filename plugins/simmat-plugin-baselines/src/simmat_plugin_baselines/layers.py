"""The ablation and the baselines of the paper (arXiv 2409.08083)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.nn.first_layer import (
    BlankPadding,
    ReplacedFirstLayer,
    first_layer_of,
    gray_kernel,
    refitted,
)
from simmat.nn.mat import ZeroShotMap, conv2d, conv_stack, uniform_
from simmat.types import Channel

MAX_CONVOLUTIONS = 1000
"""Of `preconv`: each layer takes time to build, however small it is."""


def build_baseline_a(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build a first layer with random weights for C channels; the pretrained one is not used.

    Raises:
        ConfigError: the model's first layer is not one convolution.
    """
    layer = first_layer_of(backbone, "baseline-a")
    weight = torch.empty(layer.out_channels, len(channels), *layer.weight.shape[2:])
    uniform_(weight, weight[0].numel(), generator)
    bias = (
        None
        if layer.bias is None
        else uniform_(torch.empty(layer.out_channels), weight[0].numel(), generator)
    )
    return ReplacedFirstLayer(nn.Identity(), refitted(layer, weight, bias), layer)


def build_baseline_b(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build a random 1x1 convolution C -> 3 followed by a trainable copy of the pretrained first layer.

    Raises:
        ConfigError: the model's first layer is not one convolution.
    """
    layer = first_layer_of(backbone, "baseline-b")
    copied = refitted(layer, layer.weight, layer.bias)
    return ReplacedFirstLayer(conv2d(len(channels), 3, 1, generator), copied, layer)


def build_baseline_d(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build a random 1x1 convolution C -> 3 in front of the pretrained first layer."""
    return conv2d(len(channels), 3, 1, generator)


def build_preconv(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
    n: int,
    k: int,
    d: int,
) -> nn.Module:
    """Build the paper's ablation: n convolutions of kernel k and width d down to 3 planes, with ReLUs between.

    n = 2, k = 3, d = 64 is the paper's MAT.

    Raises:
        ConfigError: an option is out of range.
    """
    problems = [
        f"option {name!r} must be at least 1, got {value}"
        for name, value in (("n", n), ("d", d))
        if value < 1
    ]
    if n > MAX_CONVOLUTIONS:
        problems.append(f"option 'n' must be at most {MAX_CONVOLUTIONS}, got {n}")
    if k < 1 or k % 2 == 0:
        problems.append(f"option 'k' must be odd and at least 1, got {k}")
    if problems:
        raise ConfigError("transfer layer 'preconv': " + "; ".join(problems))
    widths = [len(channels), *[d] * (n - 1), 3]
    return conv_stack(
        *(conv2d(inputs, outputs, k, generator) for inputs, outputs in pairwise(widths))
    )


def build_first_three(
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build the zero-shot baseline of the released code: the first three channels; fewer are repeated cyclically."""
    weights = torch.zeros(3, len(channels))
    for plane in range(3):
        weights[plane, plane % len(channels)] = 1
    return ZeroShotMap(weights)


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
        factors: Tensor = (
            (scores.float().flatten(2).sum(2) / pixels).sigmoid().to(planes.dtype)
        )
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

    def __init__(
        self, layer: nn.Conv2d, channels: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.gate = ChannelGate(channels, generator)
        self.to_rgb = conv2d(channels, 3, 1, generator)
        self.embed = refitted(
            layer, gray_kernel(layer).expand(-1, channels, -1, -1), None
        )
        bias = layer.bias
        self.biases = (
            None
            if bias is None
            else nn.Parameter(bias.detach().expand(channels, -1).clone())
        )
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
    *,
    channels: Sequence[Channel],
    zero_shot: Tensor,
    backbone: object,
    generator: torch.Generator,
) -> nn.Module:
    """Build SimCMF's layer; its output is "image+features".

    Raises:
        ConfigError: the model's first layer is not one convolution.
    """
    return SimCMF(first_layer_of(backbone, "simcmf"), len(channels), generator)
