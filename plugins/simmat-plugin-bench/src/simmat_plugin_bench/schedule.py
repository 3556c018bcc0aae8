"""Which job may run next, read off what lies on disk; so a bench goes on wherever it was stopped."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from simmat_plugin_bench.cells import Cell
from simmat_plugin_bench.grid import Arm, Bench
from simmat_plugin_bench.settings import DataSet


@dataclass(frozen=True)
class Job:
    """One process to be run.

    Attributes:
        cell: where.
        test: whether it reads the test split once it is trained.
    """

    cell: Cell
    test: bool


@dataclass(frozen=True)
class ArmState:
    """How far an arm is on one data set.

    Attributes:
        jobs: what may run now.
        chosen: the cells of the chosen learning rate, one a seed; empty while validation has not chosen.
        waiting: how many runs can only be named once validation has chosen.
        lost: whether every learning rate diverged, so that nothing is left to be chosen or run.
    """

    jobs: tuple[Job, ...]
    chosen: tuple[Cell, ...]
    waiting: int = 0
    lost: bool = False


def arm_state(bench: Bench, data: DataSet, arm: Arm) -> ArmState:
    """Return what an arm may run now.

    With several learning rates, the first seed tries each, its test split unread; the rate with the best
    validation score is tested and run with the other seeds. A rate that diverged has lost, and
    where all have, nothing more is run.
    """
    cells = bench.cells_of(data, arm)
    if len(arm.rates) == 1:
        return ArmState(tuple(Job(cell, test=True) for cell in cells if _to_do(cell, test=True)), tuple(cells))
    first = [cell for cell in cells if cell.seed == arm.seeds[0]]
    if to_try := [cell for cell in first if cell.state() not in ("trained", "tested")]:
        jobs = tuple(Job(cell, test=False) for cell in to_try if _to_do(cell, test=False))
        return ArmState(jobs, (), waiting=len(arm.seeds) - 1)
    best = _best(first)
    if best is None:
        return ArmState((), (), lost=True)
    chosen = tuple(cell for cell in cells if cell.lr == best.lr)
    return ArmState(tuple(Job(cell, test=True) for cell in chosen if _to_do(cell, test=True)), chosen)


def _best(tried: list[Cell]) -> Cell | None:
    """Return the cell with the best validation score, of equals the first; None where all diverged."""
    scores = [_validation(cell) for cell in tried]
    best = max(scores)
    return tried[scores.index(best)] if best > -math.inf else None


def _validation(cell: Cell) -> float:
    """Return the best validation score of a cell; a run that diverged has none, and is below all others."""
    result = cell.result()
    if result is None or result["val"] is None or math.isnan(score := float(result["val"]["miou_object"])):
        return -math.inf
    return score


def _to_do(cell: Cell, *, test: bool) -> bool:
    state = cell.state()
    if state in ("open", "begun", "failed"):
        return True
    if state == "trained" and test:
        result = cell.result()
        return result is not None and not result["diverged"]
    return False


def all_jobs(bench: Bench) -> Iterator[Job]:
    """Go through everything that may run now: the references first, then data set by data set."""
    pairs = sorted(bench.pairs(), key=lambda pair: pair[1].kind == "train")
    for data, arm in pairs:
        yield from arm_state(bench, data, arm).jobs
