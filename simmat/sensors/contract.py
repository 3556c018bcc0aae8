"""The input contract: what the values of the training images were like, and whether other images agree with it.

An image is described by quantiles of each channel and by the correlations between channels. A fault, such as another
gain, changes these numbers of every training image in a known way. So two explanations of new images are compared: they
are like the training images, or like the training images after the fault. A fault is named if the ratio of the two
likelihoods is larger than it is for training images that were left out. Nothing here imports torch.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from simmat.documents import FromLists, StrictModel
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

Floats = npt.NDArray[np.float64]
FaultKind = Literal["gain", "offset", "order", "nodata"]

LEVELS = 65
"""Quantiles of a histogram, from the least value to the largest: 64 parts of equal share."""
_KEPT = (0, 1, 3, 6, 16, 32, 48, 58, 61, 63, LEVELS - 1)
"""Quantiles by which images are compared: K = 11 of each channel."""
_SAMPLED_PIXELS = 1 << 14
MAX_IMAGES = 64
"""Training images that a contract keeps."""
_MAX_PLANES = 4096
"""Training images times channels, at most, where there are many channels."""
MIN_IMAGES = 8
"""Fewer training images say too little about the next one."""
MAX_ORDERED = 16
"""Channels up to which their order is checked."""
GROUP = 10
"""Images that are judged together, at most."""

_GAINS = (2.0, 4.0, 16.0, 64.0, 100.0, 256.0, 1000.0, 10000.0)
"""Gains that are tried, and one divided by each."""
_OFFSETS = (0.1, 0.5)
"""Offsets that are tried up and down, as shares of the range of the training values."""
_ZERO_C = 273.15
"""The offset that is tried for kelvin in place of the largest share."""
_FULL_SCALES = (255, 1023, 4095, 16383, 65535)
"""Largest numbers of 8, 10, 12, 14 and 16 bits, beyond which a camera counts no further."""

# chosen on training and validation images, see benchmarks/contract.py
_FREEDOM = 4.0
"""Degrees of freedom of the t-distributions: with few, a strange image says little."""
_FLOOR = 0.05
"""Standard deviation that each number has at least, in interquartile ranges of the training values."""
_LEAST_LIKENESS, _MOST_LIKENESS = 0.15, 0.9
_FOLDS = 5
_NODATA_SHARE = 0.005
"""Share of pixels with the same value outside of the training values from which it is called nodata."""
_LEAST_RATIO = 2.0
"""Log likelihood ratio from which a gain or an offset is named, at least; half of it for swapped channels."""
_GROUP_QUANTILE = 0.9
"""Quantile of the ratios of left-out training images beyond which a fault is named.

