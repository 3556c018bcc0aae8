"""Views of many small things alike: what is shown is what is asked for, and neighbours are apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, label
from simmat_plugin_lite import copies as module
from simmat_plugin_lite.batches import BatchPlan, RegionBatches
from simmat_plugin_lite.copies import SMALLEST_PX, many_copies, random_shape
from simmat_plugin_lite.regions import Photo, read_photos
from simmat_plugin_lite.views import View, cut_object, mosaic, view_of


@pytest.fixture
def photo(regions_folder: Path) -> Photo:
    """Two discs, one and two times as bright, on dark noise."""
    return next(photo for photo in read_photos(regions_folder, "train") if photo.source == "horses")


def _ground(rows: int = 96, size: int = 128) -> View:
    """A plain grey frame; what lies below the first rows is padding."""
    content = np.zeros((size, size), bool)
    content[:rows] = True
    return View(np.where(content[..., None], np.uint8(90), np.uint8(0)).repeat(3, -1), content, [], [])


@pytest.mark.parametrize("shapes", [0.0, 1.0])
def test_every_thing_is_a_region_of_its_own(photo: Photo, shapes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """None leaves the content or is too small to be clicked."""
    monkeypatch.setattr(module, "_SHAPES", shapes)
    for seed in range(20):
        view = many_copies(_ground(), photo, np.random.default_rng(seed))
        assert len(view.regions) >= 2
        assert len(view.weights) == len(view.regions)
        stack = np.stack(view.regions)
        assert stack.sum((1, 2)).min() >= SMALLEST_PX
        assert not (stack & ~view.content).any()
        assert not view.image[~view.content].any()


def test_what_is_asked_for_is_what_is_seen(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a ground without structure every pixel that differs from it, but for soft borders, is in a region."""
    monkeypatch.setattr(module, "_SHAPES", 0.0)
    for seed in range(20):
        view = many_copies(_ground(128), photo, np.random.default_rng(seed))
        covered = np.any(view.regions, axis=0)
        elsewhere = view.image[view.content & ~binary_dilation(covered, iterations=3)]
        share = (elsewhere == np.median(elsewhere, axis=0)).mean() if len(elsewhere) else 1.0
        assert share > 0.9, seed
        assert (view.image[covered].astype(int) != np.median(elsewhere, axis=0)).any(-1).mean() > 0.9, seed


def _closely(photo: Photo) -> float:
    """Part of the things of twenty views that lie within three pixels of another."""
    close = total = 0
    for seed in range(20):
        regions = many_copies(_ground(), photo, np.random.default_rng(seed)).regions
        for index, region in enumerate(regions):
            others = np.any(regions[:index] + regions[index + 1 :], axis=0)
            close += bool((binary_dilation(region, iterations=3) & others).any())
            total += 1
    return close / total


def test_things_are_put_close_to_others(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Touching neighbours are what photographs lack; chance alone gives fewer."""
    near = _closely(photo)
    monkeypatch.setattr(module, "_NEAR", 0.0)
    assert near > _closely(photo) + 0.1


def test_things_hide_little_of_each_other(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of one that others hide is no thing; where much may be hidden, more is in pieces or small."""
    monkeypatch.setattr(module, "_SHAPES", 0.0)

    def broken() -> int:
        views = [many_copies(_ground(), photo, np.random.default_rng(seed)) for seed in range(20)]
        return sum(int(label(region, np.ones((3, 3)))[1]) > 1 for view in views for region in view.regions)

    few = broken()
    monkeypatch.setattr(module, "_OVERLAP", 0.9)
    assert few < broken()


def test_the_ground_of_a_frame_with_padding_stays_as_bright_towards_it(photo: Photo) -> None:
    """Blurred together with the black padding it would darken, as no sensor's image does."""
    for seed in range(20):
        view = many_copies(_ground(), photo, np.random.default_rng(seed))
        plain = ~binary_dilation(np.any(view.regions, axis=0), iterations=3) & view.content
        if plain[:64].any() and plain[88:96].any():
            upper, lower = np.median(view.image[:64][plain[:64]]), np.median(view.image[88:96][plain[88:96]])
            assert abs(upper - lower) < 3, seed


@pytest.mark.parametrize("size_hw", [(10, 40), (16, 16), (3, 3)])
def test_a_small_photograph_fills_shapes_too(size_hw: tuple[int, int]) -> None:
    """One of a user's own photographs must not end a run."""
    small = Photo(("s",), np.full((*size_hw, 3), 200, np.uint8), (np.ones(size_hw, np.uint8),), "own", False)
    assert random_shape(small, np.random.default_rng(0)).mask.any()


def test_what_a_view_holds_already_is_no_region_any_more(photo: Photo) -> None:
    """The ground is blurred and covered; nobody can say where its objects end."""
    ground = view_of(photo, 128, np.random.default_rng(0), 16, zoom=0.0)
    view = many_copies(ground, photo, np.random.default_rng(0))
    assert max(region.sum() for region in view.regions) < min(region.sum() for region in ground.regions)


def test_gaps_of_a_mosaic_stay_empty(photo: Photo) -> None:
    """What is asked for there would be black."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        ground = mosaic([view_of(photo, 64, rng, 16, 0.5) for _ in range(4)], 128)
        view = many_copies(ground, photo, rng)
        assert not view.image[~view.content].any()
        assert not any((region & ~view.content).any() for region in view.regions)


def test_a_photograph_without_objects_leaves_the_view_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to copy."""
    monkeypatch.setattr(module, "_SHAPES", 0.0)
    empty = Photo(("e",), np.zeros((64, 64, 3), np.uint8), (np.zeros((64, 64), np.uint8),), "coco", False)
    assert cut_object(empty, np.random.default_rng(0)) is None
    ground = _ground()
    assert many_copies(ground, empty, np.random.default_rng(0)) is ground


def test_shapes_are_one_piece_of_many_forms(photo: Photo) -> None:
    """Round ones and long ones; their box is tight."""
    ratios = []
    for seed in range(30):
        shape = random_shape(photo, np.random.default_rng(seed))
        assert shape.image.shape == (*shape.mask.shape, 3)
        assert label(shape.mask, np.ones((3, 3)))[1] == 1
        assert all(edge.any() for edge in (shape.mask[0], shape.mask[-1], shape.mask[:, 0], shape.mask[:, -1]))
        ratios.append(max(shape.mask.shape) / min(shape.mask.shape))
    assert min(ratios) < 1.3
    assert max(ratios) > 2.5


def test_a_batch_shows_copies_as_often_as_it_is_told(regions_folder: Path) -> None:
    """With 1 in every view: all regions are small; with 0 in none."""
    photos = read_photos(regions_folder, "train")
    areas = {
        share: RegionBatches(photos, BatchPlan(8, 2, 128, small=0, copies=share, mosaic=0, paste=0), seed=0)
        .batch(0)["region"]
        .sum((1, 2))
        for share in (0.0, 1.0)
    }
    assert areas[1.0].float().mean() < 0.3 * areas[0.0].float().mean()
