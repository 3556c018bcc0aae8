"""How well masks fit, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from simmat.data.instances import Instance, region_from_mask
from simmat.evaluation.prompts import resize_nearest
from simmat.evaluation.scores import boundary_iou, boundary_width, mask_iou
from simmat.types import Window


def square(y0: int, x0: int, side: int) -> Instance:
    return Instance(
        None,
        Window(y0, x0, y0 + side, x0 + side),
        np.ones((side, side), dtype=np.bool_),
    )


def region(mask: list[list[int]]) -> Instance:
    found = region_from_mask(np.asarray(mask, dtype=np.bool_), None)
    assert found is not None
    return found


EVERYWHERE = np.ones((11, 11), dtype=np.bool_)


@pytest.mark.parametrize(("shared", "union"), [(9, 10), (17, 20)])
def test_an_iou_on_the_target_reaches_it(shared: int, union: int) -> None:
    """In 32 bits 9/10 lies below 0.9, and the click that got there would not count."""
    truth, mask = (region([[1] * count]) for count in (union, shared))
    iou = mask_iou(mask, truth, np.ones((1, 20), dtype=np.bool_))
    assert iou >= shared / union


@pytest.mark.parametrize(
    ("size_hw", "width"), [((480, 640), 16), ((1024, 1024), 29), ((10, 10), 1)]
)
def test_the_boundary_is_two_percent_of_the_diagonal_wide(
    size_hw: tuple[int, int], width: int
) -> None:
    """480 x 640 has a diagonal of 800; a boundary of no pixel would be no boundary."""
    assert boundary_width(size_hw) == width


def test_the_boundary_iou_of_a_shifted_square() -> None:
    """Rings of 24 each share the 6 upper and 6 lower pixels: 12/36, where the IoU is 42/56."""
    assert boundary_iou(
        square(2, 3, 7), square(2, 2, 7), EVERYWHERE, 1
    ) == pytest.approx(12 / 36)


@pytest.mark.parametrize(
    ("mask", "number", "xy"),
    [
        ([[0, 0, 0, 1], [1, 1, 1, 0]], 2, (1, 1)),
        ([[1, 1, 0, 0], [0, 0, 0, 1]], 1, (1, 0)),
        ([[0, 0], [0, 1]], 0, (1, 1)),
    ],
)
def test_pixels_are_numbered_in_raster_order(
    mask: list[list[int]], number: int, xy: tuple[float, float]
) -> None:
    """Row by row, as the released code lists a region's pixels, the middle one of which it clicks."""
    assert region(mask).pixel_xy(number) == xy


def test_a_mask_is_resized_by_the_pixel_under_each_centre() -> None:
    """Labels have no values between, and the corner's rule would shift them by half a pixel against the image."""
    mask = np.asarray([[1, 0, 0, 1]], dtype=np.bool_)
    assert resize_nearest(mask, (2, 2)).tolist() == [[False, True], [False, True]]
    assert resize_nearest(mask, (1, 8)).tolist() == [
        [True, True, False, False, False, False, True, True]
    ]
