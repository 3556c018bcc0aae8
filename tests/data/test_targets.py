"""`simmat.data.targets`: regions at the size of the input."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from simmat.data.instances import pixels_under_centres, region_from_mask
from simmat.data.pipeline import resize_planes
from simmat.data.targets import resized_region
from simmat.types import Aspect, Letterbox


@pytest.mark.parametrize(("size", "scaled"), [(26, 23), (30, 11), (48, 44), (52, 23), (7, 7), (3, 9)])
def test_a_centre_on_the_border_of_two_pixels_lies_in_the_second(size: int, scaled: int) -> None:
    """Class maps, ignored pixels, scores and pictures agree on the pixel, however its number would be rounded."""
    expected = [int(Fraction(2 * place + 1, 2) * size / scaled) for place in range(scaled)]
    assert pixels_under_centres(size, scaled).tolist() == expected


@pytest.mark.parametrize("aspect", ["pad", "stretch"])
@pytest.mark.parametrize("size_hw", [(51, 64), (100, 37), (32, 32), (9, 7), (200, 3), (1, 90)])
def test_a_region_covers_what_its_resized_mask_does(size_hw: tuple[int, int], aspect: Aspect) -> None:
    """Targets are those of the resizing of images, wherever the region is and whether it shrinks or grows."""
    letterbox, rng = Letterbox(size_hw, 32, aspect), np.random.default_rng(0)
    masks, regions = [], []
    for _ in range(20):
        y0, x0 = (int(rng.integers(length)) for length in size_hw)
        y1, x1 = int(rng.integers(y0, size_hw[0])) + 1, int(rng.integers(x0, size_hw[1])) + 1
        mask = np.zeros(size_hw, np.bool_)
        mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < 0.7
        if (region := region_from_mask(mask, None)) is not None:
            masks.append(mask)
            regions.append(region)
    for mask, region in zip(masks, regions, strict=True):
        plane = torch.from_numpy(mask[None].astype(np.float32))
        covered = resize_planes(plane, torch.ones_like(plane, dtype=torch.bool), letterbox)[0].numpy()
        threshold = min(0.5, covered.max() * 0.999)
        clear = abs(covered - threshold) > 1e-5  # rounding decides the rest
        found = resized_region(region, letterbox).mask((32, 32))
        assert np.array_equal(found[clear], covered[clear] > threshold)
