"""The ablation and the baselines of the paper (arXiv 2409.08083)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.nn.first_layer import ReplacedFirstLayer, first_layer_of, refitted
from simmat.nn.init import conv2d, conv_stack, uniform_
from simmat.nn.mat import ZeroShotMap
from simmat.types import Channel

MAX_CONVOLUTIONS = 1000
"""Of `preconv`: each layer takes time to build, however small it is."""


def build_baseline_a(
    *, channels: Sequence[Channel], zero_shot: Tensor, backbone: object, generator: torch.Generator
) -> nn.Module:
    """Build a first layer with random weights for C channels; the pretrained one is not used.

    Raises:
        ConfigError: the model's first layer is not one convolution.
    """
    layer = first_layer_of(backbone, "baseline-a")
    weight = torch.empty(layer.out_channels, len(channels), *layer.weight.shape[2:])
    uniform_(weight, weight[0].numel(), generator)
    bias = None if layer.bias is None else uniform_(torch.empty(layer.out_channels), weight[0].numel(), generator)
    return ReplacedFirstLayer(nn.Identity(), refitted(layer, weight, bias), layer)


def build_baseline_b(
    *, channels: Sequence[Channel], zero_shot: Tensor, backbone: object, generator: torch.Generator
) -> nn.Module:
    """Build a random 1x1 convolution C -> 3 followed by a trainable copy of the pretrained first layer.

    Raises:
        ConfigError: the model's first layer is not one convolution.
    """
    layer = first_layer_of(backbone, "baseline-b")
    copied = refitted(layer, layer.weight, layer.bias)
    return ReplacedFirstLayer(conv2d(len(channels), 3, 1, generator), copied, layer)


def build_baseline_d(
    *, channels: Sequence[Channel], zero_shot: Tensor, backbone: object, generator: torch.Generator
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
    problems = [f"option {name!r} must be at least 1, got {value}" for name, value in (("n", n), ("d", d)) if value < 1]
    if n > MAX_CONVOLUTIONS:
        problems.append(f"option 'n' must be at most {MAX_CONVOLUTIONS}, got {n}")
    if k < 1 or k % 2 == 0:
        problems.append(f"option 'k' must be odd and at least 1, got {k}")
    if problems:
        raise ConfigError("transfer layer 'preconv': " + "; ".join(problems))
    widths = [len(channels), *[d] * (n - 1), 3]
    return conv_stack(*(conv2d(inputs, outputs, k, generator) for inputs, outputs in pairwise(widths)))


def build_first_three(
    *, channels: Sequence[Channel], zero_shot: Tensor, backbone: object, generator: torch.Generator
) -> nn.Module:
    """Build the zero-shot baseline of the released code: the first three channels; fewer are repeated cyclically."""
    weights = torch.zeros(3, len(channels))
    for plane in range(3):
        weights[plane, plane % len(channels)] = 1
    return ZeroShotMap(weights)
