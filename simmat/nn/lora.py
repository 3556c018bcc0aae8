"""LoRA (Hu et al. 2021, arXiv 2106.09685) and Conv-LoRA (Zhong et al. 2024, arXiv 2401.17868)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.nn.initial import uniform_


class LoRALinear(nn.Linear):
    """A linear layer with LoRA on some equal slices of its output.

    Attributes:
        lora_a: (G·rank, in), G the number of slices that are tuned.
        lora_b: (G, out / parts, rank), zero at the start.
        slices: which slices, out of `parts`.
        parts: how many projections the layer is.
        scale: alpha / rank.
    """

    def __init__(
        self,
        base: nn.Linear,
        *,
        slices: Sequence[int],
        parts: int,
        rank: int,
        alpha: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.slices, self.parts, self.scale = tuple(slices), parts, alpha / rank
        self.lora_a, self.lora_b = _factors(base.weight, base.in_features, slices, parts, rank, generator)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        out = super().forward(input)
        inner = self.squeeze(input)
        deltas = [
            F.linear(part, b) * self.scale
            for part, b in zip(inner.chunk(len(self.slices), -1), self.lora_b, strict=True)
        ]
        return _add_to_slices(out, deltas, self.slices, self.parts, dim=-1)

    def squeeze(self, input: Tensor) -> Tensor:
        """Map (..., in) to (..., G·rank): the product with A."""
        return F.linear(input, self.lora_a)


class LoRAConv2d(nn.Conv2d):
    """A 1x1 convolution with LoRA on some equal slices of its output channels; attributes as in `LoRALinear`."""

    def __init__(
        self,
        base: nn.Conv2d,
        *,
        slices: Sequence[int],
        parts: int,
        rank: int,
        alpha: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(
            base.in_channels,
            base.out_channels,
            base.kernel_size,  # type: ignore[arg-type]
            stride=base.stride,  # type: ignore[arg-type]
            bias=base.bias is not None,
            device="meta",
        )
        self.weight, self.bias = base.weight, base.bias
        self.slices, self.parts, self.scale = tuple(slices), parts, alpha / rank
        self.lora_a, self.lora_b = _factors(base.weight, base.in_channels, slices, parts, rank, generator)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        out = super().forward(input)
        inner = self.squeeze(input)
        deltas = [
            F.conv2d(part, b[..., None, None]) * self.scale
            for part, b in zip(inner.chunk(len(self.slices), 1), self.lora_b, strict=True)
        ]
        return _add_to_slices(out, deltas, self.slices, self.parts, dim=1)

    def squeeze(self, input: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, G·rank, H / stride, W / stride): the product with A."""
        return F.conv2d(input, self.lora_a[..., None, None], stride=self.stride)


def takes_lora(layer: nn.Module) -> bool:
    """True for a plain linear layer or a plain 1x1 convolution; a subclass may compute something else."""
    if type(layer) is nn.Linear:
        return True
    return (
        type(layer) is nn.Conv2d
        and layer.kernel_size == (1, 1)
        and layer.groups == 1
        and layer.padding in ((0, 0), "valid", "same")
    )


def _factors(
    weight: Tensor, fan_in: int, slices: Sequence[int], parts: int, rank: int, generator: torch.Generator
) -> tuple[nn.Parameter, nn.Parameter]:
    """Make A from the generator and B of zeros, on the device and of the dtype of the weight."""
    a = torch.empty(len(slices) * rank, fan_in)
    uniform_(a, fan_in, generator)
    b = torch.zeros(len(slices), weight.shape[0] // parts, rank)
    return nn.Parameter(a.to(weight)), nn.Parameter(b.to(weight))


def _add_to_slices(out: Tensor, deltas: Sequence[Tensor], slices: Sequence[int], parts: int, dim: int) -> Tensor:
    """Add each delta to its slice of `out`; the other slices stay as they are."""
    if parts == 1:
        return out + deltas[0]
    pieces = list(out.chunk(parts, dim))
    for index, delta in zip(slices, deltas, strict=True):
        pieces[index] = pieces[index] + delta
    return torch.cat(pieces, dim)


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


def _kernels(lora_a: Tensor, slices: Sequence[int], generator: torch.Generator) -> nn.Parameter:
    channels, rank = lora_a.shape[0], lora_a.shape[0] // len(slices)
    kernels = torch.empty(channels, rank, _KERNEL, _KERNEL)
    uniform_(kernels, rank * _KERNEL**2, generator)
    return nn.Parameter(kernels.to(lora_a))


def _mixed(inner: Tensor, kernels: Tensor, slices: Sequence[int]) -> Tensor:
    """Add to (B, G·rank, H, W) what the convolution makes of it."""
    return inner + F.conv2d(inner, kernels, padding=_KERNEL // 2, groups=len(slices))
