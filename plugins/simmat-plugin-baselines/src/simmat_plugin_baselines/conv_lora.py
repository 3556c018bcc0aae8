"""Conv-LoRA (Zhong et al. 2024, arXiv 2401.17868), with one expert: LoRA with a convolution between its factors.

For layers on a grid of tokens, z = A x becomes z = A x + conv3x3(A x). Step 0 equals the plain layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.nn.lora import LoRA, LoRAConv2d, LoRALinear, add_lora
from simmat.nn.mat import uniform_
from simmat.nn.tuners import lora_layers, model_name, targeted_modules
from simmat.plugin_specs import TuningTargets

_KERNEL = 3


class ConvLoRA(LoRA):
    """A layer on a grid with LoRA, and a convolution between its factors.

    Attributes:
        lora_conv: (G·rank, rank, 3, 3), a convolution per tuned slice.
    """

    lora_conv: Any

    def down(self, input: Tensor) -> Tensor:
        """Return A x plus its convolution over the grid."""
        inner = super().down(input)
        if inner.ndim != 4:
            raise ConfigError(
                f"Conv-LoRA needs a layer on a grid (B, H, W, D), got an input of {inner.ndim} dimensions; "
                "remove this layer from TuningTargets.spatial_layers of the model"
            )
        grid = inner.movedim(self.dim, 1)  # (B, G·rank, H, W)
        mixed = grid + F.conv2d(
            grid, self.lora_conv, padding=_KERNEL // 2, groups=len(self.slices)
        )
        return mixed.movedim(1, self.dim)


class ConvLoRALinear(ConvLoRA, LoRALinear):
    """A linear layer with Conv-LoRA on (B, H, W, in)."""


class ConvLoRAConv2d(ConvLoRA, LoRAConv2d):
    """A 1x1 convolution with Conv-LoRA on (B, in, H, W)."""


def add_convolution(layer: LoRA, rank: int, generator: torch.Generator) -> None:
    """Make a layer with LoRA one with Conv-LoRA, in place; the convolution is drawn."""
    inner = len(layer.lora_a)
    kernels = torch.empty(inner, rank, _KERNEL, _KERNEL)
    layer.__class__ = (
        ConvLoRALinear if isinstance(layer, LoRALinear) else ConvLoRAConv2d
    )
    assert isinstance(layer, ConvLoRA)
    layer.lora_conv = nn.Parameter(
        uniform_(kernels, rank * _KERNEL**2, generator).to(layer.weight)
    )


def apply_conv_lora(
    model: nn.Module,
    *,
    targets: TuningTargets,
    generator: torch.Generator,
    rank: int,
    alpha: float,
    where: str,
) -> None:
    """Add Conv-LoRA to the named layers that work on a grid, and LoRA to the others.

    Args:
        targets: names the `lora` layers, and which `spatial_layers` work on a grid.
        generator: draws the A matrices and the convolutions.
        rank: rows of A, at least 1.
        alpha: the product is scaled by alpha / rank.
        where: "all", "backbone" or "decoder".

    Raises:
        ConfigError: an option is out of range, or the model names no layer on a grid, or one that LoRA does not
            support.
    """
    layers = lora_layers("conv-lora", model, targets, where, rank=rank, alpha=alpha)
    on_grid = {
        name for name, _ in targeted_modules(model, targets.spatial_layers, "conv-lora")
    }
    if on_grid.isdisjoint(name for name, *_ in layers):
        raise ConfigError(
            f"foundation model {model_name(model)!r} names no layer of its {where} that works on a grid for tuner "
            "'conv-lora'; use another --tune (frozen, lora, decoder, full)"
        )
    for name, layer, slices, parts in layers:
        add_lora(
            layer,
            slices=slices,
            parts=parts,
            rank=rank,
            alpha=alpha,
            generator=generator,
        )
        if name in on_grid:
            assert isinstance(layer, LoRA)
            add_convolution(layer, rank, generator)
