"""The optimiser and its learning rate over the run."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

Schedule = Literal["cosine", "constant", "halving"]

HALVING_EPOCHS = 10
"""Epochs between two halvings, as the paper's released code has it."""


def learning_rate(step: int, *, peak: float, steps: int, warmup: int, schedule: Schedule, epoch: int = 0) -> float:
    """Return the learning rate of a step: linear warm-up, then what the schedule says.

    Args:
        step: from 0.
        peak: the largest.
        steps: of the run.
        warmup: steps of it.
        schedule: "cosine" falls to 1 % of the peak, "constant" stays, "halving" halves every `HALVING_EPOCHS` epochs.
        epoch: passes over the training split done before this step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    if schedule == "halving":
        return peak * float(0.5 ** (epoch // HALVING_EPOCHS))
    progress = (step - warmup) / max(steps - warmup, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def build_optimizer(module: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over what requires a gradient; biases, norms and other vectors have no weight decay."""
    moving = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in moving if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in moving if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr)
