"""Repeated objects: measured values, labels that follow, nothing covered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from data_sets import Planes, label_of, region_at
from scipy import ndimage

from simmat.data.augment import Augmentation
from simmat.data.card import DataCard
from simmat.data.copy_paste import MAX_COPIES, check_repeats, repeat_regions, repeatable
from simmat.data.instances import EIGHT, Annotation, Instance
from simmat.errors import ConfigError
from simmat.types import Channel, SensorImage

SIZE = (60, 80)
CHANNELS = [Channel(f"p{index}", "temperature", "K") for index in range(2)]
FLAG = np.zeros((9, 7), dtype=np.bool_)
FLAG[:, 1:5] = True
FLAG[2:6] = True
FLAG[0, 1] = False  # no flip or turn of it is itself


def scene(*regions: Instance, smallest: int = 1) -> tuple[SensorImage, Annotation]:
    """An image of which every pixel has a value of its own, the second plane its negative."""
    values = np.arange(np.prod(SIZE), dtype=np.float32).reshape(SIZE)
    label = label_of(
        SIZE,
        *(
            regions
            or (region_at(20, 30, FLAG, 3), region_at(40, 10, np.ones((6, 12)), 5))
        ),
    )
    return SensorImage.from_planes(np.stack([values, -values]), CHANNELS), replace(
        label, smallest=smallest
    )


def repeats(
    image: SensorImage,
    label: Annotation,
    *,
    rotate: bool,
    adapter: Planes | None = None,
    seeds: int = 40,
) -> Iterator[tuple[SensorImage, tuple[Instance, ...]]]:
    """Images with copies, and the copies."""
    for seed in range(seeds):
        changed, more = repeat_regions(
            image,
            label,
            adapter or Planes(),
            np.random.default_rng(seed),
            rotate=rotate,
        )
        assert more.regions[: len(label.regions)] == label.regions
        yield changed, more.regions[len(label.regions) :]


def ways(
    values: npt.NDArray[np.float32], *, rotate: bool
) -> dict[str, npt.NDArray[np.float32]]:
    """All that may become of a piece."""
    mirrored = {"as it is": values, "mirrored": values[:, ::-1]}
    turned = {
        f"{name}, {k} turns": np.rot90(v, k)
        for name, v in mirrored.items()
        for k in range(4 if rotate else 1)
    }
    return turned | {f"{name}, halved": v[::2, ::2] for name, v in turned.items()}


@pytest.mark.parametrize("rotate", [False, True])
def test_a_copy_is_the_object_as_it_was_measured_mirrored_turned_or_halved(
    rotate: bool,
) -> None:
    """A resampled object would be none the sensor saw; one upside down is none that a street shows."""
    image, label = scene(region_at(20, 30, FLAG))
    original = np.where(FLAG, image.data[0, 20:29, 30:37], 0)
    allowed = ways(original, rotate=rotate)
    met = set()
    for changed, copies in repeats(image, label, rotate=rotate, seeds=80):
        for copy in copies:
            y0, x0, y1, x1 = copy.window
            got = np.where(copy.crop, changed.data[0, y0:y1, x0:x1], 0)
            met |= {
                name
                for name, way in allowed.items()
                if np.array_equal(_trimmed(way), got)
            } or {"something else"}
        assert np.array_equal(changed.data[1], -changed.data[0])
    assert met == set(allowed)


def _trimmed(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values[np.ix_(values.any(axis=1), values.any(axis=0))]


def test_nothing_is_covered_and_nothing_touched() -> None:
    """Pieces that touch are one object where objects are connected pieces."""
    image, label = scene()
    for changed, copies in repeats(image, label, rotate=True):
        assert len(copies) <= MAX_COPIES
        for one, other in combinations((*label.regions, *copies), 2):
            assert not (
                ndimage.binary_dilation(one.mask(SIZE), EIGHT) & other.mask(SIZE)
            ).any()
        pasted = np.any(
            [np.zeros(SIZE, dtype=bool), *(copy.mask(SIZE) for copy in copies)], axis=0
        )
        assert np.array_equal(changed.data[0] != image.data[0], pasted)


def test_halving_takes_no_object_apart() -> None:
    """Of a thin slope every second pixel would be a row of dots."""
    image, label = scene(
        region_at(20, 30, np.eye(8) + np.eye(8, k=1)), region_at(2, 2, np.tri(12)[::-1])
    )
    for _, copies in repeats(image, label, rotate=True):
        for copy in copies:
            assert ndimage.label(copy.crop, EIGHT)[1] == 1


@pytest.mark.parametrize(("y", "x"), [(0, 30), (51, 30), (20, 0), (20, 73)])
def test_an_object_that_the_border_cuts_is_not_copied(y: int, x: int) -> None:
    """Its straight edge is the camera's, not the object's."""
    image, label = scene(region_at(y, x, FLAG | True))
    assert not repeatable(label)
    changed, more = repeat_regions(
        image, label, Planes(), np.random.default_rng(0), rotate=True
    )
    assert changed is image
    assert more is label


def test_an_object_that_missing_pixels_cut_is_not_copied() -> None:
    """The border of a warped image runs across it."""
    _, label = scene()
    ignore = np.zeros(SIZE, dtype=np.bool_)
    ignore[:, 37:] = True
    cut = replace(label, ignore=ignore)
    assert [region.class_id for region in repeatable(cut)] == [5]


def test_what_was_not_measured_stays_so_and_ignored_pixels_are_neither_copied_nor_covered() -> (
    None
):
    """Nobody knows what is there."""
    image, label = scene(region_at(20, 30, FLAG))
    valid, ignore = image.valid.copy(), label.ignore.copy()
    valid[1, 22, 31] = False
    ignore[24, 33] = ignore[:10] = True
    image, label = replace(image, valid=valid), replace(label, ignore=ignore)
    lacking = 0
    for changed, copies in repeats(image, label, rotate=False):
        assert np.array_equal(changed.data[:, :10], image.data[:, :10])
        hidden = ~changed.valid[1] & valid[1]
        assert set(changed.data[0][hidden]) <= {image.data[0, 22, 31]}
        lacking += int(hidden.sum())
        for copy in copies:
            assert image.data[0, 24, 33] not in changed.data[0][copy.mask(SIZE)]
    assert lacking > 5


def test_the_augmentation_repeats_in_the_given_share_of_images() -> None:
    """And draws nothing where it is off, so that runs without it see what they always saw."""
    image, label = scene()

    def grown(paste: float) -> float:
        augmentation = replace(Augmentation.none(), paste=paste)
        results = [
            augmentation(image, label, Planes(), np.random.default_rng(seed))[1]
            for seed in range(40)
        ]
        return float(np.mean([len(result.regions) > 2 for result in results]))

    assert grown(0) == 0
    assert 0.25 < grown(0.5) < 0.75
    assert grown(1) > 0.9
    rng = np.random.default_rng(3)
    Augmentation.none()(image, label, Planes(), rng)
    assert rng.random() == np.random.default_rng(3).random()


def test_data_whose_rule_leaves_no_room_for_a_copy_is_refused() -> None:
    """It would be believed to have been there."""
    where = Path("DATA")
    with pytest.raises(ConfigError, match=r"DATA .*class"):
        check_repeats(0.5, DataCard(regions="classes"), where)
    with pytest.raises(ConfigError, match="DATA"):
        check_repeats(0.5, DataCard(regions="components", zero_means="none"), where)
    check_repeats(0.5, DataCard(regions="components"), where)
