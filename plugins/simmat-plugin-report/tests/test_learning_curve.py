"""A learning curve from a few scores."""

from __future__ import annotations

import numpy as np
import pytest
from simmat_plugin_report.learning_curve import RUN_STD, Score, fit_curve

from simmat.errors import DataError


def scores(*counts: int, floor: float = 0.1, rate: float = 0.5) -> list[Score]:
    """Scores without noise of the law floor + n^-rate."""
    return [Score(count, floor + count**-rate, 0.01) for count in counts]


def test_a_law_is_continued() -> None:
    """Measured with up to 40 images, foretold for 160."""
    truth = 0.1 + 160**-0.5
    found = fit_curve(scores(5, 10, 20, 40)).error_at(160)
    assert found.low < truth < found.high
    assert abs(found.median - truth) < 0.04


def test_the_interval_holds_as_often_as_it_says() -> None:
    """Of many noisy curves, 8 of 10 must end inside."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(40):
        floor, rate = rng.uniform(0, 0.2), rng.uniform(0.3, 0.9)
        noisy = []
        for one in scores(4, 8, 16, floor=floor, rate=rate):
            error = one.error + rng.normal(0, np.hypot(0.03, RUN_STD))
            noisy.append(Score(one.labels, float(np.clip(error, 0, 1)), 0.03))
        truth = floor + 64**-rate + rng.normal(0, RUN_STD)
        found = fit_curve(noisy).error_at(64)
        inside += found.low <= truth <= found.high
    assert 0.65 <= inside / 40 <= 0.98


def test_an_image_that_validates_again_and_again_counts_once() -> None:
    """One hard image beside three fresh scores; runs that repeat it must not outvote them."""
    fresh = [Score(count, 0.3, 0.1) for count in (3, 5, 7)]
    once = fit_curve([*fresh, Score(10, 0.9, 0.15, is_repeated=True)])
    repeated = [Score(count, 0.9, 0.15, is_repeated=True) for count in (3, 5, 7, 10)]
    again = fit_curve([*fresh, *repeated])
    assert again.error_at(10).median == pytest.approx(
        once.error_at(10).median, abs=0.02
    )
    fooled = fit_curve([*fresh, *[Score(s.labels, 0.9, 0.15) for s in repeated]])
    assert fooled.error_at(10).median > again.error_at(10).median + 0.1


def test_it_is_enough_where_the_gain_is_small() -> None:
    """A flat curve ends the work at once, a steep one later."""
    flat = fit_curve([Score(20, 0.1, 0.01), Score(40, 0.1, 0.01), Score(80, 0.1, 0.01)])
    assert flat.enough(0.02, 20, 8000) == 80
    later = fit_curve(scores(5, 10, 20)).enough(0.02, 20, 8000)
    assert later is not None
    assert later > 20


def test_one_number_of_labels_is_refused() -> None:
    """A point has no direction."""
    with pytest.raises(
        DataError, match="at least two numbers of training images, got 5"
    ):
        fit_curve(scores(5, 5))
