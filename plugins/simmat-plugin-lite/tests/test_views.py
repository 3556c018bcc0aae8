"""Views of photographs: what is shown is what is asked for, and neighbours are apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretraining import copies, views
from pretraining.copies import SMALLEST_PX, many_copies, random_shape
from pretraining.photographs import Photo, cut_object, read_photo
from pretraining.photometry import recolour
from pretraining.views import Views, mosaic, paste, write_views
from scipy.ndimage import binary_dilation, label

import simmat
from simmat.errors import DataError


@pytest.fixture(scope="module")
def photos(regions_folder: Path) -> dict[str, Photo]:
    """One photograph of each source: two discs, one and two times as bright, on dark noise."""
    dataset = simmat.open_dataset(regions_folder, "rgb", regions="instances")
    return {sample.extra["source"]: read_photo(dataset, sample, 256) for sample in dataset.split("train")}


@pytest.fixture(scope="module")
def photo(photos: dict[str, Photo]) -> Photo:
    return photos["horses"]


def grey(size_hw: tuple[int, int] = (160, 200)) -> Photo:
    """A plain frame without regions."""
    return Photo(np.full((*size_hw, 3), 90, np.uint8), np.zeros(size_hw, np.uint16))


def test_zero_is_a_region_only_where_the_photograph_says_so(photos: dict[str, Photo]) -> None:
    """Where 0 may hold unmarked objects, nothing is claimed about it."""
    assert {source: int(photo.labels.max()) for source, photo in photos.items()} == {
        source: 3 if source == "bsds" else 2 for source in photos
    }


def test_a_large_photograph_is_read_small(regions_folder: Path) -> None:
    """A view of twelve megapixels would cost the training as much again and again."""
    dataset = simmat.open_dataset(regions_folder, "rgb", regions="instances")
    small = read_photo(dataset, dataset.split("train")[0], 32)
    assert small.image.shape == (32, 48, 3)
    assert len(small.regions(100)[0]) == 2


def test_a_view_depends_on_seed_and_place_alone(regions_folder: Path) -> None:
    """A data set that is made again after a crash must be the same."""
    first, other = Views(regions_folder, 6, 64, seed=1), Views(regions_folder, 6, 64, seed=2)
    again = Views(regions_folder, 6, 64, seed=1)[5]
    assert np.array_equal(first[5].image, again.image)
    assert np.array_equal(first[5].labels, again.labels)
    assert not np.array_equal(first[5].image, other[5].image)


def test_views_are_a_data_set_whose_val_split_is_the_photographs(regions_folder: Path, tmp_path: Path) -> None:
    """Validation on changed photographs would say little about true ones."""
    write_views(regions_folder, tmp_path / "views", 5, 64, seed=0)
    dataset = simmat.open_dataset(tmp_path / "views", "rgb")
    assert [len(dataset.split(split)) for split in ("train", "val")] == [5, 4]
    assert all(dataset.label(sample, dataset.image(sample)).regions for sample in dataset.samples)
    original = simmat.open_dataset(regions_folder, "rgb", regions="instances")
    kept, true = (one.image(one.split("val")[0]).data for one in (dataset, original))
    assert np.array_equal(kept, true)


def test_photographs_without_any_region_are_refused(regions_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing would go on for ever."""
    empty = grey()
    monkeypatch.setattr(views, "read_photo", lambda *given: empty)
    monkeypatch.setattr(copies, "_SHAPES", 0.0)
    with pytest.raises(DataError, match=r"show no region.*zero_means"):
        _ = Views(regions_folder, 1, 64, seed=0)[0]


def test_the_whole_is_cut_out_where_regions_are_its_parts(photos: dict[str, Photo]) -> None:
    """Clothes are parts of a person; half a person pasted elsewhere is no object."""
    whole, one = (cut_object(photos[source], np.random.default_rng(0)) for source in ("ccp", "horses"))
    assert whole is not None
    assert one is not None
    assert whole.mask.sum() == 2 * one.mask.sum()


