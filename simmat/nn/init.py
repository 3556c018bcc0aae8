"""Layers whose weights come from a generator, never from torch's global random state."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def conv2d(inputs: int, outputs: int, kernel: int, generator: torch.Generator) -> nn.Conv2d:
    """Make a convolution that keeps height and width, with torch's default distribution of weights.

    Args:
        kernel: odd side of the kernel in pixels.
    """
    conv = zero_conv2d(inputs, outputs, kernel)
    for parameter in conv.parameters():
        uniform_(parameter, inputs * kernel * kernel, generator)
    return conv


def zero_conv2d(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """Make a convolution that keeps height and width, with all weights 0."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, device="meta")
    # Not `to_empty`: on tensors of the meta device it imports sympy, a quarter of the time to import torch.
    for name, parameter in list(conv.named_parameters()):
        setattr(conv, name, nn.Parameter(torch.zeros(parameter.shape)))
    return conv


def conv_stack(*convolutions: nn.Module) -> nn.Sequential:
    """Chain convolutions with ReLUs between.

    The weights are channels last, which halves the time of a convolution of many channels to three on a CPU.
    """
    layers = [layer for convolution in convolutions for layer in (nn.ReLU(), convolution)][1:]
    stack: nn.Sequential = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return stack


def uniform_(tensor: Tensor, fan_in: int, generator: torch.Generator) -> Tensor:
    """Fill with U(-1/√fan_in, 1/√fan_in), torch's default for Linear and Conv layers, and return the tensor."""
    bound = 1 / math.sqrt(max(fan_in, 1))
    with torch.no_grad():
        return tensor.uniform_(-bound, bound, generator=generator)
