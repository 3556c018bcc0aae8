"""Prompt and prefix tuning: trained tokens appended to the keys and values of every attention.

Prompt tuning (Lester et al. 2021, arXiv 2104.08691; visual, Jia et al. 2022, arXiv 2203.12119) adds tokens that pass
the attention's projections; prefix tuning (Li and Liang 2021, arXiv 2101.00190) adds keys and values directly. Both get
attention from the first step on, so step 0 differs from the untuned model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.foundation import TunableAttention
from simmat.nn.tuners import check_options, model_name, targeted_modules
from simmat.plugin_specs import TuningTargets

_STD = 0.02
"""Standard deviation of the random tokens; that of the position embeddings of a ViT."""


class PromptTokens(nn.Module):
    """N tokens that pass the attention's projections to keys and values, with dropout in training."""

    kind: Literal["prompt", "prefix"] = "prompt"

    def __init__(self, tokens: Tensor, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Parameter(tokens)  # (N, D)
        self.dropout = nn.Dropout(dropout)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the tokens twice, (N, D) each."""
        tokens: Tensor = self.dropout(self.tokens)
        return tokens, tokens


class PrefixTokens(nn.Module):
    """N trained keys and N trained values."""

    kind: Literal["prompt", "prefix"] = "prefix"

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys = nn.Parameter(keys)  # (N, D)
        self.values = nn.Parameter(values)  # (N, D)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return keys and values, (N, D) each."""
        return self.keys, self.values


def apply_prompt(
    model: nn.Module,
    *,
    targets: TuningTargets,
    generator: torch.Generator,
    tokens: int,
    dropout: float,
) -> None:
    """Add trained tokens to every attention that the model names, in backbone and decoder.

    Args:
        targets: names the `attention` modules.
        tokens: number of tokens per attention, at least 1.
        dropout: probability to drop a value in training, in [0, 1).

    Raises:
        ConfigError: an option is out of range, or the model names no attention that takes tokens.
    """
    check_options(
        "prompt",
        (tokens >= 1, f"tokens must be at least 1, got {tokens}"),
        (0 <= dropout < 1, f"dropout must be in [0, 1), got {dropout}"),
    )
    for attention, like in _attentions(model, targets, "prompt"):
        attention.memory = PromptTokens(
            _random(tokens, attention.width, generator).to(like), dropout
        )


def apply_prefix(
    model: nn.Module, *, targets: TuningTargets, generator: torch.Generator, tokens: int
) -> None:
    """Add trained keys and values to every attention that the model names, in backbone and decoder.

    Args:
        targets: names the `attention` modules.
        tokens: number of keys, and of values, per attention, at least 1.

    Raises:
        ConfigError: an option is out of range, or the model names no attention that takes tokens.
    """
    check_options("prefix", (tokens >= 1, f"tokens must be at least 1, got {tokens}"))
    for attention, like in _attentions(model, targets, "prefix"):
        keys = _random(tokens, attention.width, generator).to(like)
        values = _random(tokens, attention.width, generator).to(like)
        attention.memory = PrefixTokens(keys, values)


def _attentions(
    model: nn.Module, targets: TuningTargets, tuner: str
) -> Iterator[tuple[TunableAttention, Tensor]]:
    """Yield every attention that the model names, with a tensor that has its device and dtype."""
    for name, module in targeted_modules(model, targets.attention, tuner):
        if not (hasattr(module, "width") and hasattr(module, "memory")):
            raise ConfigError(
                f"foundation model {model_name(model)!r} names {name!r} for tuner {tuner!r}, but a "
                f"{type(module).__name__} takes no tokens; it needs `width` and `memory`, see "
                "simmat.foundation.TunableAttention"
            )
        yield cast(TunableAttention, module), next(module.parameters())


def _random(count: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.empty(count, width).normal_(std=_STD, generator=generator)