def test_a_mosaic_shows_every_region_of_its_parts(photo: Photo) -> None:
    """Equal numbers of two photographs are not one region."""
    frame = mosaic([photo] * 4, 128, np.random.default_rng(0))
    found = [label(frame.labels == number)[1] for number in frame.regions(1)[0]]
    assert len(found) >= 4
    assert set(found) == {1}


def test_a_pasted_object_is_a_region_and_hides_what_it_covers(photo: Photo) -> None:
    """What is asked for must be what is seen."""
    pasted = 0
    for seed in range(40):
        view = paste(grey(), photo, np.random.default_rng(seed))
        changed = (view.image != 90).any(-1)
        assert not (changed & ~binary_dilation(view.labels > 0, iterations=6)).any()  # soft borders
        pasted += bool(view.labels.any())
    assert pasted > 10
    covered = paste(replace(photo, labels=np.ones_like(photo.labels)), photo, np.random.default_rng(1))
    assert sorted(np.unique(covered.labels)) == [1, 2]


@pytest.mark.parametrize("shapes", [0.0, 1.0])
def test_every_copy_is_a_region_of_its_own(photo: Photo, shapes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a ground without structure every pixel that differs from it, but for soft borders, is in a region."""
    monkeypatch.setattr(copies, "_SHAPES", shapes)
    for seed in range(20):
        view = many_copies(grey(), photo, np.random.default_rng(seed))
        assert len(view.regions(1)[0]) >= 2, seed
        elsewhere = view.image[~binary_dilation(view.labels > 0, iterations=3)]
        assert (elsewhere == np.median(elsewhere, axis=0)).mean() > 0.9, seed
        assert (view.image[view.labels > 0].astype(int) != np.median(elsewhere, axis=0)).any(-1).mean() > 0.9, seed


@pytest.mark.slow
def test_copies_are_put_close_to_others(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Touching neighbours are what photographs lack; chance alone gives fewer."""

    def closely() -> float:
        close = []
        for seed in range(20):
            labels = many_copies(grey(), photo, np.random.default_rng(seed)).without_small(SMALLEST_PX).labels
            for number in np.unique(labels[labels > 0]):
                around = binary_dilation(labels == number, iterations=3) & (labels != number)
                close.append((labels[around] > 0).any())
        return float(np.mean(close))

    near = closely()
    monkeypatch.setattr(copies, "_NEAR", 0.0)
    assert near > closely() + 0.1


def test_a_photograph_without_objects_leaves_the_ground_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to copy or to paste."""
    monkeypatch.setattr(copies, "_SHAPES", 0.0)
    ground, rng = grey(), np.random.default_rng(0)
    assert many_copies(ground, grey(), rng) is ground
    assert paste(ground, grey(), rng) is ground


def test_shapes_are_one_piece_of_many_forms(photo: Photo) -> None:
    """Round ones and long ones, of large photographs and of tiny ones; their box is tight."""
    ratios = []
    for seed in range(30):
        shape = random_shape(photo if seed % 2 else grey((3, 7)), np.random.default_rng(seed))
        assert shape.image.shape == (*shape.mask.shape, 3)
        assert label(shape.mask, np.ones((3, 3)))[1] == 1
        assert all(edge.any() for edge in (shape.mask[0], shape.mask[-1], shape.mask[:, 0], shape.mask[:, -1]))
        ratios.append(max(shape.mask.shape) / min(shape.mask.shape))
    assert min(ratios) < 1.3
    assert max(ratios) > 2.5


def test_other_colours_leave_every_edge_where_it_is(photo: Photo) -> None:
    """The labels are not changed with the image."""
    discs = photo.labels > 0
    inner = ~(binary_dilation(discs, iterations=8) & binary_dilation(~discs, iterations=8))
    apart = []
    for seed in range(30):
        changed = recolour(photo.image, np.random.default_rng(seed)).astype(float)
        assert changed.shape == photo.image.shape
        apart.append(np.abs(changed[discs & inner].mean(0) - changed[~discs & inner].mean(0)).max() > 10)
    assert np.mean(apart) > 0.8
