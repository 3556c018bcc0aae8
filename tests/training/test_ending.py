"""When an open end is decided, and where it lies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simmat.training.ending import Ending, OpenEnd
from simmat.training.step import learning_rate

END = OpenEnd(fewest=100, most=1000, rise=0.01, cooldown=0.25)


def test_a_score_that_rises_trains_to_the_last_step() -> None:
    """A stop before would lose what the training still learns."""
    rising = [0.02 * count for count in range(40)]
    assert END.ending(rising, 25) == Ending(cooldown=800, steps=1000)


def test_a_score_that_stands_still_ends_the_training_with_a_cooldown() -> None:
    """The rate falls for a quarter of the steps before."""
    scores = [0.1, 0.4, 0.6, 0.7, 0.8, 0.8, 0.8]
    assert END.ending(scores[:6], 25) == Ending(800, 1000)  # it still rises
    flat = [*scores, 0.8, 0.8]
    assert END.ending(flat, 25) == Ending(800, 1000)  # only once without a rise
    assert END.ending([*flat, 0.8], 25) == Ending(cooldown=225, steps=282)


@pytest.mark.parametrize("val_every", [1, 7, 25, 100, 5000])
def test_no_score_ends_a_training_outside_of_its_bounds(val_every: int) -> None:
    """The number of steps, shown before the first one, holds whatever the data."""
    rng = np.random.default_rng(val_every)
    for _ in range(50):
        count = int(rng.integers(0, 60))
        found = END.ending(rng.random(count).tolist(), val_every)
        assert END.fewest <= found.steps <= END.most
        assert 0 < found.cooldown < found.steps


def test_later_scores_never_move_an_end_that_is_decided() -> None:
    """The rate already falls: a resumed run, which knows more scores, would fall at other steps."""
    rng = np.random.default_rng(0)
    scores = np.cumsum(rng.random(60) * 0.1 * 0.8 ** np.arange(60)).tolist()
    ends = [END.ending(scores[:count], 10) for count in range(len(scores) + 1)]
    decided = [end for end in ends if end.steps < END.most]
    assert decided
    assert len(set(decided)) == 1
    assert ends[-1] == decided[0]


def test_a_single_high_or_low_score_decides_nothing() -> None:
    """Scores of few images at a constant rate jump by chance, up and down."""
    rising = [0.23, 0.36, 0.36, 0.43, 0.51, 0.62, 0.59, 0.58, 0.56]
    assert END.ending(rising, 25).steps == END.most
    flat = [0.1, 0.7, 0.8, 0.8, 0.8, 0.95, 0.8, 0.8, 0.8]
    assert END.ending(flat, 25).steps <= 250


def test_the_rate_stays_at_its_peak_and_falls_in_the_cooldown() -> None:
    """Warm-up, constant rate, cool-down, as in arXiv 2405.18392."""

    def rate(step: int, cooldown: int, steps: int) -> float:
        return learning_rate(
            step,
            peak=1.0,
            steps=steps,
            warmup=20,
            cooldown=cooldown,
            schedule="cosine",
        )

    open_end = [rate(step, 800, 1000) for step in range(150)]
    assert open_end[0] == 1 / 20
    assert open_end[20:] == [1.0] * 130
    falling = [rate(step, 150, 188) for step in range(150, 188)]
    assert falling[0] == 1.0
    assert falling == sorted(falling, reverse=True)
    assert 0.01 < falling[-1] < 0.02
    # a fixed number of steps has the cosine as ever
    assert rate(100, 0, 180) == pytest.approx(
        0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2))
    )
