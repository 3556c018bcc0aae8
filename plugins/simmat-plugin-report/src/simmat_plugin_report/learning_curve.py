"""Fit a learning curve to a few scores, and say what more labels bring, with an interval.

The law is error = E · (u + (1 - u) · (n / N)^-c) of n labels: E is the error at the largest number of labels N, u the
share of it that no label removes, c how fast the rest falls. It is the power law a + b · n^-c (Cortes et al. 1993;
Hestness et al. 2017, arXiv 1712.00409). Few scores do not determine three numbers, so many curves are drawn and each
counts by how well it explains the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simmat.documents import StrictModel
from simmat.errors import DataError

Floats = npt.NDArray[np.float64]

DRAWS = 20_000
RUN_STD = 0.02
"""Standard deviation of the score of a training around its curve, beside that of the images that it was measured on."""
RATE = (0.5, 0.5)
"""Median of the exponent c before any score is seen, and standard deviation of its logarithm."""
FLOOR = (3.0, 1.0)
"""Parameters of the beta distribution of u before any score is seen: three quarters of the error stay.

A pretrained network learns most from its first images. From ten images to all, 22 to 87, the error of `mobilesam` fell
to 0.92 of what it was, on six sets to 0.77 to 1.03 (docs/transfer.md).
"""
LOW, HIGH = 0.1, 0.9
"""Quantiles of an 80 % interval."""


@dataclass(frozen=True)
class Score:
    """The error of a model on images that it was not trained on.

    Attributes:
        labels: number of training images.
        error: 1 - mIoU, or the share of missed objects; 0 to 1.
        std: standard error of `error`, from the images.
        is_repeated: whether other such scores are of the same images, or of some of them; so with the validations of
            several runs. What these images have of their own is in all of them, and is not averaged out.
    """

    labels: int
    error: float
    std: float
    is_repeated: bool = False


class Estimate(StrictModel):
    """A figure with its 80 % interval."""

    median: float
    low: float
    high: float

    def of_rest(self) -> Estimate:
        """Return the estimate of what is left to 1: of mIoU for an error."""
        return Estimate(median=1 - self.median, low=1 - self.high, high=1 - self.low)


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Curves that explain some scores, as draws of equal weight.

    Attributes:
        labels: N, the largest number of training images of a score.
        errors: (D,) E.
        floors: (D,) u.
        rates: (D,) c.
    """

    labels: int
    errors: Floats
    floors: Floats
    rates: Floats

    def errors_at(self, labels: float) -> Floats:
        """Return (D,) the errors of models with so many training images, without the luck of a single training."""
        falling = (labels / self.labels) ** -self.rates
        return self.errors * (self.floors + (1 - self.floors) * falling)

    def error_at(self, labels: float) -> Estimate:
        """Return the error of a model with so many training images, with the luck of a single training."""
        luck = np.random.default_rng(1).normal(0, RUN_STD, len(self.errors))
        return _estimate(np.clip(self.errors_at(labels) + luck, 0, 1))

    def gain(self, labels: float, more: float) -> Estimate:
        """Return by how much the error falls with `more` training images beside `labels`."""
        return _estimate(self.errors_at(labels) - self.errors_at(labels + more))

    def enough(self, gain: float, step: int, most: int) -> int | None:
        """Return from how many training images on `step` more bring less than `gain`; None if it is more than `most`.

        It is at least N.
        """
        labels = self.labels
        while labels <= most:
            if self.gain(labels, step).median < gain:
                return labels
            labels = max(labels + 1, round(labels * 1.02))
        return None


def fit_curve(scores: Sequence[Score]) -> LearningCurve:
    """Fit a learning curve.

    Raises:
        DataError: the scores are of fewer than two numbers of labels.
    """
    counts = sorted({score.labels for score in scores})
    if len(counts) < 2:
        raise DataError(
            "a forecast needs scores of at least two numbers of training images, got "
            f"{', '.join(map(str, counts)) or 'none'}; train again when more images are labelled"
        )
    rng = np.random.default_rng(0)
    errors = rng.uniform(0, 1, DRAWS)
    floors = rng.beta(*FLOOR, DRAWS)
    rates = RATE[0] * np.exp(RATE[1] * rng.normal(size=DRAWS))
    curve = LearningCurve(counts[-1], errors, floors, rates)
    away = np.stack([curve.errors_at(one.labels) - one.error for one in scores])
    explained = np.linalg.solve(_covariance(scores), away)
    log_likelihood = -0.5 * (away * explained).sum(0)
    weights = np.exp(log_likelihood - log_likelihood.max())
    kept = rng.choice(DRAWS, 4000, p=weights / weights.sum())
    return LearningCurve(counts[-1], errors[kept], floors[kept], rates[kept])


def _covariance(scores: Sequence[Score]) -> Floats:
    """Return the (S, S) covariance of S scores around their curve.

    Repeated scores of few images and of more share the variance of the more: the few are among them.
    """
    variances = np.array([score.std**2 for score in scores])
    repeated = np.array([score.is_repeated for score in scores])
    shared: Floats = np.minimum.outer(variances, variances)
    shared *= np.outer(repeated, repeated)
    np.fill_diagonal(shared, variances + RUN_STD**2)
    return shared


def _estimate(values: Floats) -> Estimate:
    low, median, high = np.quantile(values, (LOW, 0.5, HIGH)).tolist()
    return Estimate(median=median, low=low, high=high)
