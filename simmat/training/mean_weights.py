"""A mean of the weights over the last steps, which is scored and kept while the rate is constant.

At a constant rate, the weights of single steps jump about those that a cool-down would reach, and so do their scores
(Hägele et al. 2024, arXiv 2405.18392). The mean lies beside the moments in the state of the optimiser, with which it is
saved and resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

_KEY = "mean"
# the mean reaches back over this share of the steps that are done, but not over fewer steps than these
_SHARE = 0.1
_FEWEST_STEPS = 10


@torch.no_grad()
def update_mean(optimizer: torch.optim.Optimizer, done: int) -> None:
    """Move the mean towards the weights after a step: it reaches back over about a tenth of the `done` steps."""
    weight = 1 / max(_SHARE * done, _FEWEST_STEPS)
    for parameter, moments in optimizer.state.items():
        if _KEY not in moments:
            moments[_KEY] = parameter.detach().clone()
        moments[_KEY].lerp_(parameter, weight)


def forget_mean(optimizer: torch.optim.Optimizer) -> None:
    """Remove the mean, so that the weights themselves are scored again."""
    for moments in optimizer.state.values():
        moments.pop(_KEY, None)


@contextmanager
def mean_weights(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Give networks the mean of their weights while the block runs, as far as there is one.

    Args:
        optimizers: of networks that may share parameters.
    """
    _swap(optimizers)
    try:
        yield
    finally:
        _swap(optimizers)


@torch.no_grad()
def _swap(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Exchange weights and their mean; a second call puts both back."""
    states: dict[torch.Tensor, dict[str, torch.Tensor]] = {}
    for optimizer in optimizers:
        states.update(optimizer.state)  # a shared parameter once
    for parameter, moments in states.items():
        if _KEY in moments:
            weights = parameter.detach().clone()
            parameter.copy_(moments[_KEY])
            moments[_KEY].copy_(weights)
