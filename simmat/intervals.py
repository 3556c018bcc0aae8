"""How far a mean over objects would move with other images: the bootstrap over images.

Objects of one image are seldom independent, so whole images are drawn (a cluster bootstrap; Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, chapters 8 and 13).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

DRAWS = 2000
LEVEL = 0.95


def bootstrap_means(
    images: Iterable[Sequence[float]], rng: np.random.Generator, draws: int = DRAWS
) -> npt.NDArray[np.float64]:
    """Return the mean over objects of as many images as there are, drawn with replacement, again and again.

    Args:
        images: the values of each image's objects; every image has at least one.
        rng: decides the draws.
        draws: how many means.

    Returns:
        (draws,) float64.
    """
    kept = list(images)
    sums = np.array([sum(values) for values in kept], np.float64)
    counts = np.array([len(values) for values in kept], np.float64)
    means = np.empty(draws)
    for draw in range(draws):
        drawn = rng.integers(len(kept), size=len(kept))
        means[draw] = sums[drawn].sum() / counts[drawn].sum()
    return means


def interval_of(means: npt.NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of (draws,) means."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(images: Iterable[Sequence[float]]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean over objects; None where there is one image, or none.

    Args:
        images: the values of each image's objects; every image has at least one.
    """
    kept = list(images)
    return interval_of(bootstrap_means(kept, np.random.default_rng(0))) if len(kept) > 1 else None
