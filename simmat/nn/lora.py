"""LoRA (Hu et al. 2021, arXiv 2106.09685).

A tuned layer keeps its parameters under the same names. Step 0 equals the plain layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.nn.mat import uniform_
from simmat.nn.pointwise import PointwiseConv2d


class LoRA(nn.Module):
    """A layer with LoRA on some equal slices of its output: y = W x + b + (alpha / rank) · B z, z = A x.

    Attributes:
        lora_a: (G·rank, in), with G tuned slices.
        lora_b: (G, out / parts, rank), zero at the start.
        slices: indices of the tuned slices.
        parts: number of equal slices of the output.
        scale: alpha / rank.
        dim: axis of the features.
    """

    weight: Any
    lora_a: Any
    lora_b: Any
    slices: tuple[int, ...]
    parts: int
    scale: float
    dim: int

    def forward(self, input: Tensor) -> Tensor:
        """Map like the layer, with the update added."""
        out: Tensor = super().forward(input)
        inner = self.down(input)
        deltas = []
        for part, b in zip(
            inner.chunk(len(self.slices), self.dim), self.lora_b, strict=True
        ):
            deltas.append(self._times(part, b) * self.scale)
        if self.parts == 1:
            return out + deltas[0]
        pieces = list(out.chunk(self.parts, self.dim))
        for index, delta in zip(self.slices, deltas, strict=True):
            pieces[index] = pieces[index] + delta
        return torch.cat(pieces, self.dim)

    def down(self, input: Tensor) -> Tensor:
        """Return A x, with G·rank features at each position of the output."""
        return self._times(input, self.lora_a, stride=True)

    def merged_weight(self) -> Tensor:
        """Return the weight of the plain layer that computes the same."""
        weight: Tensor = self.weight.detach().clone()
        pieces = weight.chunk(self.parts)  # views
        for index, a, b in zip(
            self.slices, self.lora_a.chunk(len(self.slices)), self.lora_b, strict=True
        ):
            pieces[index].add_(
                (b @ a).detach().reshape(pieces[index].shape), alpha=self.scale
            )
        return weight

    def _times(self, x: Tensor, matrix: Tensor, *, stride: bool = False) -> Tensor:
        """Multiply the features of each position by a matrix; with `stride`, at the layer's own stride."""
        raise NotImplementedError


class LoRALinear(LoRA, nn.Linear):
    """A linear layer with LoRA on (…, in)."""

    dim = -1

    def _times(self, x: Tensor, matrix: Tensor, *, stride: bool = False) -> Tensor:
        return F.linear(x, matrix)


class LoRAConv2d(LoRA, nn.Conv2d):
    """A 1x1 convolution with LoRA on (B, in, H, W)."""

    dim = 1

    def _times(self, x: Tensor, matrix: Tensor, *, stride: bool = False) -> Tensor:
        return F.conv2d(x, matrix[..., None, None], stride=self.stride if stride else 1)


def takes_lora(layer: nn.Module) -> bool:
    """True for a plain linear layer or a plain 1x1 convolution; a subclass may compute something else."""
    if type(layer) is nn.Linear:
        return True
    return (
        isinstance(layer, nn.Conv2d)
        and type(layer) in (nn.Conv2d, PointwiseConv2d)
        and layer.kernel_size == (1, 1)
        and layer.groups == 1
        and layer.padding in ((0, 0), "valid", "same")
    )


def add_lora(
    layer: nn.Linear | nn.Conv2d,
    *,
    slices: Sequence[int],
    parts: int,
    rank: int,
    alpha: float,
    generator: torch.Generator,
) -> None:
    """Make a layer that `takes_lora` a `LoRA` layer, in place: B is zero, A is drawn.

    Args:
        slices: indices of the tuned slices of its output.
        parts: number of equal slices of its output.
        rank: rows of A for each slice.
        alpha: the product is scaled by alpha / rank.
    """
    outputs, inputs = layer.weight.shape[:2]
    inner = len(slices) * rank
    layer.__class__ = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
    assert isinstance(layer, LoRA)
    layer.slices, layer.parts, layer.scale = tuple(slices), parts, alpha / rank
    layer.lora_a = nn.Parameter(
        uniform_(torch.empty(inner, inputs), inputs, generator).to(layer.weight)
    )
    layer.lora_b = nn.Parameter(
        torch.zeros(len(slices), outputs // parts, rank).to(layer.weight)
    )


def merge_lora(model: nn.Module) -> None:
    """Replace every LoRA layer, in place, by a plain layer with the same output; layers that compute more stay."""
    plain_classes: dict[type, Any] = {LoRALinear: nn.Linear, LoRAConv2d: nn.Conv2d}
    for layer in model.modules():
        if isinstance(layer, LoRA) and type(layer) in plain_classes:
            layer.weight = nn.Parameter(layer.merged_weight(), requires_grad=False)
            del layer.lora_a, layer.lora_b
            layer.__class__ = plain_classes[type(layer)]
