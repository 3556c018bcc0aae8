"""Where the pixels of an image lie in a network's input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simmat.data.instances import center_click, tight_box
from simmat.data.pipeline import resize_planes
from simmat.types import Letterbox, not_nodata

SHAPES = [
    ((1024, 1024), 256, "pad"),
    ((480, 640), 256, "pad"),
    ((61, 97), 128, "pad"),
    ((61, 97), 128, "stretch"),
]


@pytest.mark.parametrize(("size_hw", "size", "aspect"), SHAPES, ids=str)
def test_the_centre_of_a_pixel_goes_to_its_centre_in_the_input(
    size_hw: tuple[int, int], size: int, aspect
) -> None:
    """Corners of the image are edges of its outermost pixels, in the original and in the input."""
    letterbox = Letterbox(size_hw, size, aspect)
    height, width = size_hw
    scaled_height, scaled_width = letterbox.scaled_hw
    corners = np.asarray([[-0.5, -0.5], [width - 0.5, height - 0.5]])
    expected = np.asarray([[-0.5, -0.5], [scaled_width - 0.5, scaled_height - 0.5]])
    np.testing.assert_allclose(letterbox.points_to_input(corners), expected, atol=1e-4)


@pytest.mark.parametrize("place", range(24))
def test_a_click_on_a_small_object_stays_on_it(place: int) -> None:
    """Five pixels wide in a large image, hardly two in the input: half a pixel decides whether it is hit."""
    rng = np.random.default_rng(place)
    cx, cy = rng.integers(20, 1000, 2)
    y, x = np.mgrid[0:1024, 0:1024]
    disc = (x - cx) ** 2 + (y - cy) ** 2 <= 4
    letterbox = Letterbox((1024, 1024), 256)
    plane = torch.from_numpy(disc[None].astype(np.float32))
    small = resize_planes(plane, torch.ones_like(plane, dtype=torch.bool), letterbox)[
        0
    ].numpy()
    u, v = letterbox.points_to_input(np.asarray(center_click(disc)))
    assert small[round(float(v)), round(float(u))] > 0.3 * small.max()


def test_a_box_keeps_to_the_edges_of_its_pixels() -> None:
    """A box around the whole image is the whole content of the input."""
    letterbox = Letterbox((300, 400), 200)
    box = tight_box(np.ones((300, 400), bool))
    np.testing.assert_allclose(
        letterbox.boxes_to_input(box), [0, 0, 200, 150], atol=1e-4
    )


def test_where_no_number_means_missing_all_pixels_are_valid() -> None:
    """A reader combines it with what its file marks as missing, with or without --nodata."""
    stored = np.asarray([[[0, 7], [9, 7]]], np.uint16)
    assert (not_nodata(stored, None) & (stored != 9)).tolist() == [
        [[True, True], [False, True]]
    ]
    assert not_nodata(stored, 7, None, 9).tolist() == [[[True, False], [False, False]]]
    assert not_nodata(stored).dtype == np.bool_
