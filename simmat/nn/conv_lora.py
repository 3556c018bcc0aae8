"""Conv-LoRA: LoRA with a convolution between its two factors, for layers that see a grid.

Zhong et al. 2024 (ICLR, arXiv 2401.17868), in the form taken here: y = W x + b + (alpha / rank) · B (z + conv3x3(z)),
z = A x, on the token grid; one expert, no mixture. B starts at zero, so a tuned layer starts as the untouched one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.nn.initial import uniform_
from simmat.nn.lora import LoRAConv2d, LoRALinear

_KERNEL = 3


class ConvLoRALinear(LoRALinear):
    """A linear layer on (B, H, W, in) with Conv-LoRA; attributes as in `LoRALinear`.

    Attributes:
        lora_conv: (G·rank, rank, 3, 3), a convolution for each tuned slice.
    """

    def __init__(self, base: nn.Linear, *, generator: torch.Generator, **options: Any) -> None:
        super().__init__(base, generator=generator, **options)
        self.lora_conv = _kernels(self.lora_a, self.slices, generator)

    def squeeze(self, input: Tensor) -> Tensor:
        """Map (B, H, W, in) to (B, H, W, G·rank)."""
        if input.ndim != 4:
            raise ConfigError(
                f"Conv-LoRA needs a layer on a grid (B, H, W, D), got input of shape {tuple(input.shape)}; "
                "the model must not name this layer in TuningTargets.grid"
            )
        inner = super().squeeze(input).permute(0, 3, 1, 2)
        return _mixed(inner, self.lora_conv, self.slices).permute(0, 2, 3, 1)


class ConvLoRAConv2d(LoRAConv2d):
    """A 1x1 convolution with Conv-LoRA; attributes as in `ConvLoRALinear`."""

    def __init__(self, base: nn.Conv2d, *, generator: torch.Generator, **options: Any) -> None:
        super().__init__(base, generator=generator, **options)
        self.lora_conv = _kernels(self.lora_a, self.slices, generator)

    def squeeze(self, input: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, G·rank, H / stride, W / stride)."""
        return _mixed(super().squeeze(input), self.lora_conv, self.slices)


def with_conv_lora(layer: nn.Module, **options: Any) -> ConvLoRALinear | ConvLoRAConv2d:
    """Return the layer with Conv-LoRA; options and errors as in `simmat.nn.lora.with_lora`."""
    if isinstance(layer, nn.Linear):
        return ConvLoRALinear(layer, **options)
    if isinstance(layer, nn.Conv2d):
        return ConvLoRAConv2d(layer, **options)
    raise TypeError(f"Conv-LoRA works on linear layers and 1x1 convolutions, got {type(layer).__name__}")


def _kernels(lora_a: Tensor, slices: Sequence[int], generator: torch.Generator) -> nn.Parameter:
    channels, rank = lora_a.shape[0], lora_a.shape[0] // len(slices)
    kernels = torch.empty(channels, rank, _KERNEL, _KERNEL)
    uniform_(kernels, rank * _KERNEL**2, generator)
    return nn.Parameter(kernels.to(lora_a))


def _mixed(inner: Tensor, kernels: Tensor, slices: Sequence[int]) -> Tensor:
    """Add to (B, G·rank, H, W) what the convolution makes of it."""
    return inner + F.conv2d(inner, kernels, padding=_KERNEL // 2, groups=len(slices))
