"""Augmentation: image and label stay together, chance is the caller's, physics stays possible; repeated objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from data_sets import Planes, label_of, region_at
from scipy import ndimage

from simmat.data.augment import Augmentation, cut_label
from simmat.data.card import DataCard
from simmat.data.copy_paste import MAX_COPIES, check_repeats, repeat_regions, repeatable
from simmat.data.instances import EIGHT, Annotation, Instance, label_from_mask
from simmat.errors import ConfigError
from simmat.sensors.adapter import Axis
from simmat.types import Channel, SensorImage, Window


class Angles(Planes):
    """A sensor of one angle: mirroring negates it, a quarter turn adds 90°."""

    def flip(self, image: SensorImage, axis: Axis) -> SensorImage:
        """Negate."""
        flipped = super().flip(image, axis)
        return SensorImage(-flipped.data, flipped.valid, flipped.channels)

    def rotate(self, image: SensorImage, quarter_turns: int) -> SensorImage:
        """Add the turn."""
        turned = super().rotate(image, quarter_turns)
        return SensorImage(
            turned.data + np.float32(90 * quarter_turns), turned.valid, turned.channels
        )


def scene(
    seed: int, channels: int = 3, size: tuple[int, int] = (24, 31)
) -> tuple[SensorImage, Annotation]:
    """An image whose first channel is the label's own value, so that both can be compared after any change."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.standard_normal(size), 2) > 0.05
    numbered, _ = ndimage.label(blobs, structure=np.ones((3, 3)))
    planes = np.concatenate([numbered[None], rng.normal(300, 5, (channels - 1, *size))])
    valid = rng.random(planes.shape) > 0.1
    valid[0] = True
    described = [Channel(f"p{index}", "temperature", "K") for index in range(channels)]
    image = SensorImage.from_planes(planes, described, valid=valid)
    label = label_from_mask(numbered.astype(np.int64), DataCard(regions="instances"))
    return image, Annotation(label.size_hw, label.regions, ~valid[-1], 0)


def still(**changes: Any) -> Augmentation:
    """No change but the given ones."""
    nothing = {
        "flip": False,
        "rotate": False,
        "scale": (1, 1),
        "gain": 0,
        "offset": 0,
        "noise": 0,
    }
    return Augmentation(**{**nothing, **changes})


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("channels", [2, 7])
def test_regions_and_ignore_follow_the_pixels_exactly(seed: int, channels: int) -> None:
    """A label a pixel off teaches wrong borders; this holds for any number of channels."""
    image, label = scene(seed, channels)
    augmentation = still(flip=True, rotate=True, scale=(0.6, 2.0), keep=0)
    changed, moved = augmentation(image, label, Planes(), np.random.default_rng(seed))
    assert changed.size_hw == moved.size_hw
    together = sum(region.mask(moved.size_hw).astype(int) for region in moved.regions)
    assert np.array_equal(together, (changed.data[0] > 0).astype(int))
    for region in moved.regions:
        assert len(np.unique(changed.data[0][region.mask(moved.size_hw)])) == 1
    assert np.array_equal(moved.ignore, ~changed.valid[-1])


@pytest.mark.parametrize("seed", range(40))
def test_a_region_is_always_left(seed: int) -> None:
    """A training image without an object has nothing to be asked."""
    image, label = scene(seed)
    _, moved = Augmentation(scale=(0.5, 6), rotate=True)(
        image, label, Planes(), np.random.default_rng(seed)
    )
    assert moved.regions
    assert all(region.area for region in moved.regions)


def test_the_sensor_decides_what_flips_and_turns_do() -> None:
    """A mirrored angle is another angle; its owner knows."""
    image = SensorImage.from_planes(
        np.full((1, 4, 4), 30.0), [Channel("p0", "angle", "deg")]
    )
    label = label_of((4, 4), region_at(0, 0, [[1]]))
    seen = set()
    for seed in range(40):
        changed, _ = still(flip=True, rotate=True)(
            image, label, Angles(), np.random.default_rng(seed)
        )
        seen.add(float(changed.data[0, 0, 0]))
    assert seen == {
        30.0 * sign + 90.0 * turns for sign in (1, -1) for turns in range(4)
    }


def test_zoom_out_adds_only_invalid_ignored_pixels() -> None:
    """Beyond the image nothing was measured and nothing is known."""
    image, label = scene(2)
    changed, moved = still(scale=(0.5, 0.5))(
        image, label, Planes(), np.random.default_rng(0)
    )
    assert changed.size_hw == (48, 62)
    assert changed.valid[0].sum() == 24 * 31
    assert np.array_equal(moved.ignore & ~changed.valid[0], ~changed.valid[0])
    assert (changed.data[~changed.valid] == 0).all()
    assert len(moved.regions) == len(label.regions)


def test_slivers_of_cut_regions_are_not_objects() -> None:
    """Three pixels of a car at the border are no car to click on."""
    large, whole = region_at(0, 0, np.ones((4, 8))), region_at(6, 6, np.ones((2, 2)))
    cut = cut_label(label_of((8, 10), large, whole), Window(0, 7, 8, 10), keep=0.25)
    assert [region.area for region in cut.regions] == [2]
    only = cut_label(label_of((8, 10), large), Window(0, 7, 8, 10), keep=0.25)
    assert [region.area for region in only.regions] == [4]


