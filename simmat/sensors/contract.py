"""The input contract: what the values of the training images were like, and whether other images agree with it.

Each image is described by quantiles of each channel and by the correlations between channels. A fault, such as another
gain, changes the quantiles of all training images in a known way. So the contract compares how well new images fit the
training images with how well they fit the training images after each fault. Nothing here imports torch.
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
from simmat.types import Channel, FloatArray, SensorImage

Floats = npt.NDArray[np.float64]
FaultKind = Literal["gain", "offset", "order", "nodata"]

LEVELS = 65
"""Quantiles of a histogram, from the least value to the largest: 64 parts of equal share."""
_COMPARED = (1, 3, 6, 16, 32, 48, 58, 61, 63)
"""Quantiles that are compared, besides both ends."""
_KEPT = (0, *_COMPARED, LEVELS - 1)
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
_OFFSETS = (0.1, 0.25, 0.5)
"""Offsets as shares of the range of the training values."""
_ZERO_C = 273.15
_FACTORS = (
    (4.0, "counts of 10 and of 12 bits"),
    (16.0, "counts of 12 and of 16 bits"),
    (64.0, "numbers and the same numbers times 64"),
    (100.0, "a unit and hundredths of it"),
    (256.0, "counts of 8 and of 16 bits"),
    (1000.0, "a unit and thousandths of it"),
    (10000.0, "a reflectance and the same times 10000"),
)
"""Factors that two ways of storing the same values differ by."""
_FACTOR_TOLERANCE = 0.15

# chosen on training and validation images, see benchmarks/contract.py
_FREEDOM = 4.0
"""Degrees of freedom of the t-distributions: with few, a strange image says little."""
_SHRINKAGE = 0.1
_FLOOR = 0.05
"""Standard deviation that each number has at least, in interquartile ranges of the training values."""
_LEAST_LIKENESS, _MOST_LIKENESS = 0.15, 0.9
_FOLDS = 5


@dataclass(frozen=True)
class _Caution:
    """How far the log likelihood ratio of a fault must exceed that of training images left out in turn.

    Attributes:
        quantile: quantile of the training images, 1 for the largest.
        margin: factor of that quantile.
        change: least ratio from which a gain or an offset is named.
        order: the same for swapped channels.
    """

    quantile: float
    margin: float
    change: float
    order: float


_OF_FEW = _Caution(quantile=1.0, margin=1.25, change=5.0, order=2.5)
_OF_GROUP = _Caution(quantile=0.9, margin=1.0, change=3.0, order=1.5)
"""For `GROUP` images together, which differ less from each other's mean."""
_NODATA_SHARE = 0.005
"""Share of pixels with the same value outside of the training values from which it is called nodata."""


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
        values, valid = _pixels(image)
        return cls.of_pixels(values, valid)

    @classmethod
    def of_pixels(cls, values: FloatArray, valid: npt.NDArray[np.bool_]) -> ImageValues:
        """Describe (C, P) pixels."""
        count = len(values)
        levels = np.linspace(0, 1, LEVELS)
        quantiles = np.full((count, LEVELS), np.nan, np.float32)
        for index in range(count):
            own = values[index, valid[index]]
            if own.size:
                quantiles[index] = np.quantile(own, levels)
        if count > MAX_ORDERED:
            return cls(quantiles, np.zeros((0, 0), np.float32))
        correlation = np.eye(count, dtype=np.float32)
        common = values[:, valid.all(axis=0)].astype(np.float64)
        if common.shape[1] > 1:
            centred = common - common.mean(axis=1, keepdims=True)
            spread = np.sqrt((centred**2).sum(axis=1))
            products = np.outer(spread, spread)
            found = np.divide(
                centred @ centred.T,
                products,
                out=np.zeros_like(products),
                where=products > 0,
            )
            correlation = found.astype(np.float32)
        return cls(quantiles, correlation)


