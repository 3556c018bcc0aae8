"""Clicks and boxes as the protocol defines them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from simmat.data.instances import (
    center_click,
    corrective_click,
    jitter_box,
    random_click,
    region_from_mask,
    tight_box,
)
from simmat.errors import DataError


def blob(seed: int) -> np.ndarray:
    """A ragged mask that may touch the border and have several pieces."""
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.standard_normal((31, 43)), 3) > 0.02


@pytest.mark.parametrize("seed", range(5))
def test_center_is_the_padded_distance_maximum_of_the_whole_image(seed: int) -> None:
    """The crop is for speed only; published scores depend on this very pixel."""
    mask = blob(seed)
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.argwhere(distance == distance.max())[0]
    assert center_click(mask) == (column, row)


def test_image_border_counts_as_outside() -> None:
    """An object cut by the border is clicked in its visible middle, not at the edge."""
    mask = np.zeros((5, 9), dtype=np.bool_)
    mask[:, :5] = True
    assert center_click(mask) == (2, 2)


def test_first_in_raster_order_wins_among_equals() -> None:
    """Everyone has to click the same pixel of a symmetric object."""
    mask = np.zeros((6, 6), dtype=np.bool_)
    mask[1:3, 2:4] = True
    assert center_click(mask) == (2, 1)


def test_random_clicks_are_on_the_region_and_reach_all_of_it() -> None:
    """A click beside the object teaches the opposite."""
    mask = np.asarray([[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]], dtype=np.bool_)
    rng = np.random.default_rng(0)
    assert {random_click(mask, rng) for _ in range(60)} == {(2, 1), (1, 2), (2, 2)}


@pytest.mark.parametrize("click", [center_click, tight_box])
def test_empty_mask_has_no_click(click: object) -> None:
    """argmax of nothing is pixel 0, which is no answer."""
    with pytest.raises(DataError, match="empty mask"):
        click(np.zeros((3, 3), dtype=np.bool_))  # type: ignore[operator]


def corrected(
    truth: np.ndarray, prediction: np.ndarray, ignore: np.ndarray | None = None
) -> object:
    region = region_from_mask(truth, None)
    assert region is not None
    ignore = np.zeros(truth.shape, np.bool_) if ignore is None else ignore
    return corrective_click(region, region_from_mask(prediction, None), ignore)


def test_correction_clicks_the_largest_error() -> None:
    """A person fixes the worst first: here the false 3 by 3 square, not two smaller misses that are larger in sum."""
    truth, prediction = np.zeros((2, 9, 20), dtype=np.bool_)
    truth[0:2, 0:3] = truth[0:2, 10:13] = True
    prediction[4:7, 5:8] = True
    assert corrected(truth, prediction) == ((6, 5), 0)


def test_correction_prefers_what_is_missing_among_equals() -> None:
    """A tie has to have one answer."""
    truth, prediction = np.zeros((2, 5, 12), dtype=np.bool_)
    prediction[1:4, 1:4] = True
    truth[1:4, 7:10] = True
    assert corrected(truth, prediction) == ((8, 2), 1)


def test_correction_does_not_look_at_ignored_pixels() -> None:
    """Where there is no truth there is no error."""
    truth, prediction = np.zeros((2, 4, 4), dtype=np.bool_)
    prediction[0:2] = truth[3] = prediction[3] = True
    assert corrected(truth, prediction, ignore=prediction) is None


def test_nothing_wrong_gives_no_click() -> None:
    """The loop over clicks ends here."""
    assert corrected(blob(0), blob(0)) is None


def test_tight_box_ends_after_the_last_pixel() -> None:
    """A one-pixel object has a box of width 1, as Prompt demands."""
    mask = np.zeros((4, 6), dtype=np.bool_)
    mask[2, 3:5] = True
    assert tight_box(mask).tolist() == [3, 2, 5, 3]


def test_jitter_stays_in_reach_inside_the_image_and_a_box() -> None:
    """Ten per cent and twenty pixels are the protocol; a box turned inside out is no prompt."""
    rng = np.random.default_rng(0)
    box = np.asarray([0, 50, 400, 90], dtype=np.float32)
    moved = np.stack([jitter_box(box, (95, 410), rng) for _ in range(500)])
    assert (np.abs(moved - box).max(axis=0) <= [20, 4, 20, 4]).all()
    assert (np.abs(moved - box).max(axis=0) > [15, 3, 9, 3]).all()
    assert moved.min() >= 0
    assert (moved[:, 2] <= 410).all()
    assert (moved[:, :2] < moved[:, 2:]).all()
    assert moved.dtype == np.float32
