"""Repeated objects: measured values, labels that follow, nothing covered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data_sets import Planes, label_of, region_at

from simmat.data.augment import Augmentation
from simmat.data.paste import MOST, repeat_regions
from simmat.data.regions import Label, Region
from simmat.types import Channel, SensorImage

SIZE = (60, 80)


def scene() -> tuple[SensorImage, Label]:
    """Two objects in an image of which every pixel has a value of its own, the second plane its negative."""
    values = np.arange(np.prod(SIZE), dtype=np.float32).reshape(SIZE)
    channels = [Channel(f"p{index}", "temperature", "K") for index in range(2)]
    blob = np.ones((9, 7), dtype=np.bool_)
    blob[0, :3] = False
    label = label_of(SIZE, region_at(20, 30, blob, class_id=3), region_at(40, 10, np.ones((6, 12)), class_id=5))
    return SensorImage.from_planes(np.stack([values, -values]), channels), label


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_copies_are_measured_values_beside_what_was_there(seed: int, rotate: bool) -> None:
    """A resampled object would be none the sensor saw, and a covered one would be asked for where it is not."""
    image, label = scene()
    changed, more = repeat_regions(image, label, Planes(), np.random.default_rng(seed), rotate=rotate)
    copies = more.regions[2:]
    assert more.regions[:2] == label.regions
    assert 1 <= len(copies) <= MOST
    everything = np.zeros(SIZE, dtype=int)
    for region in more.regions:
        everything += region.mask(SIZE)
    assert everything.max() == 1
    assert np.array_equal(changed.data[0] != image.data[0], everything.astype(bool) & ~_of(label, SIZE))
    for copy in copies:
        [original] = [region for region in label.regions if region.class_id == copy.class_id]
        assert set(changed.data[0][copy.mask(SIZE)]) <= set(image.data[0][original.mask(SIZE)])
        assert copy.area == original.area or copy.area < original.area / 2
    assert np.array_equal(changed.data[1], -changed.data[0])


def _of(label: Label, size_hw: tuple[int, int]) -> np.ndarray:
    return np.any([region.mask(size_hw) for region in label.regions], axis=0)


def test_many_copies_are_close_to_a_region() -> None:
    """Neighbours are what few images lack."""
    image, label = scene()
    distances = []
    for seed in range(60):
        _, more = repeat_regions(image, label, Planes(), np.random.default_rng(seed), rotate=False)
        distances += [_apart(copy, [other for other in more.regions if other is not copy]) for copy in more.regions[2:]]
    close = np.mean([distance < 12 for distance in distances])
    assert 0.4 < close < 0.9, close


def _apart(region: Region, others: list[Region]) -> float:
    (y, x), places = _centre(region), [_centre(other) for other in others]
    return float(min(np.hypot(y - other_y, x - other_x) for other_y, other_x in places))


def _centre(region: Region) -> tuple[float, float]:
    y0, x0, y1, x1 = region.box
    return (y0 + y1) / 2, (x0 + x1) / 2


def test_what_was_not_measured_stays_so_in_the_copy_and_ignored_places_are_left_alone() -> None:
    """Nobody knows what is there."""
    image, label = scene()
    valid = image.valid.copy()
    valid[1, 22, 31] = False
    ignore = np.zeros(SIZE, dtype=np.bool_)
    ignore[:, 45:] = True
    image, label = replace(image, valid=valid), replace(label, ignore=ignore)
    lacking = 0
    for seed in range(30):
        changed, _ = repeat_regions(image, label, Planes(), np.random.default_rng(seed), rotate=False)
        assert np.array_equal(changed.data[:, :, 45:], image.data[:, :, 45:])
        hidden = ~changed.valid[1] & valid[1]
        assert set(changed.data[0][hidden]) <= {image.data[0, 22, 31]}
        lacking += int(hidden.sum())
    assert lacking > 5


def test_an_object_that_the_border_cuts_is_not_copied() -> None:
    """Its straight edge is the camera's, not the object's."""
    image, _ = scene()
    cut = label_of(SIZE, region_at(0, 30, np.ones((9, 7))), region_at(30, 73, np.ones((9, 7))))
    for seed in range(10):
        changed, more = repeat_regions(image, cut, Planes(), np.random.default_rng(seed), rotate=True)
        assert changed is image
        assert more is cut


def test_an_image_that_is_full_stays_as_it_is() -> None:
    """Where every pixel belongs to something there is no place."""
    image, _ = scene()
    full = label_of(SIZE, region_at(1, 1, np.ones((58, 78))))
    changed, more = repeat_regions(image, full, Planes(), np.random.default_rng(0), rotate=True)
    assert len(more.regions) == 1
    assert np.array_equal(changed.data, image.data)


def test_the_augmentation_repeats_in_the_part_that_was_asked_for() -> None:
    """And draws nothing where it is off, so that runs without it see what they always saw."""
    image, label = scene()

    def grown(paste: float) -> float:
        augmentation = replace(Augmentation.none(), paste=paste)
        results = [augmentation(image, label, Planes(), np.random.default_rng(seed))[1] for seed in range(40)]
        return float(np.mean([len(result.regions) > 2 for result in results]))

    assert grown(0) == 0
    assert 0.25 < grown(0.5) < 0.75
    assert grown(1) > 0.9
    rng = np.random.default_rng(3)
    Augmentation.none()(image, label, Planes(), rng)
    assert rng.random() == np.random.default_rng(3).random()
