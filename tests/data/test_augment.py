"""Augmentation: image and label stay together, chance is the caller's, physics stays possible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from data_sets import Planes, label_of, region_at
from scipy import ndimage

from simmat.data.augment import Augmentation, cut_label, place_window
from simmat.data.card import DataCard
from simmat.data.instances import Annotation, label_from_mask
from simmat.sensors.adapter import Axis
from simmat.types import Channel, Georeference, SensorImage, Window


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


def test_flip_without_rotate_is_left_right_only() -> None:
    """In pictures with an up, upside down does not happen."""
    image, label = scene(1)
    results = [
        still(flip=True)(image, label, Planes(), np.random.default_rng(seed))[0].data
        for seed in range(20)
    ]
    assert {tuple(result[0].ravel()) for result in results} == {
        tuple(image.data[0].ravel()),
        tuple(image.data[0, :, ::-1].ravel()),
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


def test_a_window_holds_the_whole_of_a_region_that_fits() -> None:
    """The object asked about should be seen."""
    whole = label_of((24, 31), region_at(3, 20, np.ones((14, 9))))
    for seed in range(30):
        window = place_window(whole, (16, 21), np.random.default_rng(seed))
        assert cut_label(whole, window, 0).regions[0].area == 14 * 9
        assert 0 <= window[0] < window[2] <= 24
        assert 0 <= window[1] < window[3] <= 31


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


@pytest.mark.parametrize(
    ("change", "most"), [({"gain": 0.2}, 0.2), ({"offset": 0.3}, 0.3)]
)
def test_jitter_is_in_units_of_the_channels_own_spread(
    change: dict[str, float], most: float
) -> None:
    """20 % of contrast means the same for kelvin, metres and counts."""
    rng = np.random.default_rng(0)
    image = SensorImage.from_planes(
        rng.normal(-50, 1e-3, (1, 30, 30)), [Channel("p0", "level", "dB")]
    )
    reached = []
    for seed in range(60):
        data = still(**change)(
            image, label_of((30, 30)), Planes(), np.random.default_rng(seed)
        )[0].data
        std = image.data.std(dtype=np.float64)
        shift = (data.mean(dtype=np.float64) - image.data.mean(dtype=np.float64)) / std
        reached.append(abs(data.std(dtype=np.float64) / std - 1) + abs(shift))
    assert max(reached) <= most + 0.02
    assert max(reached) > 0.8 * most


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


def test_position_on_the_earth_is_dropped_with_the_pixels_place() -> None:
    """A cut tile with the old transform would lie elsewhere."""
    image, label = scene(0)
    placed = SensorImage(
        image.data,
        image.valid,
        image.channels,
        "",
        Georeference("EPSG:1", (1, 0, 0, 0, 1, 0)),
    )
    assert (
        still(scale=(2, 2))(placed, label, Planes(), np.random.default_rng(0))[
            0
        ].georeference
        is None
    )
