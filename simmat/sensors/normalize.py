"""Measure the statistics of channels, and normalize physical values by them for a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simmat.errors import SpecError
from simmat.types import (
    RGB_QUANTITY,
    BoolArray,
    Channel,
    FloatArray,
    SensorImage,
    same_channels,
)

Matrix = npt.NDArray[np.float64]

BLOCK_VALUES = 1 << 17
"""Values per block, which fit a processor's cache as float64."""

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


@dataclass(frozen=True)
class Moments:
    """Moments of each pair of C channels over the pixels where both are valid; the diagonal has those of one channel.

    Attributes:
        count: (C, C) pixels where channels i and j are both valid.
        mean: (C, C) mean of channel i over those pixels.
        square: (C, C) sum of squared deviations of channel i over them.
        cross: (C, C) sum of products of deviations of i and j over them.
    """

    count: Matrix
    mean: Matrix
    square: Matrix
    cross: Matrix

    @classmethod
    def of_pixels(cls, values: FloatArray, valid: BoolArray) -> Moments:
        """Compute the moments of (C, P) values where (C, P) `valid` is True."""
        if not (valid == valid[:1]).all():
            return cls._of_gaps(values, valid)
        if not valid[0].all():
            values = values[:, valid[0]]
        return cls._of_whole(values)

    @classmethod
    def _of_whole(cls, values: FloatArray) -> Moments:
        """Compute the moments of (C, P) valid values, without matrix products, whose rounding depends on threads."""
        channels, pixels = values.shape
        count = np.full((channels, channels), float(pixels))
        if not pixels:
            zeros = np.zeros_like(count)
            return cls(count, zeros, zeros, zeros)
        shift = values.mean(axis=1, dtype=np.float64)[:, None]
        centred = values - shift
        rest = centred.mean(axis=1)
        cross = np.empty_like(count)
        for i in range(channels):
            for j in range(i, channels):
                product = (centred[i] * centred[j]).sum() - rest[i] * rest[j] * pixels
                cross[i, j] = product
                cross[j, i] = product
        mean = np.repeat(shift + rest[:, None], channels, axis=1)
        square = np.repeat(np.maximum(np.diag(cross), 0)[:, None], channels, axis=1)
        return cls(count, mean, square, cross)

    @classmethod
    def _of_gaps(cls, values: FloatArray, valid: BoolArray) -> Moments:
        """Compute the moments of (C, P) values where the channels are valid at different pixels."""
        weight = valid.astype(np.float64)
        # Sums of squares around the channel's mean are as precise for values near 300 K as for values near 0.
        total = np.where(valid, values, 0).sum(axis=1, dtype=np.float64)
        shift = (total / np.maximum(weight.sum(axis=1), 1))[:, None]
        centred = np.where(valid, values - shift, 0.0)
        count = weight @ weight.T
        safe = np.maximum(count, 1)
        mean = (centred @ weight.T) / safe
        square = (centred * centred) @ weight.T - mean**2 * count
        cross = centred @ centred.T - mean * mean.T * count
        return cls(count, mean + shift, np.maximum(square, 0), cross)

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of pixels together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        safe = np.maximum(count, 1)
        step = np.where(self.count > 0, other.mean - self.mean, 0.0)
        both = self.count * other.count / safe
        start = np.where(self.count > 0, self.mean, other.mean)
        return Moments(
            count,
            start + step * other.count / safe,
            self.square + other.square + step**2 * both,
            self.cross + other.cross + step * step.swapaxes(-1, -2) * both,
        )

    def stacked(self) -> Matrix:
        """Return all moments as (…, 4, C, C)."""
        return np.stack([self.count, self.mean, self.square, self.cross], axis=-3)

    @classmethod
    def unstacked(cls, values: Matrix) -> Moments:
        """Rebuild from `stacked`: (…, 4, C, C) gives parts of (…, C, C)."""
        return cls(*np.moveaxis(values, -3, 0))

    def statistics(self) -> Statistics:
        """Return mean, population std and correlation; a pair that is never valid together has correlation 0."""
        pixels = np.diag(self.count)
        std = np.sqrt(np.diag(self.square) / np.maximum(pixels, 1))
        spread = np.sqrt(self.square * self.square.T)
        correlation = np.divide(
            self.cross, spread, out=np.zeros_like(spread), where=spread > 0
        ).clip(-1, 1)
        np.fill_diagonal(correlation, 1.0)
        return Statistics(
            mean=tuple(np.diag(self.mean).tolist()),
            std=tuple(std.tolist()),
            correlation=tuple(tuple(row) for row in correlation.tolist()),
            pixels=tuple(int(count) for count in pixels),
        )


