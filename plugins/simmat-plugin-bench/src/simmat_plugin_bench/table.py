"""Tables of a bench for the terminal, as Markdown and as CSV; differences from the reference arm."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from simmat.evaluation import bootstrap_means, interval_of
from simmat_plugin_bench.grid import Arm
from simmat_plugin_bench.results import Average, Results, Row
from simmat_plugin_bench.settings import DEFAULT, DataSet


@dataclass(frozen=True)
class Difference:
    """The difference of an arm from the reference arm on one data set.

    Attributes:
        interval: 95 % interval of a bootstrap over test images, the same for both arms; None if the score is not
            `miou_object`, a result lacks the IoUs of its objects, or there is only one image.
        state: why seeds are missing, as "1 of 3 seeds"; "" if none is.
    """

    mean: float
    interval: tuple[float, float] | None
    state: str = ""

    def __str__(self) -> str:
        """Format as "+0.053 [-0.010, +0.110]"."""
        low_high = "" if self.interval is None else " [{:+.3f}, {:+.3f}]".format(*self.interval)
        return f"{self.mean:+.3f}{low_high}" + (f" ({self.state})" if self.state else "")


@dataclass(frozen=True)
class Differences:
    """The differences of an arm from the reference arm.

    Attributes:
        on: name of the data set -> difference.
        mean: mean over the averaged data sets; None if one is missing or lacks seeds.
    """

    arm: Arm
    on: dict[str, Difference]
    mean: Difference | None


def differences(results: Results) -> list[Differences]:
    """Compare every arm with the reference arm; empty without a reference, or if `--quick` does not run it.

    The reference is the arm of this name with the same foundation model, or else the first of this name. The IoU of an
    object is its mean over seeds. For the mean over data sets, images are drawn independently for each set, except
    that sets of the same files or scenes share their draws.
    """
    found = []
    name = results.bench.settings.reference
    having = [arm.foundation for arm in results.bench.arms if arm.name == name]
    for arm in results.bench.arms:
        foundation = arm.foundation if arm.foundation in having else next(iter(having), None)
        if foundation is None or (arm.name, arm.foundation) == (name, foundation):
            continue
        # Two arms may have the reference's name: an added one runs where the one in the TOML does not.
        others = {
            row.data.name: row for row in results.rows if (row.arm.name, row.arm.foundation) == (name, foundation)
        }
        pairs = {
            data.name: (row, others[data.name])
            for data in results.bench.settings.data
            if (row := results.row(data, arm)) is not None and data.name in others
        }
        compared = _compare(results, arm, pairs)
        if compared.on:
            found.append(compared)
    return found


def _compare(results: Results, arm: Arm, pairs: dict[str, tuple[Row, Row]]) -> Differences:
    sets = results.bench.settings.data
    usual = results.bench.settings.score == DEFAULT
    on: dict[str, Difference] = {}
    drawn: list[npt.NDArray[np.float64]] = []
    for data in sets:
        row, reference = pairs.get(data.name, (None, None))
        if row is None or reference is None or row.score is None or reference.score is None:
            continue
        images = _by_image(row, reference) if usual else []
        means = bootstrap_means(images, _generator(data, sets)) if len(images) > 1 else None
        state = next((one.state for one in (row, reference) if not one.done), "")
        interval = interval_of(means) if means is not None else None
        on[data.name] = Difference(row.score.mean - reference.score.mean, interval, state)
        drawn += [means] if means is not None and data.averaged else []
    averaged = [on.get(data.name) for data in sets if data.averaged]
    known = [difference.mean for difference in averaged if difference is not None and not difference.state]
    if not known or len(known) < len(averaged):
        return Differences(arm, on, None)
    interval = interval_of(np.mean(drawn, axis=0)) if len(drawn) == len(known) else None
    return Differences(arm, on, Difference(fmean(known), interval))


def _generator(data: DataSet, sets: Sequence[DataSet]) -> np.random.Generator:
    """Return the generator that draws the images of a set; sets of the same files or scenes have the same seed."""
    made_of = (data.data, data.simulate)
    return np.random.default_rng(next(i for i, one in enumerate(sets) if (one.data, one.simulate) == made_of))


def _by_image(row: Row, reference: Row) -> list[list[float]]:
    """Return the IoU difference of each object, by image; empty if the runs do not have the same objects."""
    if row.ious.keys() != row.scores.keys() or reference.ious.keys() != reference.scores.keys():
        return []
    runs = [*row.ious.values(), *reference.ious.values()]
    if len({frozenset((sample, len(ious)) for sample, ious in run.items()) for run in runs}) != 1:
        return []
    return [[a - b for a, b in zip(_means(row, sample), _means(reference, sample), strict=True)] for sample in runs[0]]


def _means(row: Row, sample: str) -> list[float]:
    """Return the mean IoU over seeds of each object of a sample."""
    return [fmean(values) for values in zip(*(ious[sample] for ious in row.ious.values()), strict=True)]


HEAD = ("ARM", "SCORE", "GAIN", "TRAINABLE", "LR", "SECONDS", "STATE")
WORDS = (*HEAD, "MEAN")
"""Fixed words in table heads, whose case may be changed; names of data sets are kept."""
NONE = "–"
DIFFERENCE_NOTE = (
    "Score minus that of the reference; in brackets, where the objects' IoUs are known, the 95 % interval of a "
    "bootstrap over test images, the same for both arms. It covers the random choice of test images, not that of the "
    "seed."
)


def rows_of(results: Results, data: DataSet, *, waiting: bool = True) -> list[tuple[str, ...]]:
    """Return the cells of one data set's table, under `HEAD`.

    Args:
        waiting: include arms that have not started.
    """
    lines: list[tuple[str, ...]] = [
        (
            results.label(row.arm),
            str(row.score) if row.score is not None else NONE,
            signed(row.gain),
            f"{row.trainable:,}" if row.trainable is not None else NONE,
            _rate(row),
            f"{row.seconds:.0f}" if row.seconds is not None else NONE,
            row.state,
        )
        for row in results.of(data)
        if waiting or row.begun
    ]
    several = len({arm.foundation for arm in results.bench.arms}) > 1
    for name, why in results.bench.no_zero_shot.items():
        lines.append((f"{name}: zero-shot" if several else "zero-shot", *([NONE] * 5), f"none: {why}"))
    return lines


def _rate(row: Row) -> str:
    if row.lr is not None:
        return f"{row.lr:g}"
    return "tuner's" if row.arm.kind == "train" and row.arm.rates == (None,) else NONE


def overview(results: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and cells of the table arms x data sets, with mean and gain over the averaged ones at the end."""
    sets = results.bench.settings.data
    head = ("ARM", *(data.name + ("" if data.averaged else " (not averaged)") for data in sets), "MEAN", "GAIN")
    lines = []
    for average in results.averages:
        row = [_short(results.row(data, average.arm)) for data in sets]
        lines.append((results.label(average.arm), *row, mean_of(average), signed(average.gain)))
    return head, lines


