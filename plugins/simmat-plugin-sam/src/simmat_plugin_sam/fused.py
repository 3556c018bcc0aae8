"""Layers with their GELU in one pass of oneDNN, which saves a third of the time of large maps on a CPU.

The operators are those that torch.compile uses; they have no gradient, so training runs the layers as they are.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def on_map(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Run a convolution on (B, H, W, C), without a copy."""
    out: Tensor = conv(x.permute(0, 3, 1, 2))
    return out.permute(0, 2, 3, 1)


def depthwise_gelu(conv: nn.Conv2d, x: Tensor, channels: slice = slice(None)) -> Tensor:
    """Return the GELU of a depthwise convolution on (B, H, W, C); of some of its channels only without gradient."""
    if not can_fuse(x):
        return F.gelu(on_map(conv, x))
    x, weight, bias = _in_autocast_dtype(
        x, conv.weight[channels], cast(Tensor, conv.bias)[channels]
    )
    sizes = (conv.padding, conv.stride, conv.dilation)
    out = torch.ops.mkldnn._convolution_pointwise(
        x.permute(0, 3, 1, 2), weight, bias, *sizes, len(weight), "gelu", [], "none"
    )
    return cast(Tensor, out).permute(0, 2, 3, 1)


def linear(layer: nn.Module, x: Tensor, *, gelu: bool = False) -> Tensor:
    """Return a linear layer's output, or the GELU of it; one that a tuner has changed is called as it is."""
    if type(layer) is nn.Linear and can_fuse(x):
        return affine(x, layer.weight, layer.bias, gelu=gelu)
    out: Tensor = layer(x)
    return F.gelu(out) if gelu else out


def affine(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: bool = False
) -> Tensor:
    """Return the output of a linear layer of this weight (out, in) and bias (out,), or the GELU of it."""
    if not can_fuse(x):
        out = F.linear(x, weight, bias)
        return F.gelu(out) if gelu else out
    tensors = (x, weight) if bias is None else (x, weight, bias)
    x, weight, *others = _in_autocast_dtype(*tensors)
    kind: tuple[str, list[float], str] = (
        ("gelu", [], "none") if gelu else ("none", [], "")
    )
    return cast(
        Tensor,
        torch.ops.mkldnn._linear_pointwise(
            x, weight.contiguous(), others[0] if others else None, *kind
        ),
    )


def can_fuse(x: Tensor) -> bool:
    """Return whether oneDNN can run a layer and its GELU in one pass."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not is_traced()
        and cast(Any, torch.backends.mkldnn).is_available()
    )


def is_traced() -> bool:
    """Return whether torch records the computation, to compile or export it."""
    return torch.compiler.is_compiling() or bool(cast(Any, torch.jit).is_tracing())


def _in_autocast_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    if not torch.is_autocast_enabled("cpu"):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype("cpu")) for tensor in tensors)