It holds for `GROUP` images together, which differ less from each other's mean; fewer must exceed all of them.
"""


def thinned(image: SensorImage) -> SensorImage:
    """Return evenly spaced pixels of an image, as many as a contract looks at."""
    height, width = image.size_hw
    step = math.ceil(math.sqrt(height * width / _SAMPLED_PIXELS))
    if step <= 1:
        return image
    return replace(
        image,
        data=np.ascontiguousarray(image.data[:, ::step, ::step]),
        valid=np.ascontiguousarray(image.valid[:, ::step, ::step]),
        georeference=None,
    )


def _pixels(image: SensorImage) -> tuple[FloatArray, BoolArray]:
    """Return copies of the (C, P) values and validity of the pixels that are looked at."""
    image = thinned(image)
    count = len(image.channels)
    return image.data.reshape(count, -1).copy(), image.valid.reshape(count, -1).copy()


@dataclass(frozen=True)
class ImageValues:
    """What a contract knows of an image.

    Attributes:
        quantiles: (C, LEVELS) of the valid pixels of each channel; NaN where it has none.
        correlation: (C, C) between channels; (0, 0) if there are more than `MAX_ORDERED`.
    """

    quantiles: FloatArray
    correlation: FloatArray

    @classmethod
    def of_image(cls, image: SensorImage) -> ImageValues:
        """Describe a (C, H, W) image in physical units by evenly spaced pixels of it."""
        return cls.of_pixels(*_pixels(image))

    @classmethod
    def of_pixels(cls, values: FloatArray, valid: BoolArray) -> ImageValues:
        """Describe (C, P) pixels."""
        count = len(values)
        quantiles = np.full((count, LEVELS), np.nan, np.float32)
        for index in range(count):
            own = values[index, valid[index]]
            if own.size:
                quantiles[index] = np.quantile(own, np.linspace(0, 1, LEVELS))
        if count > MAX_ORDERED:
            return cls(quantiles, np.zeros((0, 0), np.float32))
        correlation = np.eye(count)
        common = values[:, valid.all(axis=0)]
        if common.shape[1] > 1:
            # a channel of one value has no correlation
            with np.errstate(divide="ignore", invalid="ignore"):
                found = np.corrcoef(common, dtype=np.float64)
            correlation = np.nan_to_num(found).reshape(count, count)
        return cls(quantiles, correlation.astype(np.float32))


@dataclass(frozen=True)
class Fault:
    """One way in which images differ from the training images.

    Attributes:
        kind: what is wrong.
        channels: names of the channels; of a wrong order, the two that are swapped.
        amount: factor of a gain, offset in the channel's unit, or the value of nodata.
        text: the fault in words.
    """

    kind: FaultKind
    channels: tuple[str, ...]
    amount: float
    text: str


class InputContract(StrictModel):
    """What the values of the training images were like.

    Attributes:
        names: name of each of C channels, as the sensor loads them.
        units: unit of each channel.
        histograms: (C, LEVELS) quantiles of the values of all training images, from the least to the largest.
        images: base64 of (N, C, K) little-endian float32: quantiles of N training images.
        correlations: base64 of (N, C, C) little-endian float32: their correlations; "" for many channels.
        likeness: correlation between images that follow each other, 0..1.
    """

    names: FromLists[tuple[str, ...]]
    units: FromLists[tuple[str, ...]]
    histograms: FromLists[tuple[FromLists[tuple[float, ...]], ...]]
    images: str
    correlations: str = ""
    likeness: float = Field(ge=0, le=1)

    @classmethod
    def of(
        cls,
        channels: Sequence[Channel],
        quantiles: FloatArray,
        correlations: FloatArray,
    ) -> InputContract | None:
        """Make the contract of training images, in the order of the data set; None if they are too few.

        Args:
            channels: C channels, as the sensor loads them.
            quantiles: (N, C, LEVELS), see `ImageValues`.
            correlations: (N, C, C), or (N, 0, 0).
        """
        complete = np.isfinite(quantiles).all(axis=(1, 2))
        quantiles = quantiles[complete]
        correlations = correlations[complete]
        if len(quantiles) < MIN_IMAGES:
            return None
        count = len(channels)
        most = min(max(_MAX_PLANES // count, MIN_IMAGES), MAX_IMAGES, len(quantiles))
        picks = np.linspace(0, len(quantiles) - 1, most).astype(np.int64)
        pooled = np.moveaxis(quantiles, 1, 0).reshape(count, -1)  # (C, N·LEVELS)
        histograms = np.quantile(pooled, np.linspace(0, 1, LEVELS), axis=1).T
        kept = quantiles[:, :, list(_KEPT)]
        return cls(
            names=tuple(channel.name for channel in channels),
            units=tuple(channel.unit for channel in channels),
            histograms=tuple(map(tuple, histograms.astype(np.float32).tolist())),
            images=_packed(kept[picks]),
            correlations=_packed(correlations[picks]),
            likeness=round(_likeness(_Scale.of(kept).scaled(kept)), 4),
        )

    def problems(self) -> Iterator[str]:
        """Yield that it is damaged."""
        if not self._is_complete():
            yield "names, units, histograms, images and correlations do not fit each other"

    def _is_complete(self) -> bool:
        """Return whether its parts are of the same channels and images, and all numbers finite."""
        count = len(self.names)
        if not count == len(self.units) == len(self.histograms) > 0:
            return False
        if any(len(row) != LEVELS for row in self.histograms):
            return False
        try:
            images, correlations = self._arrays()
        except ValueError:
            return False
        is_finite = np.isfinite(images).all() and np.isfinite(correlations).all()
        return len(images) >= MIN_IMAGES and bool(is_finite)

    def _arrays(self) -> tuple[Floats, Floats]:
        """Return the (N, C, K) quantiles and (N, C, C) or (N, 0, 0) correlations of the training images."""
        count = len(self.names)
        images = _unpacked(self.images).reshape(-1, count, len(_KEPT))
        ordered = count if self.correlations else 0
        correlations = _unpacked(self.correlations)
        return images, correlations.reshape(len(images), ordered, ordered)

    def check(self, images: Sequence[SensorImage]) -> list[Fault]:
        """Return what is wrong with images of the sensor, judged together; nothing if they fit.

        Args:
            images: of the contract's channels, in its order; of more than `GROUP`, the first are judged.
        """
        faults: dict[tuple[int, float], Fault] = {}
        described = []
        for image in images[:GROUP]:
            values, valid = _pixels(image)
            for channel in range(len(values)):
                own = values[channel][valid[channel]]
                for fault in self._fill_values(channel, own):
                    valid[channel] &= values[channel] != fault.amount
                    faults.setdefault((channel, fault.amount), fault)
            found = ImageValues.of_pixels(values, valid)
            if np.isfinite(found.quantiles).all():
                described.append(found)
        if not described:
            return list(faults.values())
        return [*faults.values(), *self._changes(described)]

    def _fill_values(self, channel: int, values: FloatArray) -> Iterator[Fault]:
        """Find numbers that many pixels have, far outside of all others, among the (P,) values of a channel."""
        name = self.names[channel]
        low = self.histograms[channel][0]
        high = self.histograms[channel][-1]
        span = max(high - low, 1e-12)
        for value in np.unique(values)[[0, -1]].tolist() if values.size else ():
            is_value = values == value
            share = float(is_value.mean())
            outside = max(low - value, value - high)
            if outside <= span / 2 or not _NODATA_SHARE <= share < 1:
                continue
            if np.abs(values[~is_value] - value).min() >= span / 4:
                text = (
                    f"{share:.0%} of the pixels of channel {name!r} are {value:g} {self.units[channel]}, far outside "
                    f"of the training values ({low:.4g} to {high:.4g}), as a number that means no measurement"
                )
                yield Fault("nodata", (name,), value, text)

    @cached_property
    def _training_images(self) -> _TrainingImages:
        return _TrainingImages(*self._arrays(), self.units, self.likeness)

    def _changes(self, images: Sequence[ImageValues]) -> list[Fault]:
        """Return the gain or offset of each channel, or the pair of swapped channels, that explains the images."""
        size = len(images)
        quantiles = np.stack([one.quantiles for one in images]).astype(np.float64)
        kept = quantiles[:, :, list(_KEPT)]
        correlations = np.stack([one.correlation for one in images]).astype(np.float64)
        trained = self._training_images
        changes, orders = trained.ratios(kept, correlations, size)
        change_limit, order_limit = trained.limits(size).tolist()
        largest = changes.max(axis=(1, 2))  # (C,)
        is_wrong = largest > change_limit
        if orders.max(initial=0) > largest[is_wrong].max(initial=order_limit):
            first, second = trained.pairs[int(orders.argmax())]
            names = (self.names[first], self.names[second])
            text = f"channels {names[0]!r} and {names[1]!r} look swapped"
            return [Fault("order", names, math.nan, text)]
        here = np.median(kept, axis=0)
        there = np.median(trained.kept, axis=0)
        found = []
        for channel in np.flatnonzero(is_wrong).tolist():
            # the first gain and offset change nothing
            gain = float(trained.gains[1 + int(changes[channel].argmax())])
            found.append(self._changed(channel, gain, here[channel], there[channel]))
        return found

    def _changed(self, channel: int, gain: float, here: Floats, there: Floats) -> Fault:
        """Name the change of a channel between its (K,) quantiles here and in training; an offset has the gain 1."""
        name = self.names[channel]
        unit = self.units[channel]
        now = float(here[len(_KEPT) // 2])
        before = float(there[len(_KEPT) // 2])
        values = f"the values of channel {name!r} are about"
        medians = f"(median {now:.4g} {unit}, in training {before:.4g} {unit})"
        if gain == 1:
            offset = float(np.median(here - there))
            direction = "above" if offset > 0 else "below"
            text = f"{values} {abs(offset):.3g} {unit} {direction} the training values {medians}"
            return Fault("offset", (name,), offset, text)
        if before * now > 0:
            gain = now / before
        text = f"{values} {gain:.3g} times the training values {medians}"
        return Fault("gain", (name,), gain, text)


@dataclass(frozen=True)
class _Scale:
    """The middle and the spread of the training values, by which quantiles become comparable numbers.

    Attributes:
        middle: (C, 1) median.
        spread: (C, 1) interquartile range as a standard deviation.
        range: (C, 1) from the least value to the largest, but for the outermost 1 %.
    """

    middle: Floats
    spread: Floats
    range: Floats

    @classmethod
    def of(cls, kept: FloatArray | Floats) -> _Scale:
        """Measure (N, C, K) quantiles of training images."""
        inner = kept[:, :, 1:-1].astype(np.float64)
        lower, middle, upper = np.quantile(inner, (0.25, 0.5, 0.75), axis=(0, 2))
        low = np.asarray(np.quantile(kept[:, :, 0], 0.01, axis=0), np.float64)
        high = np.asarray(np.quantile(kept[:, :, -1], 0.99, axis=0), np.float64)
        width = high - low
        spread = np.maximum((upper - lower) / 1.349, 1e-3 * width + 1e-12)
        return cls(middle[:, None], spread[:, None], width[:, None])

    def scaled(self, kept: FloatArray | Floats) -> Floats:
        """Return (N, C, K) quantiles relative to the training values; large ones count by their logarithm."""
        return np.asarray(np.arcsinh((kept - self.middle) / self.spread), np.float64)


def _likeness(scaled: Floats) -> float:
    """Return the mean correlation of the numbers of images that follow each other, within its limits."""
    rows = (scaled - scaled.mean(axis=0)).reshape(len(scaled), -1)
    rows = rows[:, rows.std(axis=0) > _FLOOR]
    if not rows.size:
        return _MOST_LIKENESS
    ratio = (rows[1:] * rows[:-1]).mean(axis=0) / (rows**2).mean(axis=0)
    return float(np.clip(ratio.mean(), _LEAST_LIKENESS, _MOST_LIKENESS))


class _Distributions:
    """Multivariate t-distributions, one for each leading index of (..., N, K) numbers of N images."""

    def __init__(self, rows: Floats) -> None:
        self.mean = rows.mean(axis=-2, keepdims=True)  # (..., 1, K)
        centred = rows - self.mean
        covariance = np.swapaxes(centred, -1, -2) @ centred / (rows.shape[-2] - 1)
        covariance += _FLOOR**2 * np.eye(rows.shape[-1])
        self.inverse = np.linalg.inv(covariance)
        self.log_det = np.linalg.slogdet(covariance)[1]

    def log_likelihood(self, rows: Floats, factor: float) -> Floats:
        """Return (..., M) of (..., M, K) numbers, each the mean of some images.

        Args:
            rows: the numbers.
            factor: the variance of such a mean, relative to that of one image.
        """
        off = rows - self.mean
        distance = np.einsum("...mk,...kl,...ml->...m", off, self.inverse, off)
        size = rows.shape[-1]
        tail = np.log1p(distance / factor / _FREEDOM) * (_FREEDOM + size) / 2
        return np.asarray(-tail - self.log_det[..., None] / 2)


class _TrainingImages:
    """How the numbers of N images are distributed without a fault, and with each fault."""

    def __init__(
        self, kept: Floats, correlations: Floats, units: Sequence[str], likeness: float
    ) -> None:
        self.kept = kept
        self.correlations = correlations
        self.units = units
        self.likeness = likeness
        self.scale = _Scale.of(kept)
        self._limits: dict[int, Floats] = {}
        # a camera of whole counts stores no number below 0, or beyond its largest
        low = kept.min(axis=(0, 2), keepdims=True)  # (1, C, 1)
        high = kept.max(axis=(0, 2), keepdims=True)
        floor = np.where(low >= 0, 0, -np.inf)
        ceiling = np.where(np.isin(high, _FULL_SCALES), high, np.inf)
        self.gains, offsets = _gains_and_offsets(self.scale.range, units)
        changed = []
        for gain, offset in zip(self.gains, offsets.T, strict=True):
            stored = np.clip(kept * gain + offset[:, None], floor, ceiling)
            changed.append(self.scale.scaled(stored))
        # (1 + H, N, C, K) to (C, 1 + H, N, K)
        self.changes = _Distributions(np.transpose(np.stack(changed), (2, 0, 1, 3)))
        self.pairs: list[tuple[int, int]] = []
        if correlations.size:
            self.pairs = list(combinations(range(len(units)), 2))
        rows = self._differences(kept, correlations)
        self.orders = _Distributions(np.stack([rows, -rows], axis=1))

    def limits(self, size: int) -> Floats:
        """Return the ratios that groups of images of the own sensor do not exceed: of a change, and of an order."""
        if size not in self._limits:
            quantile = _GROUP_QUANTILE if size >= GROUP else 1
            ratios = np.concatenate(list(self._left_out(size)), axis=1)
            limits = np.quantile(ratios, quantile, axis=1)
            self._limits[size] = np.maximum(limits, (_LEAST_RATIO, _LEAST_RATIO / 2))
        return self._limits[size]

    def _left_out(self, size: int) -> Iterator[Floats]:
        """Yield the (2, M) largest ratios of groups of images that the distributions have not seen."""
        rng = np.random.default_rng(0)
        folds = np.arange(len(self.kept)) * _FOLDS // len(self.kept)
        for fold in range(_FOLDS):
            picks = np.flatnonzero(folds == fold)
            if size > 1:
                is_scarce = len(picks) < size
                draws = [rng.choice(picks, size, is_scarce) for _ in range(GROUP)]
                picks = np.concatenate(draws)
            seen = folds != fold
            others = _TrainingImages(
                self.kept[seen], self.correlations[seen], self.units, self.likeness
            )
            changes, orders = others.ratios(
                self.kept[picks], self.correlations[picks], size
            )
            largest = changes.max(axis=(0, 1))
            yield np.stack([largest, orders.max(axis=0, initial=0)])

    def _differences(self, kept: Floats, correlations: Floats) -> Floats:
        """Return (P, N, ·) numbers of each pair of channels, which change their sign if the two are swapped."""
        count = kept.shape[1]
        found = []
        for pair in self.pairs:
            own = list(pair)
            middle = self.scale.middle[own].mean()
            spread = self.scale.spread[own].mean()
            first, second = np.moveaxis(
                np.arcsinh((kept[:, own] - middle) / spread), 1, 0
            )
            others = [index for index in range(count) if index not in pair]
            links = correlations[:, pair[0], others] - correlations[:, pair[1], others]
            found.append(np.concatenate([first - second, links], axis=1))
        if not found:
            return np.zeros((0, len(kept), 1))
        return np.stack(found)

    def ratios(
        self, kept: Floats, correlations: Floats, size: int
    ) -> tuple[Floats, Floats]:
        """Return the log likelihood ratios of images in M groups of `size`: of each fault to no fault.

        Returns:
            (C, H, M) of the gains and offsets of each channel, and (P, M) of the pairs of channels that may be swapped.
        """
        factor = self.likeness + (1 - self.likeness) / size
        rows = np.moveaxis(self.scale.scaled(kept), 1, 0)  # (C, N, K)
        changes = self.changes.log_likelihood(_means(rows, size)[:, None], factor)
        rows = _means(self._differences(kept, correlations), size)
        orders = self.orders.log_likelihood(rows[:, None], factor)
        return changes[:, 1:] - changes[:, :1], orders[:, 1] - orders[:, 0]


def _gains_and_offsets(
    value_range: Floats, units: Sequence[str]
) -> tuple[Floats, Floats]:
    """Return (1 + H,) gains and (C, 1 + H) offsets that may be wrong; the first of each changes nothing."""
    gains = np.array([1.0, *_GAINS, *(1 / gain for gain in _GAINS)])
    steps = np.array(_OFFSETS) * value_range
    steps[np.array(units) == "K", -1] = _ZERO_C
    offsets = np.concatenate(
        [np.zeros((len(units), len(gains))), steps, -steps], axis=1
    )
    return np.concatenate([gains, np.ones(2 * len(_OFFSETS))]), offsets


def _means(rows: Floats, size: int) -> Floats:
    """Return the (..., M, K) means of each `size` of (..., M * size, K)."""
    leading = rows.shape[:-2]
    found = rows.reshape(*leading, rows.shape[-2] // size, size, rows.shape[-1])
    return np.asarray(found.mean(axis=-2))


def _packed(values: FloatArray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> Floats:
    content = base64.b64decode(text, validate=True)
    return np.frombuffer(content, "<f4").astype(np.float64)
