"""Statistics of the channels of a data set in their units: missing values, moments, percentiles and histograms.

One pass over the files, image by image, and window by window for images larger than memory. The memory for the values
does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample
from simmat.data.statistics import Moments, image_moments
from simmat.drawing.colour_maps import display_style
from simmat.errors import DataError, SimMATError
from simmat.sensors.adapter import load_sample
from simmat.types import BoolArray, Channel, FloatArray, SensorImage, Window
from simmat_plugin_report.thermal_scales import ThermalScales

PERCENTILES = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0)
_TAILS = (0.5, 99.5)
"""Percentiles at the ends of a histogram; values outside are counted."""
MAX_PIXELS = 1 << 24
"""Most pixels of an image that is read as a whole."""
_CORNER_PX = 64
"""Side in pixels of the corner that is read to find the channels of a large image."""
_READ_PX = 2048
"""Side in pixels of the windows of a large image."""


@dataclass(frozen=True)
class ChannelStats:
    """The values of one channel, in its unit.

    Attributes:
        missing: fraction of invalid pixels.
        low: smallest value; None without a valid pixel, as the following attributes.
        mean: mean over valid pixels.
        std: population standard deviation.
        percentiles: percentage -> value.
        bins: counts of equal bins from the first to the last of `range`.
        range: the smallest and the largest value in the bins.
        precision: relative step of percentiles and bins; 0 if they are exact.
    """

    name: str
    quantity: str
    unit: str
    pixels: int
    valid: int
    missing: float
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    percentiles: Mapping[str, float] = field(default_factory=dict)
    bins: tuple[int, ...] = ()
    range: tuple[float, float] | None = None
    below: int = 0
    above: int = 0
    precision: float = 0.0


@dataclass(frozen=True)
class StatsReport:
    """The channels of a data set.

    Attributes:
        faults: sample id -> why its image cannot be read.
        warnings: what is doubtful about the values.
    """

    root: str
    images: int
    channels: tuple[ChannelStats, ...]
    faults: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as json values."""
        return asdict(self)

    def text(self) -> str:
        """Return the report as text of several lines, in the units of pictures, such as °C for kelvin."""
        lines = [f"{self.root}: {self.images} images"]
        for channel in self.channels:
            lines += ["", *_lines(channel)]
        return "\n".join(lines)


