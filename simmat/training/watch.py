"""What a run tells whoever watches it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is known before the first step.

    Attributes:
        first_step: 0, or where a resumed run goes on.
        steps: optimiser steps in all.
        train_samples: samples trained on.
        val_samples: samples validated on.
        trainable: parameters that move.
        total: parameters in all.
        memory_bytes: estimate of what weights, optimiser and one batch's activations need.
        device: where it runs.
        processes: how many work on it.
        best_miou: of a resumed run, the best validation so far; None where there was none.
        best_step: when that was.
        notes: sentences a user should read, such as how the data was split.
    """

    first_step: int
    steps: int
    train_samples: int
    val_samples: int
    trainable: int
    total: int
    memory_bytes: int
    device: str
    processes: int
    best_miou: float | None = None
    best_step: int | None = None
    notes: tuple[str, ...] = field(default=())


class Watcher:
    """A watcher that looks away; override what you want to see. Only the main process calls it."""

    def preparing(self, what: str, total: int) -> None:
        """A phase of `total` items begins ("statistics", "validation")."""

    def advanced(self, count: int) -> None:
        """`count` items of the phase are done."""

    def started(self, plan: RunPlan) -> None:
        """The first step is about to run."""

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Step `step` (from 1) is done."""

    def validated(self, step: int, summary: dict[str, Any], *, best: bool) -> None:
        """A validation after `step` steps is done; `best` where its bundle was kept."""
