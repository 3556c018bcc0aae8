"""LoRA (Hu et al. 2021, arXiv 2106.09685) and Conv-LoRA (Zhong et al. 2024, arXiv 2401.17868), with one expert.

A tuned layer keeps the parameters of the layer it replaces, under the same names. Step 0 equals that layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.nn.init import uniform_

_KERNEL = 3


class LoRA(nn.Module):
    """A layer with LoRA on some equal slices of its output: y = W x + b + (alpha / rank) · B z, z = A x.

    With Conv-LoRA, for layers on a grid of tokens, z is A x + conv3x3(A x).

    Attributes:
        lora_a: (G·rank, in), with G tuned slices.
        lora_b: (G, out / parts, rank), zero at the start.
        lora_conv: (G·rank, rank, 3, 3), a convolution per tuned slice; None without Conv-LoRA.
        slices: indices of the tuned slices.
        parts: number of equal slices of the output.
        scale: alpha / rank.
    """

    weight: Any
    bias: Any
    dim: int
    """Axis of the features."""

    def _tune(
        self,
        base: nn.Linear | nn.Conv2d,
        *,
        slices: Sequence[int],
        parts: int,
        rank: int,
        alpha: float,
        generator: torch.Generator,
        on_grid: bool = False,
    ) -> None:
        """Take over the parameters of a layer and add those of LoRA: B is zero, the others are drawn."""
        self.weight, self.bias = base.weight, base.bias
        self.slices, self.parts, self.scale = tuple(slices), parts, alpha / rank
        outputs, inputs = base.weight.shape[:2]
        inner = len(slices) * rank
        self.lora_a = nn.Parameter(_random((inner, inputs), inputs, generator).to(base.weight))
        self.lora_b = nn.Parameter(torch.zeros(len(slices), outputs // parts, rank).to(base.weight))
        self.lora_conv = None
        if on_grid:
            kernels = _random((inner, rank, _KERNEL, _KERNEL), rank * _KERNEL**2, generator)
            self.lora_conv = nn.Parameter(kernels.to(base.weight))

    def forward(self, input: Tensor) -> Tensor:
        """Map like the layer, with the update added."""
        out: Tensor = super().forward(input)
        inner = self._times(input, self.lora_a, stride=True)
        if self.lora_conv is not None:
            inner = self._convolved(inner)
        parts = zip(inner.chunk(len(self.slices), self.dim), self.lora_b, strict=True)
        deltas = [self._times(part, b) * self.scale for part, b in parts]
        if self.parts == 1:
            return out + deltas[0]
        pieces = list(out.chunk(self.parts, self.dim))
        for index, delta in zip(self.slices, deltas, strict=True):
            pieces[index] = pieces[index] + delta
        return torch.cat(pieces, self.dim)

    def merged_weight(self) -> Tensor | None:
        """Return the weight of the plain layer that computes the same; None for Conv-LoRA, which has none."""
        if self.lora_conv is not None:
            return None
        weight: Tensor = self.weight.detach().clone()
        pieces = weight.chunk(self.parts)  # views
        for index, a, b in zip(self.slices, self.lora_a.chunk(len(self.slices)), self.lora_b, strict=True):
            pieces[index].add_((b @ a).detach().reshape(pieces[index].shape), alpha=self.scale)
        return weight

    def _times(self, x: Tensor, matrix: Tensor, *, stride: bool = False) -> Tensor:
        """Multiply the features of each position by a matrix; with `stride`, at the layer's own stride."""
        raise NotImplementedError

    def _convolved(self, inner: Tensor) -> Tensor:
        """Return grid features plus their convolution."""
        if inner.ndim != 4:
            raise ConfigError(
                f"Conv-LoRA needs a layer on a grid (B, H, W, D), got an input of {inner.ndim} dimensions; "
                "remove this layer from TuningTargets.grid of the model"
            )
        grid = inner.movedim(self.dim, 1)  # (B, G·rank, H, W)
        assert self.lora_conv is not None
        mixed = grid + F.conv2d(grid, self.lora_conv, padding=_KERNEL // 2, groups=len(self.slices))
        return mixed.movedim(1, self.dim)


class LoRALinear(LoRA, nn.Linear):
    """A linear layer with LoRA on (…, in), or Conv-LoRA on (B, H, W, in)."""

    dim = -1

    def __init__(self, base: nn.Linear, **options: Any) -> None:
        super().__init__(base.in_features, base.out_features, bias=base.bias is not None, device="meta")
        self._tune(base, **options)

    def _times(self, x: Tensor, matrix: Tensor, *, stride: bool = False) -> Tensor:
        return F.linear(x, matrix)


class LoRAConv2d(LoRA, nn.Conv2d):
    """A 1x1 convolution with LoRA or Conv-LoRA on (B, in, H, W)."""

    dim = 1

    def __init__(self, base: nn.Conv2d, **options: Any) -> None:
        stride, bias = cast(int, base.stride), base.bias is not None
        super().__init__(base.in_channels, base.out_channels, 1, stride=stride, bias=bias, device="meta")
        self._tune(base, **options)

    def _times(self, x: Tensor, matrix: Tensor, *, stride: bool = False) -> Tensor:
        return F.conv2d(x, matrix[..., None, None], stride=self.stride if stride else 1)


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


def merge_lora(model: nn.Module) -> None:
    """Replace every layer with LoRA, in place, by a plain one of the same output; Conv-LoRA stays."""
    for name, module in list(model.named_modules()):
        if not isinstance(module, LoRA) or (weight := module.merged_weight()) is None:
            continue
        biased = module.bias is not None
        plain: nn.Linear | nn.Conv2d
        if isinstance(module, LoRAConv2d):
            stride = cast(int, module.stride)
            plain = nn.Conv2d(weight.shape[1], weight.shape[0], 1, stride=stride, bias=biased, device="meta")
        else:
            plain = nn.Linear(weight.shape[1], weight.shape[0], bias=biased, device="meta")
        plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), module.bias
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, plain)


def _random(shape: Sequence[int], fan_in: int, generator: torch.Generator) -> Tensor:
    tensor = torch.empty(tuple(shape))
    uniform_(tensor, fan_in, generator)
    return tensor
