"""The optimiser and its learning rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import nn

from simmat.errors import ConfigError

Schedule = Literal["cosine", "constant", "halving"]

HALVING_EPOCHS = 10
"""Epochs between two halvings, as in the paper's released code."""


def learning_rate(step: int, *, peak: float, steps: int, warmup: int, schedule: Schedule, epoch: int = 0) -> float:
    """Return the learning rate of a step from 0: linear warm-up, then the schedule.

    "cosine" falls to 1 % of the peak, "constant" stays, "halving" halves every `HALVING_EPOCHS` completed epochs.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    if schedule == "halving":
        return peak * float(0.5 ** (epoch // HALVING_EPOCHS))
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def build_optimizer(
    module: nn.Module, *, weight_decay: float, backbone: Iterable[nn.Parameter] = (), backbone_factor: float = 1.0
) -> torch.optim.AdamW:
    """Return AdamW over all trainable parameters; biases, norms and other vectors have no weight decay.

    Parameters in `backbone` have a learning rate of their own, relative to that of the others; see `set_rates`.
    """
    inner = {id(parameter) for parameter in backbone}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            slower = id(parameter) in inner and backbone_factor != 1
            matrix = parameter.ndim > 1 and not name.endswith(("bias", "biases"))
            groups.setdefault((slower, matrix), []).append(parameter)
    if not groups:
        raise ConfigError(
            "this --mat has no parameters and --tune frozen trains none, so there is nothing to train; use another "
            "--mat (mat-residual, linear) or --tune (lora, decoder, full)"
        )
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": weight_decay if matrices else 0.0,
                "factor": backbone_factor if slower else 1.0,
            }
            for (slower, matrices), parameters in groups.items()
        ]
    )


def set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, scaled by the group's factor from `build_optimizer`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
