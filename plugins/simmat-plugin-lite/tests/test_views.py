"""Views of photographs: what is shown is what is asked for, and neighbours are apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pretraining import copies, views
from pretraining.photographs import Photo, cut_object, read_photo
from pretraining.photometry import recolour
from pretraining.views import Views, paste, write_views
from scipy.ndimage import binary_dilation

import simmat
from simmat.errors import DataError


@pytest.fixture(scope="module")
def photos(regions_folder: Path) -> dict[str, Photo]:
    """One photograph of each source: two discs, one and two times as bright, on dark noise."""
    dataset = simmat.open_dataset(regions_folder, "rgb", regions="instances")
    return {
        sample.extra["source"]: read_photo(dataset, sample, 256)
        for sample in dataset.split("train")
    }


@pytest.fixture(scope="module")
def photo(photos: dict[str, Photo]) -> Photo:
    return photos["horses"]


def grey(size_hw: tuple[int, int] = (160, 200)) -> Photo:
    """A plain frame without regions."""
    return Photo(np.full((*size_hw, 3), 90, np.uint8), np.zeros(size_hw, np.uint16))


def test_zero_is_a_region_only_where_the_photograph_says_so(
    photos: dict[str, Photo],
) -> None:
    """Where 0 may hold unmarked objects, nothing is claimed about it."""
    assert {source: int(photo.labels.max()) for source, photo in photos.items()} == {
        source: 3 if source == "bsds" else 2 for source in photos
    }


def test_a_view_depends_on_seed_and_place_alone(regions_folder: Path) -> None:
    """A data set that is made again after a crash must be the same."""
    first, other = (
        Views(regions_folder, 6, 64, seed=1),
        Views(regions_folder, 6, 64, seed=2),
    )
    again = Views(regions_folder, 6, 64, seed=1)[5]
    assert np.array_equal(first[5].image, again.image)
    assert np.array_equal(first[5].labels, again.labels)
    assert not np.array_equal(first[5].image, other[5].image)


def test_views_are_a_data_set_whose_val_split_is_the_photographs(
    regions_folder: Path, tmp_path: Path
) -> None:
    """Validation on changed photographs would say little about true ones."""
    write_views(regions_folder, tmp_path / "views", 5, 64, seed=0)
    dataset = simmat.open_dataset(tmp_path / "views", "rgb")
    assert [len(dataset.split(split)) for split in ("train", "val")] == [5, 4]
    assert all(
        dataset.label(sample, dataset.image(sample)).regions
        for sample in dataset.samples
    )
    original = simmat.open_dataset(regions_folder, "rgb", regions="instances")
    kept, true = (one.image(one.split("val")[0]).data for one in (dataset, original))
    assert np.array_equal(kept, true)


def test_photographs_without_any_region_are_refused(
    regions_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing would go on for ever."""
    empty = grey()
    monkeypatch.setattr(views, "read_photo", lambda *given: empty)
    monkeypatch.setattr(copies, "SHAPES", 0.0)
    with pytest.raises(DataError, match=r"show no region.*zero_means"):
        _ = Views(regions_folder, 1, 64, seed=0)[0]


def test_the_whole_is_cut_out_where_regions_are_its_parts(
    photos: dict[str, Photo],
) -> None:
    """Clothes are parts of a person; half a person pasted elsewhere is no object."""
    whole, one = (
        cut_object(photos[source], np.random.default_rng(0))
        for source in ("ccp", "horses")
    )
    assert whole is not None
    assert one is not None
    assert whole.mask.sum() == 2 * one.mask.sum()


def test_a_pasted_object_is_a_region_and_hides_what_it_covers(photo: Photo) -> None:
    """What is asked for must be what is seen."""
    pasted = 0
    for seed in range(40):
        view = paste(grey(), photo, np.random.default_rng(seed))
        changed = (view.image != 90).any(-1)
        # soft borders
        assert not (changed & ~binary_dilation(view.labels > 0, iterations=6)).any()
        pasted += bool(view.labels.any())
    assert pasted > 10
    covered = paste(
        replace(photo, labels=np.ones_like(photo.labels)),
        photo,
        np.random.default_rng(1),
    )
    assert sorted(np.unique(covered.labels)) == [1, 2]


def test_other_colours_leave_every_edge_where_it_is(photo: Photo) -> None:
    """The labels are not changed with the image."""
    discs = photo.labels > 0
    inner = ~(
        binary_dilation(discs, iterations=8) & binary_dilation(~discs, iterations=8)
    )
    apart = []
    for seed in range(30):
        changed = recolour(photo.image, np.random.default_rng(seed)).astype(float)
        assert changed.shape == photo.image.shape
        apart.append(
            np.abs(
                changed[discs & inner].mean(0) - changed[~discs & inner].mean(0)
            ).max()
            > 10
        )
    assert np.mean(apart) > 0.8
