"""Normalize physical values for a network: statistics, z-score, the zero-shot map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simmat.errors import SpecError
from simmat.types import RGB_QUANTITY, Channel, FloatArray, SensorImage, same_channels

CLIP = 5.0
"""Normalized values of channels other than RGB are clipped to ±CLIP standard deviations."""

LEAST_VARIANCE = 0.01
"""Least variance of a principal component, relative to the first, that is scaled to 1; less is mostly noise."""
PHOTO_STD = (58.395, 57.12, 57.375)
"""Standard deviation of red, green and blue in photographs, 0..255 (ImageNet)."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of a training split over its valid pixels, after the adapter's transform.

    Attributes:
        mean: (C,) in each channel's unit.
        std: (C,) in the same units, > 0.
        correlation: (C, C) of the channels, over pixels where both are valid.
        pixels: (C,) number of valid pixels.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    correlation: tuple[tuple[float, ...], ...]
    pixels: tuple[int, ...]


def rgb_indices(channels: Sequence[Channel]) -> tuple[int, int, int] | None:
    """Return the indices of red, green and blue among channels declared RGB, or None if one is missing.

    Of several colour cameras, the first is used.
    """
    found: dict[str, int] = {}
    for index, channel in enumerate(channels):
        if channel.quantity == RGB_QUANTITY:
            found.setdefault(channel.name.rpartition(".")[2], index)
    if not {"red", "green", "blue"} <= set(found):
        return None
    return found["red"], found["green"], found["blue"]


def fit_channels(
    channels: Sequence[Channel], statistics: Statistics, *, pixel_mean: Sequence[float], pixel_std: Sequence[float]
) -> tuple[Channel, ...]:
    """Return channels with mean and std.

    RGB gets the foundation model's own; a channel whose adapter states both keeps them; all others get those of the
    training split.

    Args:
        channels: C channels as they reach the network.
        pixel_mean: the foundation model's R, G, B mean, 0..255.
        pixel_std: the foundation model's R, G, B std, 0..255.
    """
    if len(statistics.mean) != len(channels):
        raise SpecError(f"statistics of {len(statistics.mean)} channels do not fit {len(channels)} channels")
    fitted = []
    for c, m, s in zip(channels, statistics.mean, statistics.std, strict=True):
        fitted.append(c if c.mean is not None and c.std is not None else c.with_statistics(m, s))
    rgb = rgb_indices(channels)
    if rgb:
        for colour, index in enumerate(rgb):
            fitted[index] = channels[index].with_statistics(pixel_mean[colour], pixel_std[colour])
    return tuple(fitted)


def normalize(image: SensorImage, channels: Sequence[Channel]) -> FloatArray:
    """Scale each channel to zero mean and unit variance by its channel's statistics, and clip.

    Args:
        image: (C, H, W) after the adapter's transform, in each channel's own unit.
        channels: C channels with mean and std, see `fit_channels`.

    Returns:
        (C, H, W) float32, unitless; invalid pixels are exactly 0.

    Raises:
        SpecError: the image has other channels, or a channel has no statistics.
    """
    if not same_channels(channels, image.channels):
        raise SpecError(f"{image.origin}: channels are {describe(image.channels)}, but {describe(channels)} are needed")
    lacking = [channel.name for channel in channels if channel.mean is None or channel.std is None]
    if lacking:
        raise SpecError(f"channels without mean and std cannot be normalized: {lacking}")
    limits = []
    for channel in channels:
        limits.append(np.inf if channel.quantity == RGB_QUANTITY else CLIP)
    numbers = [[channel.mean for channel in channels], [channel.std for channel in channels], limits]
    mean, std, limit = np.asarray(numbers, dtype=np.float32)[..., None, None]  # each (C, 1, 1)
    scaled: FloatArray = image.data - mean
    scaled /= std
    if np.isfinite(limit).any():
        np.clip(scaled, -limit, limit, out=scaled)
    if not image.valid.all():
        np.copyto(scaled, 0, where=~image.valid)
    return scaled


def min_max(image: SensorImage, channels: Sequence[Channel]) -> SensorImage:
    """Scale each plane to its own range, 0 to 1; a plane of one value becomes 0. `channels` are those of the result."""
    axes = (1, 2)
    low = np.min(image.data, axis=axes, initial=np.inf, where=image.valid, keepdims=True)
    high = np.max(image.data, axis=axes, initial=-np.inf, where=image.valid, keepdims=True)
    span = np.where(high > low, high - low, 1)
    scaled = np.where(image.valid, (image.data - low) / span, 0)
    return replace(image, data=scaled.astype(np.float32), channels=tuple(channels))


def zero_shot_map(
    channels: Sequence[Channel], statistics: Statistics, pixel_std: Sequence[float] = PHOTO_STD
) -> npt.NDArray[np.float32]:
    """Return the (3, C) linear map from C fitted channels to the input of an RGB model, without training.

    RGB channels pass through unchanged. One channel is repeated. Several channels give their first three principal
    components, scaled to equal variance; two give the first component twice. If no channels are correlated, each plane
    is their mean. The planes have the contrast of photographs as the model sees them.

    Args:
        pixel_std: the foundation model's R, G, B std, 0..255.
    """
    count = len(channels)
    rgb = rgb_indices(channels)
    if rgb:
        weights = np.zeros((3, count), dtype=np.float32)
        weights[np.arange(3), list(rgb)] = 1
        return weights
    if count == 1:
        rows = np.ones((3, 1))
    else:
        # A channel that states its std is normalized by it, not by that of the training split.
        spread = np.asarray(statistics.std) / np.asarray([channel.std for channel in channels], dtype=np.float64)
        rows = _components(spread[:, None] * np.asarray(statistics.correlation, dtype=np.float64) * spread)
    contrast = np.asarray(PHOTO_STD) / np.asarray(pixel_std, dtype=np.float64)  # (3,)
    return (contrast[:, None] * rows).astype(np.float32)


def _components(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (3, C) principal components of C >= 2 channels, of unit variance; their mean if none are correlated."""
    count = len(covariance)
    if not (covariance - np.diag(np.diag(covariance))).any():
        row = np.full(count, 1 / count)
        return np.repeat((row / np.sqrt(max(float(row @ covariance @ row), 1e-4)))[None], 3, axis=0)
    variances, vectors = np.linalg.eigh(covariance)  # ascending
    chosen = [-1, -2, -3 if count > 2 else -1]
    rows = vectors.T[chosen] / np.sqrt(np.maximum(variances[chosen], LEAST_VARIANCE * variances[-1]))[:, None]
    # The sign of a component is arbitrary: its first large weight is positive.
    large = np.abs(rows) > 0.9 * np.abs(rows).max(axis=1, keepdims=True)
    first = np.take_along_axis(rows, large.argmax(axis=1)[:, None], axis=1)  # (3, 1)
    found: npt.NDArray[np.float64] = rows * np.sign(first)
    return found


def describe(channels: Sequence[Channel]) -> str:
    """Return channels with their units: "thermal [K], red [count]"."""
    return ", ".join(f"{channel.name} [{channel.unit}]" for channel in channels)
