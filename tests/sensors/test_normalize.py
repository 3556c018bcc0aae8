"""What a network sees of physical values: statistics, z-score, and how an RGB model is shown another sensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from simmat.sensors.normalize import (
    Moments,
    fit_channels,
    normalize,
    rgb_indices,
    zero_shot_map,
)
from simmat.types import Channel, SensorImage

COLOURS = ("red", "green", "blue")


def shown(values: np.ndarray, channels: Sequence[Channel]) -> np.ndarray:
    """Return the (3, P) planes that an RGB model sees of (C, P) values without training."""
    statistics = Moments.of_pixels(values, np.ones(values.shape, np.bool_)).statistics()
    fitted = fit_channels(
        channels, statistics, pixel_mean=(0, 0, 0), pixel_std=(1, 1, 1)
    )
    image = normalize(SensorImage.from_planes(values[:, None], channels), fitted)
    planes: np.ndarray = zero_shot_map(fitted, statistics) @ image[:, 0]
    return planes


@pytest.mark.parametrize("stated", [(None, None), (5.0, None), (5.0, 5.0), (0.5, 4.0)])
def test_the_zero_shot_planes_have_unit_variance_whatever_channels_state(
    stated: tuple[float | None, ...],
) -> None:
    """A model of photographs sees next to nothing of planes that hardly vary."""
    rng = np.random.default_rng(0)
    first = rng.normal(0, 1, 4000)
    values = np.stack([first, 0.6 * first + rng.normal(0, 0.8, 4000)]).astype(
        np.float32
    )
    channels = [
        Channel(name, "counts", "count", mean=None if std is None else 0.0, std=std)
        for name, std in zip("ab", stated, strict=True)
    ]
    assert shown(values, channels).std(axis=1) == pytest.approx([1, 1, 1], rel=0.03)


def test_one_channel_is_shown_as_it_is_normalized() -> None:
    """Who states the scale of a single channel has said what a model shall see."""
    values = np.random.default_rng(0).normal(0, 1, (1, 4000)).astype(np.float32)
    assert shown(values, [Channel("a", "counts", "count", mean=0.0, std=2.0)]).std(
        axis=1
    ) == pytest.approx([0.5] * 3, rel=0.03)


def test_what_only_the_difference_of_two_bands_shows_is_shown() -> None:
    """A plant is dark in red and bright in near-infrared; the mean of both is that of soil."""
    rng = np.random.default_rng(0)
    brightness = rng.normal(0, 1, 4000)
    plant = np.arange(4000) < 400
    values = np.stack([brightness - 0.5 * plant, brightness + 0.5 * plant]).astype(
        np.float32
    )
    values += rng.normal(0, 0.05, values.shape).astype(np.float32)
    planes = shown(
        values, [Channel(name, "reflectance", "1") for name in ("red", "nir")]
    )
    gap = np.abs(planes[:, plant].mean(1) - planes[:, ~plant].mean(1))
    assert gap[0] < 0.3
    assert gap[1] > 2
    assert np.array_equal(planes[0], planes[2])


def test_the_planes_have_the_contrast_of_photographs() -> None:
    """A model that divides by 127.5 knows pictures of half the deviation of those that SAM knows."""
    channel = Channel("a", "counts", "count", mean=0.0, std=1.0)
    statistics = Moments.of_pixels(
        np.zeros((1, 9), np.float32), np.ones((1, 9), np.bool_)
    ).statistics()
    assert zero_shot_map(
        [channel], statistics, (58.395, 57.12, 57.375)
    ) == pytest.approx(np.ones((3, 1)))
    assert zero_shot_map([channel], statistics, (127.5,) * 3)[:, 0] == pytest.approx(
        [0.458, 0.448, 0.45], abs=1e-3
    )


def test_of_two_colour_cameras_the_reference_is_the_one_an_rgb_model_is_shown() -> None:
    """Masks and clicks lie on the reference's grid."""
    cameras = [
        Channel(f"{camera}{colour}", "srgb", "count")
        for camera in ("", "right.")
        for colour in COLOURS
    ]
    assert rgb_indices(cameras) == (0, 1, 2)
