"""Outlines are exact: filled again, they give the mask to the pixel."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from simmat_plugin_convert.outlines import one_polygon, part_polygons

from simmat.data.formats.coco import draw_segmentation
from simmat.data.instances import Instance
from simmat.types import BoolArray, Window

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(
    lambda mask: bool(mask.any())
)


def filled(polygons: list[list[float]], size_hw: tuple[int, int]) -> BoolArray:
    return draw_segmentation(polygons, size_hw)


@given(mask=MASKS, corner=st.tuples(st.integers(0, 5), st.integers(0, 5)))
@settings(max_examples=60, deadline=None)
def test_polygons_give_the_mask_again(mask: BoolArray, corner: tuple[int, int]) -> None:
    """Holes, pieces and pixels that touch at a corner must survive formats that know polygons alone."""
    (y, x), (height, width) = corner, mask.shape
    instance = Instance(1, Window(y, x, y + height, x + width), mask)
    size_hw = (y + height + 2, x + width + 3)
    for rings in (part_polygons(instance), [one_polygon(instance)]):
        drawn = filled([ring.ravel().tolist() for ring in rings], size_hw)
        np.testing.assert_array_equal(drawn, instance.mask(size_hw))


def test_a_rectangle_has_four_corners() -> None:
    """A corner at every pixel would make labels that nobody can drag."""
    (ring,) = part_polygons(Instance(1, Window(2, 3, 5, 9), np.ones((3, 6), np.bool_)))
    assert sorted(ring.tolist()) == [[3, 2], [3, 5], [9, 2], [9, 5]]


def test_thousands_of_holes_take_no_time() -> None:
    """Corners that were compared with all others grew with the cube of the holes: 20 s for this mask."""
    mask = np.ones((301, 301), np.bool_)
    # 5625 pairs of holes that touch at a corner
    mask[1::4, 1::4] = mask[2::4, 2::4] = False
    began = time.process_time()
    (ring,) = part_polygons(Instance(1, Window(0, 0, 301, 301), mask))
    assert time.process_time() - began < 8
    np.testing.assert_array_equal(filled([ring.ravel().tolist()], mask.shape), mask)
