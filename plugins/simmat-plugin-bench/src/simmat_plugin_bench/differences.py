"""How much higher each arm scores than the reference arm, with intervals from the objects they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from simmat.intervals import bootstrap_means, interval_of
from simmat_plugin_bench.figures import DEFAULT
from simmat_plugin_bench.grid import Arm
from simmat_plugin_bench.results import Results, Row
from simmat_plugin_bench.settings import DataSet


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        mean: of the scores.
        interval: 95 %, drawing test images, both arms on the same ones; None where the score is not the IoU over
            objects, a result has no IoU of its objects, or there is one image.
        state: why it is not of all seeds, as "1 of 3 seeds"; empty where it is.
    """

    mean: float
    interval: tuple[float, float] | None
    state: str = ""

    def __str__(self) -> str:
        """As "+0.053 [-0.010, +0.110]"."""
        low_high = "" if self.interval is None else " [{:+.3f}, {:+.3f}]".format(*self.interval)
        return f"{self.mean:+.3f}{low_high}" + (f" ({self.state})" if self.state else "")


@dataclass(frozen=True)
class Differences:
    """An arm's differences.

    Attributes:
        arm: the arm.
        on: by name of the data set, those there are.
        mean: over the averaged data sets; None where one is missing or not of all seeds.
    """

    arm: Arm
    on: dict[str, Difference]
    mean: Difference | None


def differences(results: Results) -> list[Differences]:
    """Compare every arm with the reference; nothing where none is named, or `--quick` has left it out.

    The reference is that of the arm's own foundation model, where it has one of this name, else the first. An object's
    IoU is its mean over seeds. The mean over data sets draws the images of each set by themselves, but for sets made of
    the same files or scenes.
    """
    found = []
    name = results.bench.settings.reference
    having = [arm.foundation for arm in results.bench.arms if arm.name == name]
    for arm in results.bench.arms:
        foundation = arm.foundation if arm.foundation in having else next(iter(having), None)
        if foundation is None or (arm.name, arm.foundation) == (name, foundation):
            continue
        # Two arms may have the reference's name: the bench's own one stands where the TOML's does not run.
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
    """Return what draws the images of a set: the same for sets made of the same files or scenes, else another."""
    made_of = (data.data, data.simulate)
    return np.random.default_rng(next(i for i, one in enumerate(sets) if (one.data, one.simulate) == made_of))


def _by_image(row: Row, reference: Row) -> list[list[float]]:
    """Return the difference of each object, image by image; nothing where a seed of either has other objects."""
    if row.ious.keys() != row.scores.keys() or reference.ious.keys() != reference.scores.keys():
        return []
    runs = [*row.ious.values(), *reference.ious.values()]
    if len({frozenset((sample, len(ious)) for sample, ious in run.items()) for run in runs}) != 1:
        return []
    return [[a - b for a, b in zip(_means(row, sample), _means(reference, sample), strict=True)] for sample in runs[0]]


def _means(row: Row, sample: str) -> list[float]:
    """Return the IoU of each object of a sample, its mean over seeds."""
    return [fmean(values) for values in zip(*(ious[sample] for ious in row.ious.values()), strict=True)]
