"""The next jobs of a bench: those of each arm, and the learning rate that validation chooses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from simmat_plugin_bench.cells import Cell
from simmat_plugin_bench.grid import Arm, Bench
from simmat_plugin_bench.settings import (
    DEFAULT,
    EVERYTHING,
    SEMANTIC,
    DataSet,
    metrics_of,
)


@dataclass(frozen=True)
class Job:
    """One process to run."""

    cell: Cell
    test: bool


@dataclass(frozen=True)
class ArmState:
    """The progress of an arm on one data set.

    Attributes:
        chosen: the cells of the chosen learning rate, one per seed; empty until validation has chosen.
        lost: every learning rate diverged, so nothing is left to run.
    """

    jobs: tuple[Job, ...]
    chosen: tuple[Cell, ...]
    lost: bool = False


def arm_state(bench: Bench, data: DataSet, arm: Arm) -> ArmState:
    """Return the progress of an arm on a data set.

    With several learning rates, the first seed trains with each, without reading the test split. The rate with the
    best validation score is then tested, and run with the other seeds. A rate that diverged is never chosen.
    """
    cells = bench.cells_of(data, arm)
    if len(arm.rates) == 1:
        return ArmState(
            tuple(Job(cell, test=True) for cell in cells if _to_do(cell, test=True)),
            tuple(cells),
        )
    first = [cell for cell in cells if cell.seed == arm.seeds[0]]
    if to_try := [cell for cell in first if cell.state() not in ("trained", "tested")]:
        jobs = tuple(
            Job(cell, test=False) for cell in to_try if _to_do(cell, test=False)
        )
        return ArmState(jobs, ())
    best = _best(first, bench.settings.score)
    if best is None:
        return ArmState((), (), lost=True)
    chosen = tuple(cell for cell in cells if cell.lr == best.lr)
    return ArmState(
        tuple(Job(cell, test=True) for cell in chosen if _to_do(cell, test=True)),
        chosen,
    )


def _best(tried: list[Cell], score: str) -> Cell | None:
    """Return the first cell with the best validation score; None if all diverged."""
    vals = [
        result["val"] if (result := cell.result()) is not None else None
        for cell in tried
    ]
    figures = [None if val is None else val_metric(val, score) for val in vals]
    # If validation has no such metric, such as AP of every object without a dense head, one click decides.
    if all(figure is None for figure in figures):
        figures = [None if val is None else float(val[DEFAULT]) for val in vals]
    scores = [
        -math.inf if value is None or math.isnan(value) else value for value in figures
    ]
    best = max(scores)
    return tried[scores.index(best)] if best > -math.inf else None


def val_metric(val: Mapping[str, Any], score: str) -> float | None:
    """Return the validation figure of a score: itself for masks without prompts, else the mIoU of one click."""
    name = score if score.startswith((EVERYTHING, SEMANTIC)) else DEFAULT
    return dict(metrics_of(val)).get(name)


def _to_do(cell: Cell, *, test: bool) -> bool:
    state = cell.state()
    if state in ("open", "begun", "failed"):
        return True
    if state == "trained" and test:
        result = cell.result()
        return result is not None and not result["diverged"]
    return False


def all_jobs(bench: Bench) -> Iterator[Job]:
    """Yield every job that can run now: zero-shot first, then data set by data set."""
    pairs = sorted(bench.pairs(), key=lambda pair: pair[1].kind == "train")
    for data, arm in pairs:
        yield from arm_state(bench, data, arm).jobs