def thinned(image: SensorImage) -> SensorImage:
    """Return evenly spaced pixels of an image, as many as a contract looks at."""
    height, width = image.size_hw
    step = max(math.ceil(math.sqrt(height * width / _SAMPLED_PIXELS)), 1)
    if step == 1:
        return image
    data = np.ascontiguousarray(image.data[:, ::step, ::step])
    valid = np.ascontiguousarray(image.valid[:, ::step, ::step])
    return replace(image, data=data, valid=valid, georeference=None)


def _pixels(image: SensorImage) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Return (C, P) values and validity of the pixels that are looked at."""
    image = thinned(image)
    count = len(image.channels)
    return image.data.reshape(count, -1), image.valid.reshape(count, -1)


@dataclass(frozen=True)
class Fault:
    """One way in which images differ from the training images.

    Attributes:
        kind: what is wrong.
        channels: names of the channels; of a wrong order, the two that are swapped.
        amount: factor of a gain, offset in the channel's unit, or the value of nodata.
        strength: log likelihood ratio against the training images.
        text: the fault in words.
    """

    kind: FaultKind
    channels: tuple[str, ...]
    amount: float
    strength: float
    text: str


class InputContract(StrictModel):
    """What the values of the training images were like.

    Attributes:
        names: name of each of C channels, as the sensor loads them.
        units: unit of each channel.
        histograms: (C, LEVELS) quantiles of the values of all training images, from the least to the largest.
        images: base64 of (N, C, 11) little-endian float32: quantiles of N training images.
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
        histograms = histograms.astype(np.float32)
        kept = quantiles[:, :, list(_KEPT)]
        scale = _Scale.of(kept)
        names = []
        units = []
        for channel in channels:
            names.append(channel.name)
            units.append(channel.unit)
        return cls(
            names=tuple(names),
            units=tuple(units),
            histograms=tuple(map(tuple, histograms.tolist())),
            images=_packed(kept[picks]),
            correlations=_packed(correlations[picks]),
            likeness=round(_likeness(scale.features(kept)), 4),
        )

    def problems(self) -> Iterator[str]:
        """Yield contradictions."""
        count = len(self.names)
        if len(self.units) != count or len(self.histograms) != count or not count:
            yield "names, units and histograms must have one entry for each channel"
            return
        if any(len(row) != LEVELS for row in self.histograms):
            yield f"histograms must have {LEVELS} numbers for each channel"
        try:
            values = _unpacked(self.images)
            correlations = _unpacked(self.correlations)
        except ValueError as error:
            yield f"its images are not base64 of float32: {error}"
            return
        size = count * len(_KEPT)
        if values.size % size or not MIN_IMAGES * size <= values.size:
            yield f"images must hold {size} numbers for each of at least {MIN_IMAGES} images"
        elif correlations.size not in (0, values.size // size * count**2):
            yield f"correlations must hold {count**2} numbers for each image"
        if not (np.isfinite(values).all() and np.isfinite(correlations).all()):
            yield "images and correlations must be finite numbers"

    def check(self, images: Sequence[SensorImage]) -> list[Fault]:
        """Return what is wrong with images of the sensor, judged together; nothing if they fit.

        Args:
            images: of the contract's channels, in its order; of more than `GROUP`, the first are judged.
        """
        faults: list[Fault] = []
        described = []
        for image in images[:GROUP]:
            values, valid = _pixels(image)
            found, valid = self._nodata(values, valid)
            faults += found
            described.append(ImageValues.of_pixels(values, valid))
        faults = _different(faults)
        usable = []
        for one in described:
            if np.isfinite(one.quantiles).all():
                usable.append(one)
        if usable:
            faults += self._likelihood.faults(usable)
        return faults

    @cached_property
    def _likelihood(self) -> _Likelihood:
        count = len(self.names)
        kept = _unpacked(self.images).reshape(-1, count, len(_KEPT))
        correlations = _unpacked(self.correlations)
        if correlations.size:
            correlations = correlations.reshape(-1, count, count)
        else:
            correlations = np.zeros((len(kept), 0, 0))
        return _Likelihood(self, kept, correlations)

    def _nodata(
        self, values: FloatArray, valid: npt.NDArray[np.bool_]
    ) -> tuple[list[Fault], npt.NDArray[np.bool_]]:
        """Find numbers far outside of the training values that many pixels have; return the other pixels as valid."""
        faults = []
        rest = valid.copy()
        for index, (name, row) in enumerate(
            zip(self.names, self.histograms, strict=True)
        ):
            low = row[0]
            high = row[-1]
            span = max(high - low, 1e-12)
            own = values[index][valid[index]]
            if not own.size:
                continue
            for value in (float(own.min()), float(own.max())):
                is_far = value < low - span / 2 or value > high + span / 2
                share = float((own == value).mean())
                others = own[own != value]
                if not is_far or share < _NODATA_SHARE or not others.size:
                    continue
                gap = float(np.abs(others - value).min())
                if gap < span / 4:
                    continue
                rest[index] &= values[index] != value
                text = (
                    f"{share:.0%} of the pixels of channel {name!r} are {value:g} {self.units[index]}, far outside of "
                    f"the training values ({low:.4g} to {high:.4g}), as a number that means no measurement"
                )
                faults.append(Fault("nodata", (name,), value, math.inf, text))
        return faults, rest


def _different(faults: Sequence[Fault]) -> list[Fault]:
    """Return the first of all faults of the same kind, channel and amount."""
    found: dict[tuple[str, tuple[str, ...], float], Fault] = {}
    for fault in faults:
        found.setdefault((fault.kind, fault.channels, fault.amount), fault)
    return list(found.values())


@dataclass(frozen=True)
class _Scale:
    """The middle and the spread of the training values, by which quantiles become comparable numbers.

    Attributes:
        middle: (C,) median.
        spread: (C,) interquartile range as a standard deviation.
        low: (C,) least value.
        high: (C,) largest value.
    """

    middle: Floats
    spread: Floats
    low: Floats
    high: Floats

    @classmethod
    def of(cls, kept: FloatArray | Floats) -> _Scale:
        """Measure (N, C, 11) quantiles of training images."""
        inner = kept[:, :, 1:-1].astype(np.float64)
        lower, middle, upper = np.quantile(inner, (0.25, 0.5, 0.75), axis=(0, 2))
        low = np.asarray(np.quantile(kept[:, :, 0], 0.01, axis=0), np.float64)
        high = np.asarray(np.quantile(kept[:, :, -1], 0.99, axis=0), np.float64)
        spread = np.maximum((upper - lower) / 1.349, 1e-3 * (high - low) + 1e-12)
        return cls(middle, spread, low, high)

    def features(self, kept: FloatArray | Floats) -> Floats:
        """Return (N, C, 11) quantiles relative to the training values; large ones count by their logarithm."""
        scaled: Floats = (kept - self.middle[:, None]) / self.spread[:, None]
        return np.asarray(np.arcsinh(scaled), np.float64)


def _likeness(features: Floats) -> float:
    """Return the mean correlation of the numbers of images that follow each other, within its limits."""
    rows = features.reshape(len(features), -1)
    rows = rows - rows.mean(axis=0)
    rows = rows[:, rows.std(axis=0) > _FLOOR]
    if not rows.size:
        return _MOST_LIKENESS
    ratio = (rows[1:] * rows[:-1]).mean(axis=0) / (rows**2).mean(axis=0)
    return float(np.clip(ratio.mean(), _LEAST_LIKENESS, _MOST_LIKENESS))


@dataclass(frozen=True)
class _Change:
    """What a fault does to the stored numbers of a channel: number * gain + offset."""

    kind: FaultKind
    gain: float = 1.0
    offset: float = 0.0


def _changes(unit: str, span: float) -> list[_Change]:
    """Return the gains and offsets that are tried for a channel."""
    found = []
    for gain in _GAINS:
        found += [_Change("gain", gain=gain), _Change("gain", gain=1 / gain)]
    offsets = list(np.asarray(_OFFSETS) * span)
    if unit == "K":
        offsets.append(_ZERO_C)
    for offset in offsets:
        found += [_Change("offset", offset=offset), _Change("offset", offset=-offset)]
    return found


class _Fit:
    """Multivariate t-distributions of (H, N, K) numbers: N training images after each of H faults."""

    def __init__(self, rows: Floats) -> None:
        self.mean = rows.mean(axis=1)  # (H, K)
        centred = rows - self.mean[:, None]
        count = max(rows.shape[1] - 1, 1)
        covariance = np.swapaxes(centred, 1, 2) @ centred / count  # (H, K, K)
        size = rows.shape[2]
        diagonal = covariance * np.eye(size)
        self.covariance = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * diagonal
        self.covariance += _FLOOR**2 * np.eye(size)
        self.inverse = np.linalg.inv(self.covariance)
        self.log_det = np.linalg.slogdet(self.covariance)[1]

    def log_likelihood(self, rows: Floats, factor: float) -> Floats:
        """Return (H, M) of (M, K) numbers; `factor` is the covariance of a mean of images, relative to one image."""
        off = rows[None] - self.mean[:, None]  # (H, M, K)
        distance = np.einsum("hmk,hkl,hml->hm", off, self.inverse, off) / factor
        size = rows.shape[1]
        tail = (_FREEDOM + size) / 2 * np.log1p(distance / _FREEDOM)
        found: Floats = -tail - self.log_det[:, None] / 2
        return found


class _Model:
    """The training images, and the training images after each fault, as distributions."""

    def __init__(
        self, kept: Floats, correlations: Floats, units: Sequence[str], likeness: float
    ) -> None:
        self.scale = _Scale.of(kept)
        self.likeness = likeness
        count = kept.shape[1]
        self.changes = []
        self.fits = []
        for index in range(count):
            changes = _changes(
                units[index], float(self.scale.high[index] - self.scale.low[index])
            )
            self.changes.append(changes)
            self.fits.append(_Fit(self._changed(kept, index, changes)))
        self.pairs: list[tuple[int, int]] = []
        if correlations.size and count > 1:
            self.pairs = list(combinations(range(count), 2))
        self.orders = []
        for pair in self.pairs:
            rows = self._differences(kept, correlations, pair)
            self.orders.append(_Fit(np.stack([rows, -rows])))

    def _changed(self, kept: Floats, index: int, changes: Sequence[_Change]) -> Floats:
        """Return (1 + H, N, 11) numbers of a channel: as trained, and after each change."""
        own = kept[:, index]
        low = float(own.min())
        high = float(own.max())
        floor = -math.inf
        if low >= 0:
            floor = 0.0
        ceiling = math.inf
        if _is_full_scale(own):
            ceiling = high
        found = [own]
        for change in changes:
            # a camera of whole counts cannot store more than its largest number
            found.append(np.clip(own * change.gain + change.offset, floor, ceiling))
        middle = self.scale.middle[index]
        spread = self.scale.spread[index]
        scaled = (np.stack(found) - middle) / spread
        return np.asarray(np.arcsinh(scaled), np.float64)

    def _differences(
        self, kept: Floats, correlations: Floats, pair: tuple[int, int]
    ) -> Floats:
        """Return (N, K) numbers that change their sign if two channels are swapped."""
        one, other = pair
        middle = (self.scale.middle[one] + self.scale.middle[other]) / 2
        spread = (self.scale.spread[one] + self.scale.spread[other]) / 2
        scaled = np.arcsinh((kept[:, [one, other]] - middle) / spread)
        rest = [index for index in range(kept.shape[1]) if index not in pair]
        levels = scaled[:, 0] - scaled[:, 1]
        links = correlations[:, one, rest] - correlations[:, other, rest]
        return np.concatenate([levels, links], axis=1)

    def ratios(
        self, kept: Floats, correlations: Floats, size: int
    ) -> tuple[list[Floats], Floats]:
        """Return log likelihood ratios of images in groups of `size`.

        Returns:
            For each channel (H, M) of its changes, and (pairs, M) of swapped channels.
        """
        factor = self.likeness + (1 - self.likeness) / size
        features = self.scale.features(kept)
        changes = []
        for index, fit in enumerate(self.fits):
            found = fit.log_likelihood(_grouped(features[:, index], size), factor)
            changes.append(found[1:] - found[:1])
        orders = []
        for pair, fit in zip(self.pairs, self.orders, strict=True):
            rows = _grouped(self._differences(kept, correlations, pair), size)
            found = fit.log_likelihood(rows, factor)
            orders.append(found[1] - found[0])
        groups = len(kept) // size
        if not orders:
            return changes, np.zeros((0, groups))
        return changes, np.stack(orders)


def _grouped(rows: Floats, size: int) -> Floats:
    """Return the (M, K) means of (M * size, K)."""
    found: Floats = rows.reshape(-1, size, rows.shape[1]).mean(axis=1)
    return found


def _is_full_scale(values: Floats) -> bool:
    """Return whether the largest value is the largest number of 8, 10, 12, 14 or 16 bits, as of saturated counts."""
    return float(values.max()) in (255, 1023, 4095, 16383, 65535)


@dataclass(frozen=True)
class _Limits:
    """Ratios that images of the own sensor do not exceed.

    Attributes:
        single: of a change of one channel.
        joint: of a change of all channels, see `_joint`.
        order: of swapped channels.
    """

    single: float
    joint: float
    order: float


def _joint(changes: Sequence[Floats]) -> Floats:
    """Return (H, M): the ratio of a change of all channels."""
    shared = min(map(len, changes))
    total = np.zeros_like(changes[0][:shared])
    for found in changes:
        total += found[:shared]
    joined: Floats = total / math.sqrt(len(changes))
    return joined


class _Likelihood:
    """Judges images by the training images of a contract."""

    def __init__(
        self, contract: InputContract, kept: Floats, correlations: Floats
    ) -> None:
        self.contract = contract
        self.kept = kept
        self.correlations = correlations
        self.model = self._model_of(np.ones(len(kept), np.bool_))
        self._limits: dict[int, _Limits] = {}

    def _model_of(self, chosen: npt.NDArray[np.bool_]) -> _Model:
        return _Model(
            self.kept[chosen],
            self.correlations[chosen],
            self.contract.units,
            self.contract.likeness,
        )

    def limits(self, size: int) -> _Limits:
        """Return the limits of groups of images, from training images that the distributions have not seen."""
        if size in self._limits:
            return self._limits[size]
        rng = np.random.default_rng(0)
        folds = np.arange(len(self.kept)) * _FOLDS // len(self.kept)
        single = []
        joint = []
        order = []
        for fold in range(_FOLDS):
            model = self._model_of(folds != fold)
            own = np.flatnonzero(folds == fold)
            picks = own
            if size > 1:
                draws = []
                for _ in range(GROUP):
                    draws.append(rng.choice(own, size, replace=len(own) < size))
                picks = np.concatenate(draws)
            changes, orders = model.ratios(
                self.kept[picks], self.correlations[picks], size
            )
            single.append(np.concatenate(changes).max(axis=0))
            joint.append(_joint(changes).max(axis=0))
            if len(orders):
                order.append(orders.max(axis=0))
        caution = _OF_FEW
        if size >= GROUP:
            caution = _OF_GROUP
        found = _Limits(
            single=_limit(single, caution, caution.change),
            joint=_limit(joint, caution, caution.change),
            order=_limit(order, caution, caution.order),
        )
        self._limits[size] = found
        return found

    def faults(self, images: Sequence[ImageValues]) -> list[Fault]:
        """Return the gain or offset of each channel and the pair of swapped channels that explain the images."""
        size = len(images)
        quantiles = np.stack([one.quantiles for one in images])
        kept: Floats = quantiles[:, :, list(_KEPT)].astype(np.float64)
        correlations: Floats = np.stack([one.correlation for one in images]).astype(
            np.float64
        )
        changes, orders = self.model.ratios(kept, correlations, size)
        limits = self.limits(size)
        joint = _joint(changes)[:, 0]
        wrong = []
        strongest = limits.order
        for index, found in enumerate(changes):
            own = found[:, 0]
            is_wrong = own.max() > limits.single
            is_part = joint.max() > limits.joint and own[int(joint.argmax())] > 0
            if is_wrong or is_part:
                wrong.append(self._changed(index, own, kept))
                strongest = max(strongest, float(own.max()))
        if len(orders) and orders.max() > strongest:
            return [self._swapped(int(orders.argmax()), float(orders.max()))]
        return wrong

    def _swapped(self, number: int, strength: float) -> Fault:
        first, second = self.model.pairs[number]
        one = self.contract.names[first]
        other = self.contract.names[second]
        text = f"channels {one!r} and {other!r} look swapped"
        return Fault("order", (one, other), math.nan, strength, text)

    def _changed(self, index: int, ratios: Floats, kept: Floats) -> Fault:
        """Name the change of a channel, with its amount as the quantiles show it."""
        best = int(ratios.argmax())
        change = self.model.changes[index][best]
        name = self.contract.names[index]
        unit = self.contract.units[index]
        here = np.median(kept[:, index], axis=0)
        there = np.median(self.kept[:, index], axis=0)
        middle = len(_KEPT) // 2
        if change.kind == "gain":
            amount = _slope(here, there, change.gain)
            if amount >= 1:
                what = f"about {amount:.3g} times the training values"
            else:
                what = f"about 1/{1 / amount:.3g} of the training values"
            what += _as_between(max(amount, 1 / amount))
        else:
            amount = float(np.median(here - there))
            direction = "above" if amount > 0 else "below"
            what = f"about {abs(amount):.3g} {unit} {direction} the training values"
            if unit == "K" and abs(abs(amount) - _ZERO_C) < _ZERO_C / 10:
                what += ", as °C and kelvin differ"
        text = (
            f"the values of channel {name!r} are {what} (median {here[middle]:.4g} {unit}, in training "
            f"{there[middle]:.4g} {unit})"
        )
        return Fault(change.kind, (name,), amount, float(ratios.max()), text)


def _as_between(factor: float) -> str:
    """Return what usually differs by a factor; "" if it is no usual one."""
    for known, what in _FACTORS:
        if abs(factor / known - 1) <= _FACTOR_TOLERANCE:
            return f", as {what} differ"
    return ""


def _slope(here: Floats, there: Floats, fallback: float) -> float:
    """Return the factor between the inner quantiles of new and of training images."""
    usable = (there[1:-1] != 0) & (here[1:-1] != 0)
    if not usable.any():
        return fallback
    slope = float(np.median(here[1:-1][usable] / there[1:-1][usable]))
    if slope <= 0 or (slope > 1) != (fallback > 1):
        return fallback
    return slope


def _limit(found: Sequence[Floats], caution: _Caution, least: float) -> float:
    """Return the ratio that images of the own sensor do not exceed."""
    if not found:
        return least
    quantile = float(np.quantile(np.concatenate(found), caution.quantile))
    return max(quantile * caution.margin, least)


def _packed(values: FloatArray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def _unpacked(text: str) -> Floats:
    content = base64.b64decode(text, validate=True)
    return np.frombuffer(content, "<f4").astype(np.float64)