def difference_table(results: Results) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and cells of the table of differences from the reference arm; no cells without one.

    The mean comes first, because the table may be wide.
    """
    sets = results.bench.settings.data
    head = ("ARM", "MEAN", *(data.name for data in sets))
    lines = [
        (
            results.label(found.arm),
            str(found.mean) if found.mean is not None else NONE,
            *(str(found.on.get(data.name, NONE)) for data in sets),
        )
        for found in differences(results)
    ]
    return head, lines


def difference_title(results: Results) -> str:
    """Return the title of the table of differences."""
    return f'Difference from "{results.bench.settings.reference}"'


def _short(row: Row | None) -> str:
    if row is None:
        return ""
    if row.score is None:
        return f"{NONE} ({row.state})" if row.begun else NONE
    return str(row.score) + ("" if row.done else f" ({row.state})")


def mean_of(average: Average) -> str:
    """Format the mean, or "(done of wanted)" if data sets are missing: means over other sets cannot be compared."""
    if average.score is not None:
        return str(average.score)
    return f"{NONE} ({average.done} of {average.wanted})" if average.wanted else NONE


def signed(value: float | None) -> str:
    """Format a difference with its sign."""
    return f"{value:+.3f}" if value is not None else NONE


def markdown(results: Results) -> str:
    """Return all tables as Markdown."""
    settings = results.bench.settings
    parts = [f"# {settings.title}", f"Score: `{settings.score}` on the test split, mean ± std over seeds.", ""]
    if len(settings.data) > 1:
        parts += ["## All data sets", "", _markdown_table(*overview(results)), ""]
    head, lines = difference_table(results)
    if lines:
        parts += [f"## {difference_title(results)}", "", DIFFERENCE_NOTE, "", _markdown_table(head, lines), ""]
    for data in settings.data:
        parts += [f"## {data.name}", "", _markdown_table(HEAD, rows_of(results, data)), ""]
    if failures := [line for row in results.rows for line in row.failures]:
        parts += ["## Failed", "", *(f"```\n{line}\n```" for line in failures), ""]
    return "\n".join(parts)


def _markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    names = [name.capitalize() if name in WORDS else name for name in head]
    rule = "|" + "|".join("---" if index == 0 else "---:" for index in range(len(head))) + "|"
    return "\n".join([line(names), rule, *(line(cells) for cells in lines)])


CSV_HEAD = (
    "data", "averaged", "foundation", "arm", "seed", "score", "gain", "lr", "trainable", "total", "steps", "seconds",
    "memory_bytes", "val", "state",
)  # fmt: skip


def as_csv(results: Results) -> str:
    """Return one CSV line per seed, with or without a score."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for row in results.rows:
        for seed in row.arm.seeds:
            score = row.scores.get(seed)
            values = (
                row.data.name, row.data.averaged, row.arm.foundation, row.arm.name, seed, score, _gain(row, seed),
                row.lr, row.trainable, row.total, row.steps, row.times.get(seed), row.peaks.get(seed),
                row.vals.get(seed), "done" if score is not None else row.state,
            )  # fmt: skip
            writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def _gain(row: Row, seed: int) -> float | None:
    """Return one seed's score minus the mean of the zero-shot model."""
    if row.gain is None or row.score is None or seed not in row.scores:
        return None
    return row.gain + row.scores[seed] - row.score.mean
