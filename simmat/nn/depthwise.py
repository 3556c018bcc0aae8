"""Depthwise convolutions of a training in bf16 on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def keep_depthwise_in_fp32(model: nn.Module) -> None:
    """Let depthwise 2D convolutions compute in fp32 under a CPU's autocast; what comes out has the input's dtype.

    Their way back in bf16 takes three to five times as long as in fp32 (torch 2.13 on a CPU without AMX; `python
    benchmarks/training_parts.py --precision bf16`), all other convolutions' is faster. Weights and names stay as they
    are.

    Args:
        model: whose layers are changed, for good.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels:
            module.forward = _in_fp32(module.forward)  # type: ignore[assignment, method-assign]


def _in_fp32(forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def wrapped(x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return forward(x.float()).to(x.dtype)

    return wrapped
