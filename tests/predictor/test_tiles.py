"""Windows over a large image: they cover it, and what they say becomes one answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from simmat.data.instances import FoundObject, Instance, region_from_mask
from simmat.predictor.tiles import ClassMapBlender, merge_objects, plan_windows
from simmat.types import Window


@pytest.mark.parametrize("size_hw", [(5, 7), (16, 16), (17, 40), (64, 33)])
def test_windows_cover_every_pixel(size_hw: tuple[int, int]) -> None:
    """A pixel that no window holds would have no answer."""
    seen = np.zeros(size_hw, int)
    for y0, x0, y1, x1 in plan_windows(size_hw, 16, 4):
        seen[y0:y1, x0:x1] += 1
    assert seen.min() >= 1


@pytest.mark.parametrize("size_hw", [(10, 10), (16, 50), (50, 61)])
def test_windows_that_agree_give_the_class_map_of_the_whole(
    size_hw: tuple[int, int],
) -> None:
    """Blending adds no seam: where all windows say the same, it is what they say."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(3), size_hw).transpose(2, 0, 1).astype(np.float32)
    blender = ClassMapBlender(size_hw, 16, 5, 3)
    bands = [
        band
        for y0, x0, y1, x1 in plan_windows(size_hw, 16, 5)
        for band in blender.add(chances[:, y0:y1, x0:x1])
    ]
    starts, probabilities = zip(*bands, strict=True)
    np.testing.assert_allclose(
        np.concatenate(probabilities, axis=1), chances, atol=1e-6
    )
    assert (
        list(starts)
        == np.cumsum([0, *(band.shape[1] for band in probabilities[:-1])]).tolist()
    )


def _blobs(size_hw: tuple[int, int], seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=size_hw), 3)
    return ndimage.label(noise > np.quantile(noise, 0.8))[0]


def _join(numbered: np.ndarray, tile: int, overlap: int) -> list[FoundObject]:
    windows = plan_windows(numbered.shape, tile, overlap)
    found = []
    for window in windows:
        part = numbered[window.y0 : window.y1, window.x0 : window.x1]
        seen = []
        for value in np.unique(part[part > 0]):
            for number in range(1, ndimage.label(part == value)[1] + 1):
                region = region_from_mask(
                    ndimage.label(part == value)[0] == number, None
                )
                assert region is not None
                seen.append(
                    FoundObject(region, 0.5, (0, 0)).shifted(window.y0, window.x0)
                )
        found.append(seen)
    return merge_objects(windows, found)


@pytest.mark.parametrize("seed", range(4))
def test_objects_that_borders_cut_are_joined(seed: int) -> None:
    """Every object comes out once and whole, wherever the borders lie."""
    numbered = _blobs((90, 110), seed)
    found = _join(numbered, 40, 20)
    masks = {one.instance.mask(numbered.shape).tobytes() for one in found}
    whole = {
        (numbered == value).tobytes() for value in range(1, int(numbered.max()) + 1)
    }
    assert len(found) == len(whole)
    assert masks == whole


def test_objects_beside_each_other_stay_two() -> None:
    """What only touches is not one object."""
    numbered = np.zeros((30, 60), int)
    numbered[10:20, 20:30], numbered[10:20, 30:40] = 1, 2
    assert len(_join(numbered, 32, 12)) == 2


def test_the_better_part_names_the_class() -> None:
    """Of two windows the surer one decides."""
    crop = np.ones((4, 8), np.bool_)
    first = FoundObject(Instance(1, Window(4, 8, 8, 16), crop), 0.4, (8, 4))
    second = FoundObject(Instance(2, Window(4, 8, 8, 16), crop), 0.9, (8, 4))
    (one,) = merge_objects(plan_windows((16, 24), 16, 8), [[first], [second]])
    assert (one.instance.class_id, one.score) == (2, 0.9)
