"""What follows a training: the plan of a run, and the callbacks that are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simmat.config import TrainConfig
    from simmat.evaluation.scores import Scores


@dataclass(frozen=True, kw_only=True, eq=False)
class RunPlan:
    """What is known before the first step.

    Attributes:
        config: the settings, with defaults filled in.
        data: folder of the data set.
        splits: those that it has.
        val: ids of the samples of every validation, in the order of the data set.
        train_samples: number of training samples.
        steps: number of optimiser steps, also those before `first_step`.
        first_step: 0, or the number of steps that a resumed run has done.
        val_every: steps between validations.
        trainable: number of parameters that train.
        total: number of all parameters.
        device: where this process computes.
        processes: number of processes.
        best_miou: validation mIoU of the best bundle of a resumed run; None if it has none.
        best_step: step of that validation.
        notes: sentences for the user, such as how the data was split.
    """

    config: TrainConfig
    data: Path
    splits: frozenset[str]
    val: tuple[str, ...]
    train_samples: int
    steps: int
    first_step: int
    val_every: int
    trainable: int
    total: int
    device: str
    processes: int
    best_miou: float | None = None
    best_step: int | None = None
    notes: tuple[str, ...] = ()


class Callback:
    """A callback that does nothing; override the methods you need. Only the main process calls them."""

    def preparing(self, what: str, total: int) -> None:
        """A phase of `total` items begins ("statistics", "validation")."""

    def advanced(self, count: int) -> None:
        """`count` items of the phase are done."""

    def started(self, plan: RunPlan) -> None:
        """The first step is about to run."""

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        """Step `step` (from 1) is done; `losses` has the learning rate too, as "lr"."""

    def validated(self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores) -> None:
        """A validation after `step` steps is done.

        Args:
            step: 0 before the first one.
            summary: that of the scores; with a dense head, it also has "everything" and "semantic", and the "score"
                that `best` compares.
            best: it is the best so far, and its bundle is written.
            scores: of each object.
        """

    def stopped(self) -> None:
        """The run was asked to stop, and its state is saved."""

    def finished(self, bundle: Path) -> None:
        """All steps are done, and this is the best bundle, as `load` takes it."""