class _Tally:
    """Accumulates the values of one channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.pixels, self.counts = channel, 0, ValueCounts()
        self.moments: Moments | None = None
        self.low, self.high = np.inf, -np.inf

    def add(self, image: SensorImage) -> None:
        """Add an image of one channel."""
        self.pixels += image.data.size
        valid: BoolArray = image.valid[0]
        values = image.data[0] if valid.all() else image.data[0][valid]
        if not values.size:
            return
        self._add_moments(image_moments(image), float(values.min()), float(values.max()))
        self.counts.add(values.ravel())

    def _add_moments(self, found: Moments, low: float, high: float) -> None:
        self.moments = found if self.moments is None else self.moments.merge(found)
        self.low, self.high = min(self.low, low), max(self.high, high)

    def merge(self, other: _Tally) -> None:
        """Add the values of another tally of the same channel."""
        self.pixels += other.pixels
        if other.moments is not None:
            self._add_moments(other.moments, other.low, other.high)
            self.counts.merge(other.counts)

    def stats(self, bins: int) -> ChannelStats:
        valid = self.counts.total
        head = (self.channel.name, self.channel.quantity, self.channel.unit, self.pixels, valid)
        missing = 1 - valid / max(self.pixels, 1)
        if self.moments is None:
            return ChannelStats(*head, missing)
        start, *inner, stop = self.counts.percentiles([_TAILS[0], *PERCENTILES, _TAILS[1]])
        start, stop = (start, stop) if stop > start else (self.low, self.high)
        counts, below, above = self.counts.histogram(start, stop, bins)
        statistics = self.moments.statistics()
        return ChannelStats(
            *head,
            missing,
            low=self.low,
            high=self.high,
            mean=statistics.mean[0],
            std=statistics.std[0],
            percentiles={f"{percent:g}": value for percent, value in zip(PERCENTILES, inner, strict=True)},
            bins=tuple(counts),
            range=(start, stop),
            below=below,
            above=above,
            precision=2.0 ** (self.counts.dropped - 24) if self.counts.dropped else 0.0,
        )


def channel_stats(
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    bins: int = 40,
    transformed: bool = False,
    progress: Callable[[int], object] | None = None,
) -> StatsReport:
    """Read images once and compute statistics of their channels; an image shared by several samples counts once.

    Args:
        transformed: use the values after the sensor's transform, not the physical values.

    Raises:
        DataError: no image can be read.
    """
    dataset = with_channels(dataset, samples)
    tallies: list[_Tally] = []
    faults: dict[str, str] = {}
    scales = ThermalScales()
    seen: set[tuple[tuple[str, ...], Window | None]] = set()
    for sample in samples:
        place = (sample.images, sample.window)
        image_tallies: list[_Tally] = []  # for this image only, whose end may be damaged
        try:
            for image in () if place in seen else read_parts(dataset, sample):
                shown = dataset.adapter.transform(image) if transformed else image
                image_tallies = image_tallies or [_Tally(channel) for channel in shown.channels]
                for index, tally in enumerate(image_tallies):
                    tally.add(shown.select([index]))
            seen.add(place)
            for tally, more in zip(tallies, image_tallies, strict=False):
                tally.merge(more)
            for tally in image_tallies:
                if tally.moments is not None:
                    scales.add(tally.channel, tally.moments.statistics().mean[0])
            tallies = tallies or image_tallies
        except SimMATError as error:
            faults[sample.id] = str(error)
        if progress is not None:
            progress(1)
    if not seen:
        first = next(iter(faults.values()), "there is none")
        raise DataError(f"{dataset.root}: no image can be read; the first: {first}")
    return StatsReport(
        str(dataset.root), len(seen), tuple(tally.stats(bins) for tally in tallies), faults, scales.warnings()
    )


def with_channels(dataset: Dataset, samples: Sequence[Sample]) -> Dataset:
    """Return the data set with the channels of the first readable image; of a large image only a corner is read."""
    if dataset.known_channels is not None:
        return dataset
    for sample in (dataset.first, *samples):
        try:
            size_hw = dataset.adapter.window_size(sample.files)
            window = sample.window
            if window is None and size_hw is not None:
                window = Window(0, 0, *(min(side, _CORNER_PX) for side in size_hw))
            image = load_sample(dataset.adapter, sample.files, window)
            channels = image.channels, dataset.adapter.transform(image).channels
        except SimMATError:  # reported when the whole image is read
            continue
        return replace(dataset, known_channels=channels)
    return dataset


def read_parts(dataset: Dataset, sample: Sample) -> Iterator[SensorImage]:
    """Yield an image as a whole, or window by window if it is larger than `MAX_PIXELS`.

    Raises:
        SimMATError: the image cannot be read.
    """
    return map(dataset.image, parts_of(dataset, sample))


def parts_of(dataset: Dataset, sample: Sample) -> Iterator[Sample]:
    """Yield a sample, or its windows if it is larger than `MAX_PIXELS`."""
    size_hw = dataset.adapter.window_size(sample.files) if sample.window is None else None
    if size_hw is None or size_hw[0] * size_hw[1] <= MAX_PIXELS:
        yield sample
        return
    for window in windows_side_by_side(size_hw, _READ_PX):
        yield sample.within(window)


def windows_side_by_side(size_hw: tuple[int, int], side: int) -> Iterator[Window]:
    """Yield windows that cover each pixel of an image once, row by row; the last ones are smaller."""
    height, width = size_hw
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield Window(y, x, min(y + side, height), min(x + side, width))


_BLOCKS = " ▁▂▃▄▅▆▇█"


def _lines(channel: ChannelStats) -> Iterator[str]:
    look = display_style(Channel(channel.name, channel.quantity, channel.unit))
    yield (
        f"{channel.name} [{look.unit}], {channel.quantity}: {channel.valid:,} valid pixels, "
        f"{channel.missing:.2%} missing"
    )
    if channel.low is None or channel.high is None or channel.mean is None or channel.std is None:
        return
    assert channel.range is not None
    mean, low, high = (look.text(value) for value in (channel.mean, channel.low, channel.high))
    yield f"  mean {mean}, std {look.factor * channel.std:.6g}, min {low}, max {high}"
    yield "  " + ", ".join(f"p{percent} {look.text(value)}" for percent, value in channel.percentiles.items())
    most = max(channel.bins)
    bars = "".join(_BLOCKS[-(-count * (len(_BLOCKS) - 1) // most)] if most else " " for count in channel.bins)
    outside = f"  ({channel.below:,} below, {channel.above:,} above)" if channel.below or channel.above else ""
    yield f"  {look.text(channel.range[0])} |{bars}| {look.text(channel.range[1])}{outside}"


_MAX_DISTINCT = 1 << 17
"""Most different values that are counted exactly; 16 bits have half as many."""

Keys = npt.NDArray[np.uint32]


class ValueCounts:
    """Counts of float32 values.

    Up to `_MAX_DISTINCT` different values are counted exactly. If there are more, neighbouring values are counted
    together, by dropping as few of the last bits as necessary. The order of the values has no effect.

    Attributes:
        dropped: number of dropped last bits; 0 means exact.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._keys: Keys = np.zeros(0, np.uint32)
        self._counts = np.zeros(0, np.int64)

    def add(self, values: FloatArray) -> None:
        """Count (N,) finite values."""
        keys, counts = np.unique(_ordered(values) >> np.uint32(self.dropped), return_counts=True)
        self._add(keys, counts)

    def merge(self, other: ValueCounts) -> None:
        """Add the counts of another histogram."""
        while self.dropped < other.dropped:
            self._drop()
        self._add(other._keys >> np.uint32(self.dropped - other.dropped), other._counts)

    def _add(self, keys: Keys, counts: npt.NDArray[np.int64]) -> None:
        self._join(np.concatenate([self._keys, keys]), np.concatenate([self._counts, counts]))
        while len(self._keys) > _MAX_DISTINCT:
            self._drop()

    def _drop(self) -> None:
        self.dropped += 1
        self._join(self._keys >> np.uint32(1), self._counts)

    def _join(self, keys: Keys, counts: npt.NDArray[np.int64]) -> None:
        self._keys, places = np.unique(keys, return_inverse=True)
        self._counts = np.zeros(len(self._keys), np.int64)
        np.add.at(self._counts, places, counts)

    @property
    def total(self) -> int:
        """Number of values."""
        return int(self._counts.sum())

    def values(self) -> npt.NDArray[np.float64]:
        """Return the different values in ascending order; for values counted together, their middle."""
        middle = (1 << self.dropped) >> 1
        return _values((self._keys << np.uint32(self.dropped)) | np.uint32(middle))

    def percentiles(self, wanted: Sequence[float]) -> list[float]:
        """Return lower percentiles, which are occurring values."""
        reached = np.cumsum(self._counts)
        places = np.searchsorted(reached, np.asarray(wanted) / 100 * reached[-1])
        return [float(value) for value in self.values()[np.minimum(places, len(reached) - 1)]]

    def histogram(self, low: float, high: float, bins: int) -> tuple[list[int], int, int]:
        """Return the counts of equal bins from `low` to `high` inclusive, and the numbers of values below and above."""
        values = self.values()
        inside = (values >= low) & (values <= high)
        span = high - low
        places = np.minimum(((values[inside] - low) / span * bins).astype(np.int64), bins - 1) if span > 0 else 0
        counts = np.zeros(bins, np.int64)
        np.add.at(counts, places, self._counts[inside])
        return counts.tolist(), int(self._counts[values < low].sum()), int(self._counts[values > high].sum())


def _ordered(values: FloatArray) -> Keys:
    """Map float32 values to integers with the same order."""
    bits = (values + np.float32(0)).view(np.uint32)  # -0 becomes 0
    top = np.uint32(1 << 31)
    return np.where(bits & top, ~bits, bits | top)


def _values(keys: Keys) -> npt.NDArray[np.float64]:
    top = np.uint32(1 << 31)
    return np.where(keys & top, keys & ~top, ~keys).astype(np.uint32).view(np.float32).astype(np.float64)
