"""Moments of channels over valid pixels, which can be merged over images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simmat.sensors.normalize import Statistics
from simmat.types import BoolArray, FloatArray, SensorImage

Matrix = npt.NDArray[np.float64]

BLOCK_VALUES = 1 << 17
"""Values per block, which fit a processor's cache as float64."""


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
        correlation = np.divide(self.cross, spread, out=np.zeros_like(spread), where=spread > 0).clip(-1, 1)
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
        pairs = Moments.unstacked(stacked[:half]).merge(Moments.unstacked(stacked[half : 2 * half]))
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
