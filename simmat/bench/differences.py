"""How much higher each arm scores than the reference arm, with intervals from the objects they share."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from simmat.bench.figures import DEFAULT
from simmat.bench.grid import Arm
from simmat.bench.results import Results, Row
from simmat.bench.settings import DataSet
from simmat.intervals import bootstrap_means, interval_of


@dataclass(frozen=True)
class Difference:
    """One difference.

    Attributes:
        mean: of the scores.
        interval: 95 %, drawing test images, both arms on the same ones; None where the score is not the IoU over
            objects, a result has no IoU of its objects, or there is one image.
    """

    mean: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        """As "+0.053 [-0.010, +0.110]"."""
        if self.interval is None:
            return f"{self.mean:+.3f}"
        low, high = self.interval
        return f"{self.mean:+.3f} [{low:+.3f}, {high:+.3f}]"


@dataclass(frozen=True)
class Differences:
    """An arm's differences.

    Attributes:
        arm: the arm.
        on: by name of the data set, those there are.
        mean: over the averaged data sets; None where one is missing.
    """

    arm: Arm
    on: dict[str, Difference]
    mean: Difference | None


def differences(results: Results) -> list[Differences]:
    """Compare every arm with the reference; nothing where none is named, or `--quick` has left it out.

    An object's IoU is its mean over seeds. The mean over data sets draws the images of each set by themselves.
    """
    found = []
    for arm in results.bench.arms:
        reference = _reference(results, arm)
        if reference is None or reference is arm:
            continue
        pairs = {
            data.name: pair
            for data in results.bench.settings.data
            if (pair := _pair(results, data, arm, reference)) is not None
        }
        if pairs:
            found.append(_compare(results, arm, pairs))
    return found


def _reference(results: Results, arm: Arm) -> Arm | None:
    """Return the arm to compare with: that of the same foundation model, where it has one of this name."""
    named = [other for other in results.bench.arms if other.name == results.bench.settings.reference]
    return next((other for other in named if other.foundation == arm.foundation), named[0] if named else None)


def _pair(results: Results, data: DataSet, arm: Arm, reference: Arm) -> tuple[Row, Row] | None:
    one, other = results.row(data, arm), results.row(data, reference)
    return (one, other) if one and other and one.score is not None and other.score is not None else None


def _compare(results: Results, arm: Arm, pairs: dict[str, tuple[Row, Row]]) -> Differences:
    usual = results.bench.settings.score == DEFAULT
    on: dict[str, Difference] = {}
    averaged: list[float] = []
    drawn: list[npt.NDArray[np.float64]] = []
    wanted = [data.name for data in results.bench.settings.data if data.averaged]
    for number, (name, (row, reference)) in enumerate(pairs.items()):
        assert row.score is not None
        assert reference.score is not None  # see `_pair`
        mean = row.score.mean - reference.score.mean
        images = _by_image(row, reference) if usual else []
        # A generator for each set, so that the draws of two sets of one size are not the same.
        means = bootstrap_means(images, np.random.default_rng((0, number))) if len(images) > 1 else None
        on[name] = Difference(mean, interval_of(means) if means is not None else None)
        if name in wanted:
            averaged.append(mean)
            drawn += [means] if means is not None else []
    if len(averaged) < len(wanted) or not wanted:
        return Differences(arm, on, None)
    interval = interval_of(np.mean(drawn, axis=0)) if len(drawn) == len(wanted) else None
    return Differences(arm, on, Difference(fmean(averaged), interval))


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
