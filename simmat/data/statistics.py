"""Channel statistics of a training split: one pass, bounded memory, only what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError, all_problems
from simmat.nodata import describe_nodata
from simmat.normalize import Statistics
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

if TYPE_CHECKING:
    from simmat.data.dataset import Dataset
    from simmat.data.samples import Sample

Matrix = npt.NDArray[np.float64]

BLOCK_VALUES = 1 << 20
"""Values taken at once; bounds memory in float64."""


@dataclass(frozen=True)
class Moments:
    """Moments of C channels over the pixels where both of a pair are valid; on the diagonal those of one channel.

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
        """Take the moments of (C, P) values where (C, P) `valid` says so."""
        weight = valid.astype(np.float64)
        # Sums of squares around the channel's own mean keep their digits at 300 K as at 0.
        shift = (np.where(valid, values, 0).sum(axis=1, dtype=np.float64) / np.maximum(weight.sum(axis=1), 1))[:, None]
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
            self.cross + other.cross + step * step.T * both,
        )

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


def image_moments(image: SensorImage, before: Moments | None = None) -> Moments:
    """Return the moments of the valid pixels of a (C, H, W) image, together with those of `before`."""
    values = image.data.reshape(len(image.channels), -1)  # (C, H·W)
    valid = image.valid.reshape(values.shape)
    step = max(BLOCK_VALUES // len(values), 1)
    for start in range(0, values.shape[1], step):
        part = Moments.of_pixels(values[:, start : start + step], valid[:, start : start + step])
        before = part if before is None else before.merge(part)
    if before is None:
        raise DataError("an image without pixels has no statistics")
    return before


def channel_statistics(
    dataset: Dataset, samples: Sequence[Sample], progress: Callable[[int], None] | None = None
) -> Statistics:
    """Compute the statistics of the channels that reach the network, over the valid pixels of some samples.

    Images are read one at a time; one that several samples share counts once.

    Args:
        dataset: where samples are read.
        samples: the training split.
        progress: called with 1 after every sample.

    Raises:
        DataError: a channel has no valid pixel or one value only; all such channels at once.
    """
    channels = dataset.channels()
    moments: Moments | None = None
    low, high = np.full(len(channels), np.inf), np.full(len(channels), -np.inf)
    seen: set[tuple[object, ...]] = set()
    for sample in samples:
        key = tuple(sample.files.values())
        if key not in seen:
            seen.add(key)
            image = dataset.adapter.transform(dataset.image(sample))
            values = image.data.reshape(len(channels), -1)  # (C, H·W)
            valid = image.valid.reshape(len(channels), -1)
            low = np.minimum(low, np.min(values, axis=1, initial=np.inf, where=valid))
            high = np.maximum(high, np.max(values, axis=1, initial=-np.inf, where=valid))
            moments = image_moments(image, moments)
        if progress is not None:
            progress(1)
    if moments is None:
        raise DataError(f"{dataset.root}: no samples to take channel statistics of")
    _check(dataset, channels, low, high)
    return moments.statistics()


def _check(dataset: Dataset, channels: Sequence[Channel], low: Matrix, high: Matrix) -> None:
    problems = []
    for channel, least, most in zip(channels, low, high, strict=True):
        if least > most:
            nodata = "" if dataset.card.nodata is None else f" (nodata is {describe_nodata(dataset.card.nodata)})"
            problems.append(f"channel {channel.name!r} has no valid pixel{nodata}")
        elif least == most:
            problems.append(f"channel {channel.name!r} is {least:g} {channel.unit} in every valid pixel")
    if problems:
        title = f"{dataset.root}: channels without information; leave them out with --channels, or check --nodata:"
        raise DataError(all_problems(title, problems))
