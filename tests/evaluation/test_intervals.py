"""Intervals of a mean by drawing images, against what statistics says they are."""

from __future__ import annotations

import numpy as np
import pytest

from simmat.evaluation import mean_interval


def test_with_one_object_an_image_it_is_nearly_the_interval_of_the_mean() -> None:
    """For many independent values the bootstrap comes to mean ± 1.96 standard errors."""
    values = np.random.default_rng(5).random(400)
    low, high = mean_interval([[value] for value in values]) or (0.0, 0.0)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_objects_of_one_image_are_drawn_together() -> None:
    """Ten copies of each image's object say no more than one does."""
    values = np.random.default_rng(6).random(30)
    alone = mean_interval([[value] for value in values])
    assert alone is not None
    assert mean_interval([[value] * 10 for value in values]) == pytest.approx(alone)
    narrow = mean_interval([[value] for value in np.repeat(values, 10)])
    assert narrow is not None
    assert alone[1] - alone[0] > 2 * (narrow[1] - narrow[0])


def test_images_weigh_by_their_objects() -> None:
    """The mean is over objects: an image of many moves it more."""
    low, high = mean_interval([[1.0] * 9, [0.0]] * 40) or (0.0, 0.0)
    assert 0.8 < low < 0.9 < high < 0.95


def test_one_image_has_no_interval() -> None:
    """Drawn again it is the same image, and an interval of width 0 would be a lie."""
    assert mean_interval([[0.1, 0.9]]) is None
    assert mean_interval([]) is None
