"""Collect the results of a bench from its cells, as the rows of its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from simmat_plugin_bench.cells import Cell, Failure, read_cell_file
from simmat_plugin_bench.grid import ZERO_SHOT, Arm, Bench
from simmat_plugin_bench.schedule import arm_state, val_metric
from simmat_plugin_bench.settings import DataSet, metrics_of


@dataclass(frozen=True)
class SeedScores:
    """A metric over seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean."""
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation (n - 1); None for one value."""
        return stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """Format as "0.512 ± 0.013"."""
        return f"{self.mean:.3f}" + (
            f" ± {self.std:.3f}" if self.std is not None else ""
        )


@dataclass(frozen=True)
class ArmRow:
    """One arm on one data set.

    Attributes:
        mat: its transfer layer.
        tune: its tuner.
        scores: seed -> score, of the seeds that are done.
        results: seed -> tested result, see `CellResult`.
        lr: the chosen learning rate; None while none is chosen, or for the tuner's own.
        gain: mean score minus that of the zero-shot model; None if one of them is missing.
        vals: seed -> validation score of the best bundle, see `val_metric`.
        state: "done", or why it is not: "2 of 3 seeds", "failed", "diverged", "every rate diverged",
            "changed", "begun", "not begun"; "no such metric" if the results lack the requested score.
        failures: the last log lines of failed cells.
    """

    data: DataSet
    arm: Arm
    mat: str
    tune: str
    scores: Mapping[int, float]
    results: Mapping[int, Mapping[str, Any]]
    lr: float | None
    vals: Mapping[int, float]
    state: str
    failures: tuple[str, ...]
    gain: float | None = None

    @property
    def score(self) -> SeedScores | None:
        """The score over the finished seeds; None if there is none."""
        return (
            SeedScores(tuple(self.scores[seed] for seed in sorted(self.scores)))
            if self.scores
            else None
        )

    @property
    def seconds(self) -> float | None:
        """Mean seconds of a run over the finished seeds."""
        return (
            fmean(result["seconds"] for result in self.results.values())
            if self.results
            else None
        )

    @property
    def facts(self) -> Mapping[str, Any]:
        """A result, for what all seeds have in common; empty without one."""
        return next(iter(self.results.values()), {})

    @property
    def samples(self) -> int:
        """The number of training images; 0 without a result."""
        return int(self.facts.get("train_samples", 0))

    @property
    def curves(self) -> list[dict[int, float]]:
        """Step -> validation mIoU of each seed that has validations."""
        curves = [
            result["curve"] for result in self.results.values() if result["curve"]
        ]
        return [
            {point["step"]: point["miou_object"] for point in curve} for curve in curves
        ]

    @property
    def ious(self) -> dict[int, Mapping[str, Sequence[float]]]:
        """Seed -> test sample -> IoU of each object; without seeds whose result has no IoUs."""
        return {
            seed: result["test_ious"]
            for seed, result in self.results.items()
            if "test_ious" in result
        }

    @property
    def val(self) -> float | None:
        """Mean best validation score over the finished seeds."""
        return fmean(self.vals.values()) if self.vals else None

    @property
    def done(self) -> bool:
        """True if every seed has a score."""
        return len(self.scores) == len(self.arm.seeds)

    @property
    def begun(self) -> bool:
        """True if any of its cells was started."""
        return self.state != "not begun"


@dataclass(frozen=True)
class Results:
    """The results of a bench.

    Attributes:
        rows: every arm on each of its data sets, with or without a result: by data set, then in the order of arms.
    """

    bench: Bench
    rows: tuple[ArmRow, ...]

    def of(self, data: DataSet) -> list[ArmRow]:
        """Return the rows of a data set."""
        return [row for row in self.rows if row.data.name == data.name]

    def row(self, data: DataSet, arm: Arm) -> ArmRow | None:
        """Return the row of an arm on a data set; None if the arm does not run on it."""
        return next((row for row in self.of(data) if row.arm is arm), None)

    def label(self, arm: Arm) -> str:
        """Return an arm's name in tables, with its foundation model if there are several."""
        several = len({arm.foundation for arm in self.bench.arms}) > 1
        return f"{arm.foundation}: {arm.name}" if several else arm.name


def collect(bench: Bench) -> Results:
    """Read the results of all cells.

    Raises:
        DataError: a result is damaged.
    """
    rows: list[ArmRow] = []
    for data in bench.settings.data:
        own = [
            _row(bench, data, arm)
            for one, arm in bench.pairs()
            if one.name == data.name
        ]
        zero = {
            row.arm.foundation: row.score for row in own if row.arm.kind == ZERO_SHOT
        }
        for row in own:
            base = None if row.arm.kind == ZERO_SHOT else zero.get(row.arm.foundation)
            rows.append(
                row
                if base is None or row.score is None
                else replace(row, gain=row.score.mean - base.mean)
            )
    return Results(bench, tuple(rows))


def _row(bench: Bench, data: DataSet, arm: Arm) -> ArmRow:
    state = arm_state(bench, data, arm)
    cells = bench.cells_of(data, arm)
    results = {
        cell.seed: result
        for cell in state.chosen
        if (result := cell.result()) is not None
    }
    tested = {
        seed: result for seed, result in results.items() if result["test"] is not None
    }
    figures = {
        seed: dict(metrics_of(result["test"])).get(bench.settings.score)
        for seed, result in tested.items()
    }
    scores = {seed: figure for seed, figure in figures.items() if figure is not None}
    config = cells[0].config  # the cells of an arm differ in seed and rate alone
    return ArmRow(
        data=data,
        arm=arm,
        mat=config.mat or "",
        tune=config.tune or "",
        scores=scores,
        results=tested,
        lr=state.chosen[0].lr if state.chosen else None,
        vals={
            seed: figure
            for seed, result in tested.items()
            if (figure := val_metric(result["val"], bench.settings.score)) is not None
        },
        state="every rate diverged"
        if state.lost
        else _state(arm, cells, results, len(scores)),
        failures=tuple(
            f"{cell.name}: {read_cell_file(cell.folder.failure, Failure)['log']}"
            for cell in cells
            if cell.state() == "failed"
        ),
    )


def _state(
    arm: Arm, cells: list[Cell], results: Mapping[int, Mapping[str, Any]], done: int
) -> str:
    if done == len(arm.seeds):
        return "done"
    if not done and any(result["test"] is not None for result in results.values()):
        return "no such metric"
    states = {cell.state() for cell in cells}
    for wrong in ("failed", "changed"):
        if wrong in states:
            return wrong
    if any(result["diverged"] for result in results.values()):
        return "diverged"
    if done:
        return f"{done} of {len(arm.seeds)} seeds"
    return "begun" if states - {"open"} else "not begun"
