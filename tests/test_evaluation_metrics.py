"""How well masks fit, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from simmat.data.instances import Instance, region_from_mask
from simmat.evaluation.protocol import middle_pixel, resize_nearest
from simmat.evaluation.scores import area_ratio, boundary, boundary_iou, boundary_width, mask_iou
from simmat.types import Window


def square(y0: int, x0: int, side: int) -> Instance:
    return Instance(None, Window(y0, x0, y0 + side, x0 + side), np.ones((side, side), dtype=np.bool_))


def region(mask: list[list[int]]) -> Instance:
    found = region_from_mask(np.asarray(mask, dtype=np.bool_), None)
    assert found is not None
    return found


EVERYWHERE = np.ones((11, 11), dtype=np.bool_)


def test_the_iou_looks_at_scored_pixels_only() -> None:
    """Where there is no ground truth a mask is neither right nor wrong."""
    truth, guess = square(2, 2, 4), square(2, 4, 4)  # 16 each, 8 shared: 8/24
    scored = EVERYWHERE.copy()
    scored[:, 6:] = False  # leaves 16 and 8, 8 shared: 8/16
    for area, iou, ratio in ((EVERYWHERE, 1 / 3, 1), (scored, 1 / 2, 1 / 2)):
        assert mask_iou(guess, truth, area) == pytest.approx(iou)
        assert area_ratio(guess, truth, area) == ratio


def test_nothing_found_is_an_iou_of_zero() -> None:
    """An empty answer is wrong about an object, and it has no box to look at."""
    assert mask_iou(None, square(2, 2, 4), EVERYWHERE) == 0
    assert area_ratio(None, square(2, 2, 4), EVERYWHERE) == 0
    assert mask_iou(square(7, 7, 4), square(2, 2, 4), EVERYWHERE) == 0


@pytest.mark.parametrize(("shared", "union"), [(9, 10), (17, 20)])
def test_an_iou_on_the_target_reaches_it(shared: int, union: int) -> None:
    """In 32 bits 9/10 lies below 0.9, and the click that got there would not count."""
    truth, mask = (region([[1] * count]) for count in (union, shared))
    iou = mask_iou(mask, truth, np.ones((1, 20), dtype=np.bool_))
    assert iou >= shared / union


@pytest.mark.parametrize(("size_hw", "width"), [((480, 640), 16), ((1024, 1024), 29), ((10, 10), 1)])
def test_the_boundary_is_two_percent_of_the_diagonal_wide(size_hw: tuple[int, int], width: int) -> None:
    """480 x 640 has a diagonal of 800; a boundary of no pixel would be no boundary."""
    assert boundary_width(size_hw) == width


@pytest.mark.parametrize(("width", "pixels"), [(1, 24), (2, 40), (3, 48), (4, 49)])
def test_the_boundary_of_a_square_is_its_rings(width: int, pixels: int) -> None:
    """A 7 x 7 square has rings of 24, 16, 8 and 1 pixels."""
    assert boundary(square(2, 2, 7), width).area == pixels


def test_what_lies_beyond_the_image_is_outside() -> None:
    """The authors pad with background, so an object at the border has a boundary there."""
    assert boundary(square(0, 0, 5), 1).area == 16


def test_a_hole_has_a_boundary_too() -> None:
    """A contour of a ring is inside as well as outside."""
    ring = square(1, 1, 9)
    ring.crop[4, 4] = False
    assert boundary(ring, 1).area == 32 + 8


def test_the_boundary_iou_of_a_shifted_square() -> None:
    """Rings of 24 each share the 6 upper and 6 lower pixels: 12/36, where the IoU is 42/56."""
    assert boundary_iou(square(2, 3, 7), square(2, 2, 7), EVERYWHERE, 1) == pytest.approx(12 / 36)


def test_the_edge_of_an_ignored_area_is_not_a_contour() -> None:
    """Cutting the masks before looking for contours would make one where annotators stopped."""
    scored = EVERYWHERE.copy()
    scored[:, 9] = False  # takes the right side of the prediction's ring, 7 of its 24
    assert boundary_iou(square(2, 3, 7), square(2, 2, 7), scored, 1) == pytest.approx(12 / (24 + 17 - 12))


def test_a_boundary_of_which_nothing_is_scored_has_no_figure() -> None:
    """A 0 would count against the model what nobody can judge."""
    assert boundary_iou(square(2, 2, 7), square(2, 2, 7), ~EVERYWHERE, 1) is None
    assert boundary_iou(None, square(2, 2, 7), EVERYWHERE, 1) == 0


@pytest.mark.parametrize(
    ("mask", "xy"),
    [
        ([[0, 0, 0, 1], [1, 1, 1, 0]], (1, 1)),  # number 2 of 4
        ([[1, 1, 0, 0], [0, 0, 0, 1]], (1, 0)),  # number 1 of 3
        ([[0, 0], [0, 1]], (1, 1)),
    ],
)
def test_the_middle_pixel_is_counted_in_raster_order(mask: list[list[int]], xy: tuple[float, float]) -> None:
    """Row by row, as the released code lists a region's pixels; it need not be in the middle of the shape."""
    assert middle_pixel(region(mask)) == xy


def test_a_mask_is_resized_by_the_pixel_under_each_centre() -> None:
    """Labels have no values between, and the corner's rule would shift them by half a pixel against the image."""
    mask = np.asarray([[1, 0, 0, 1]], dtype=np.bool_)
    assert resize_nearest(mask, (2, 2)).tolist() == [[False, True], [False, True]]
    assert resize_nearest(mask, (1, 8)).tolist() == [[True, True, False, False, False, False, True, True]]