def merge_moments(stacked: Matrix) -> Moments:
    """Return the moments of N sets of pixels together; (N, 4, C, C) see `Moments.stacked`."""
    while len(stacked) > 1:
        half = len(stacked) // 2
        pairs = Moments.unstacked(stacked[:half]).merge(
            Moments.unstacked(stacked[half : 2 * half])
        )
        stacked = np.concatenate([pairs.stacked(), stacked[2 * half :]])
    return Moments.unstacked(stacked[0])


def image_moments(image: SensorImage) -> Moments:
    """Return the moments of the valid pixels of a (C, H, W) image."""
    values = image.data.reshape(len(image.channels), -1)  # (C, H·W)
    valid = image.valid.reshape(values.shape)
    step = max(BLOCK_VALUES // len(values), 1)
    moments = Moments.of_pixels(values[:, :step], valid[:, :step])
    for start in range(step, values.shape[1], step):
        block = slice(start, start + step)
        moments = moments.merge(Moments.of_pixels(values[:, block], valid[:, block]))
    return moments


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
    channels: Sequence[Channel],
    statistics: Statistics,
    *,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
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
        raise SpecError(
            f"statistics of {len(statistics.mean)} channels do not fit {len(channels)} channels"
        )
    fitted = []
    for c, m, s in zip(channels, statistics.mean, statistics.std, strict=True):
        fitted.append(
            c if c.mean is not None and c.std is not None else c.with_statistics(m, s)
        )
    rgb = rgb_indices(channels)
    if rgb:
        for colour, index in enumerate(rgb):
            fitted[index] = channels[index].with_statistics(
                pixel_mean[colour], pixel_std[colour]
            )
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
        raise SpecError(
            f"{image.origin}: channels are {describe(image.channels)}, but {describe(channels)} are needed"
        )
    lacking = [
        channel.name
        for channel in channels
        if channel.mean is None or channel.std is None
    ]
    if lacking:
        raise SpecError(
            f"channels without mean and std cannot be normalized: {lacking}"
        )
    limits = []
    for channel in channels:
        limits.append(np.inf if channel.quantity == RGB_QUANTITY else CLIP)
    numbers = [
        [channel.mean for channel in channels],
        [channel.std for channel in channels],
        limits,
    ]
    # each (C, 1, 1)
    mean, std, limit = np.asarray(numbers, dtype=np.float32)[..., None, None]
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
    low = np.min(
        image.data, axis=axes, initial=np.inf, where=image.valid, keepdims=True
    )
    high = np.max(
        image.data, axis=axes, initial=-np.inf, where=image.valid, keepdims=True
    )
    span = np.where(high > low, high - low, 1)
    scaled = np.where(image.valid, (image.data - low) / span, 0)
    return replace(image, data=scaled.astype(np.float32), channels=tuple(channels))


def zero_shot_map(
    channels: Sequence[Channel],
    statistics: Statistics,
    pixel_std: Sequence[float] = PHOTO_STD,
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
        spread = np.asarray(statistics.std) / np.asarray(
            [channel.std for channel in channels], dtype=np.float64
        )
        rows = _components(
            spread[:, None]
            * np.asarray(statistics.correlation, dtype=np.float64)
            * spread
        )
    contrast = np.asarray(PHOTO_STD) / np.asarray(pixel_std, dtype=np.float64)  # (3,)
    return (contrast[:, None] * rows).astype(np.float32)


def _components(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (3, C) principal components of C >= 2 channels, of unit variance; their mean if none are correlated."""
    count = len(covariance)
    if not (covariance - np.diag(np.diag(covariance))).any():
        row = np.full(count, 1 / count)
        return np.repeat(
            (row / np.sqrt(max(float(row @ covariance @ row), 1e-4)))[None], 3, axis=0
        )
    variances, vectors = np.linalg.eigh(covariance)  # ascending
    chosen = [-1, -2, -3 if count > 2 else -1]
    rows = (
        vectors.T[chosen]
        / np.sqrt(np.maximum(variances[chosen], LEAST_VARIANCE * variances[-1]))[
            :, None
        ]
    )
    # The sign of a component is arbitrary: its first large weight is positive.
    large = np.abs(rows) > 0.9 * np.abs(rows).max(axis=1, keepdims=True)
    first = np.take_along_axis(rows, large.argmax(axis=1)[:, None], axis=1)  # (3, 1)
    found: npt.NDArray[np.float64] = rows * np.sign(first)
    return found


def describe(channels: Sequence[Channel]) -> str:
    """Return channels with their units: "thermal [K], red [count]"."""
    return ", ".join(f"{channel.name} [{channel.unit}]" for channel in channels)
