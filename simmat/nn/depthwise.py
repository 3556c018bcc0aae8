"""Depthwise convolutions of a training in bf16 on a CPU."""

from __future__ import annotations

from types import MethodType

import torch
from torch import Tensor, nn


def keep_depthwise_in_fp32(model: nn.Module) -> None:
    """Let depthwise 2D convolutions compute in fp32 under a CPU's autocast; what comes out has autocast's dtype.

    Their way back is slower in bf16 than in fp32 (torch 2.13 on a CPU without AMX): `python
    benchmarks/training_parts.py --precision bf16` has the ratio. Weights and names stay as they are.

    Args:
        model: whose layers are changed, for good.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
            # A method of the layer and no closure over it, so that a copy computes with its own weights.
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(layer: nn.Conv2d, x: Tensor) -> Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return type(layer).forward(layer, x)
    with torch.autocast("cpu", enabled=False):
        exact = type(layer).forward(layer, x.float())
    return exact.to(torch.get_autocast_dtype("cpu"))