@pytest.mark.parametrize("lowest", [0, 0.2])
def test_jitter_keeps_holes_and_physical_limits(lowest: float) -> None:
    """A depth below zero or counts above 255 would be lost in the next transform."""
    rng = np.random.default_rng(0)
    values = np.stack([rng.uniform(0.3, 2, (9, 9)), rng.integers(0, 256, (9, 9))])
    valid = rng.random(values.shape) > 0.2
    values[0, 0, 0], valid[0, 0, 0] = lowest, True
    described = [
        Channel("depth", "depth", "m"),
        Channel("counts", "counts", "count", valid_range=(0, 255)),
    ]
    image = SensorImage.from_planes(values, described, valid=valid)
    for seed in range(20):
        changed, _ = still(gain=1, offset=1, noise=1)(
            image, label_of((9, 9)), Planes(), np.random.default_rng(seed)
        )
        assert np.array_equal(changed.valid, image.valid)
        assert np.array_equal(changed.data[~valid], image.data[~valid])
        assert changed.data[0][valid[0]].min() >= image.data[0][valid[0]].min()
        assert 0 <= changed.data[1].min()
        assert changed.data[1].max() <= 255


def test_angles_have_no_gain() -> None:
    """Scaled angles point elsewhere."""
    image = SensorImage.from_planes(
        np.linspace(0, 3, 16).reshape(1, 4, 4), [Channel("p0", "aolp", "rad")]
    )
    changed, _ = still(gain=1, offset=1, noise=1)(
        image, label_of((4, 4)), Planes(), np.random.default_rng(0)
    )
    assert np.array_equal(changed.data, image.data)


class Power(Planes):
    """A sensor of which the network gets decibel."""

    def is_log_scale(self, channels: Sequence[Channel]) -> tuple[bool, ...]:
        return (True,) * len(channels)


def test_what_becomes_a_logarithm_is_changed_by_factors() -> None:
    """The spread of a radar's power is that of its few bright targets: a fifth of it is more than the whole sea."""
    rng = np.random.default_rng(0)
    sea = 0.01 * rng.gamma(4, 0.25, (1, 64, 64))
    sea[0, 8, 8:12], sea[0, 9, 0] = 10, 0
    image = SensorImage.from_planes(sea, [Channel("p0", "power", "1")])
    before = 10 * np.log10(sea[sea > 0])
    for seed in range(30):
        jitter = Augmentation(flip=False, scale=(1, 1))
        changed, _ = jitter(
            image, label_of((64, 64)), Power(), np.random.default_rng(seed)
        )
        after = 10 * np.log10(changed.data[sea > 0])
        assert abs(after.mean() - before.mean()) < 0.21 * before.std()
        assert 0.75 < after.std() / before.std() < 1.25
        assert changed.data[0, 9, 0] == 0
    assert not np.array_equal(after, before)


def test_a_pixel_at_an_end_of_its_range_stays_there() -> None:
    """What is full received that much light or more, and nothing can be computed from it, however it is jittered."""
    channel = Channel("nir", "counts", "count", valid_range=(0, 4095))
    plane = np.random.default_rng(0).integers(1, 4095, (1, 32, 32)).astype(np.float32)
    plane[0, 0], plane[0, 1] = 4095, 0
    image = SensorImage.from_planes(plane, (channel,))
    label = label_of((32, 32), region_at(8, 8, np.ones((8, 8))))
    for seed in range(8):
        changed, _ = still(gain=0.3, offset=0.3, noise=0.05)(
            image, label, Planes(), np.random.default_rng(seed)
        )
        assert (changed.data[0, 0] == 4095).all()
        assert (changed.data[0, 1] == 0).all()
        assert not np.array_equal(changed.data[0, 2:], plane[0, 2:])


SIZE = (60, 80)
CHANNELS = [Channel(f"p{index}", "temperature", "K") for index in range(2)]
FLAG = np.zeros((9, 7), dtype=np.bool_)
FLAG[:, 1:5] = True
FLAG[2:6] = True
FLAG[0, 1] = False  # no flip or turn of it is itself


def scene_of_copy_paste(
    *regions: Instance, smallest: int = 1
) -> tuple[SensorImage, Annotation]:
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
    image, label = scene_of_copy_paste(region_at(20, 30, FLAG))
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
    image, label = scene_of_copy_paste()
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


@pytest.mark.parametrize(("y", "x"), [(0, 30), (51, 30), (20, 0), (20, 73)])
def test_an_object_that_the_border_cuts_is_not_copied(y: int, x: int) -> None:
    """Its straight edge is the camera's, not the object's."""
    image, label = scene_of_copy_paste(region_at(y, x, FLAG | True))
    assert not repeatable(label)
    changed, more = repeat_regions(
        image, label, Planes(), np.random.default_rng(0), rotate=True
    )
    assert changed is image
    assert more is label


def test_what_was_not_measured_stays_so_and_ignored_pixels_are_neither_copied_nor_covered() -> (
    None
):
    """Nobody knows what is there."""
    image, label = scene_of_copy_paste(region_at(20, 30, FLAG))
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
    image, label = scene_of_copy_paste()

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
