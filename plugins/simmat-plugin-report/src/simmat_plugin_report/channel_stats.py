"""Statistics of the channels of a data set in their units: missing values, moments, percentiles and histograms.

One pass over the files, image by image, and window by window for images larger than memory. The memory for the values
does not grow with their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample
from simmat.drawing.display import display_style
from simmat.errors import DataError, SimMATError
from simmat.sensors.adapter import load_sample
from simmat.sensors.normalize import Moments, image_moments
from simmat.types import Channel, FloatArray, SensorImage, Window

PERCENTILES = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0)
_ENDS = (0.5, 99.5)
"""Percentiles at the ends of a histogram."""
MAX_VALUES = 1 << 24
"""Most values of a channel for percentiles and histogram; of more, every n-th is taken."""
MAX_PIXELS = 1 << 24
"""Most pixels of an image that is read as a whole."""
_CORNER_PX = 64
"""Side in pixels of the corner that is read to find the channels of a large image."""
READ_PX = 2048
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


@dataclass
class _Tally:
    """The values of one channel so far.

    Attributes:
        values: every `step`-th valid value.
    """

    channel: Channel
    pixels: int = 0
    moments: Moments | None = None
    low: float = math.inf
    high: float = -math.inf
    step: int = 1
    values: list[FloatArray] = field(default_factory=list)

    def add(self, image: SensorImage) -> None:
        """Add an image of one channel."""
        self.pixels += image.data.size
        values = image.data[image.valid]
        if not values.size:
            return
        moments = image_moments(image)
        self.moments = moments if self.moments is None else self.moments.merge(moments)
        self.low, self.high = (
            min(self.low, float(values.min())),
            max(self.high, float(values.max())),
        )
        self.values.append(values[:: self.step])
        while sum(part.size for part in self.values) > MAX_VALUES:
            self.step *= 2
            self.values = [part[::2].copy() for part in self.values]

    def stats(self, bins: int) -> ChannelStats:
        """Return the statistics, with a histogram of so many bins."""
        valid = 0 if self.moments is None else int(self.moments.count[0, 0])
        channel = self.channel
        head = (
            channel.name,
            channel.quantity,
            channel.unit,
            self.pixels,
            valid,
            1 - valid / max(self.pixels, 1),
        )
        if self.moments is None:
            return ChannelStats(*head)
        values, statistics = np.concatenate(self.values), self.moments.statistics()
        wanted = (_ENDS[0], *PERCENTILES, _ENDS[1])
        start, *inner, stop = (
            np.percentile(values, wanted, method="inverted_cdf").astype(float).tolist()
        )
        start, stop = (start, stop) if stop > start else (self.low, self.high)
        return ChannelStats(
            *head,
            low=self.low,
            high=self.high,
            mean=statistics.mean[0],
            std=statistics.std[0],
            percentiles={
                f"{percent:g}": value
                for percent, value in zip(PERCENTILES, inner, strict=True)
            },
            bins=tuple(np.histogram(values, bins, (start, stop))[0].tolist()),
            range=(start, stop),
        )


def channel_stats(
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    bins: int = 40,
    transformed: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> tuple[int, list[ChannelStats], dict[str, str]]:
    """Read images once and compute statistics of their channels; an image shared by several samples counts once.

    Args:
        transformed: use the values after the sensor's transform, not the physical values.

    Returns:
        The number of images, one report a channel, and sample id -> why its image cannot be read.

    Raises:
        DataError: no image can be read.
    """
    dataset = with_channels(dataset, samples)
    tallies: list[_Tally] = []
    faults: dict[str, str] = {}
    seen: set[tuple[tuple[str, ...], Window | None]] = set()
    for sample in samples:
        place = (sample.images, sample.window)
        # the image may be damaged at its end
        before = [replace(tally, values=[*tally.values]) for tally in tallies]
        try:
            for image in () if place in seen else read_parts(dataset, sample):
                shown = dataset.adapter.transform(image) if transformed else image
                tallies = tallies or [_Tally(channel) for channel in shown.channels]
                for index, tally in enumerate(tallies):
                    tally.add(shown.select([index]))
            seen.add(place)
        except SimMATError as error:
            tallies, faults[sample.id] = before, str(error)
        progress(1)
    if not seen:
        first = next(iter(faults.values()), "there is none")
        raise DataError(f"{dataset.root}: no image can be read; the first: {first}")
    return len(seen), [tally.stats(bins) for tally in tallies], faults


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
    size_hw = (
        dataset.adapter.window_size(sample.files) if sample.window is None else None
    )
    if size_hw is None or size_hw[0] * size_hw[1] <= MAX_PIXELS:
        yield dataset.image(sample)
        return
    (height, width), side = size_hw, READ_PX
    for y in range(0, height, side):
        for x in range(0, width, side):
            yield dataset.image(
                sample.within(Window(y, x, min(y + side, height), min(x + side, width)))
            )


_BLOCKS = " ▁▂▃▄▅▆▇█"


def stats_lines(channel: ChannelStats) -> Iterator[str]:
    """Yield a channel as lines of text, in the unit of pictures, such as °C for kelvin."""
    look = display_style(Channel(channel.name, channel.quantity, channel.unit))
    unit = channel.unit
    if look.unit != unit:
        unit += f", shown in {look.unit}"
    yield (
        f"{channel.name} [{unit}], {channel.quantity}: {channel.valid:,} valid pixels, "
        f"{channel.missing:.2%} missing"
    )
    if (
        channel.low is None
        or channel.high is None
        or channel.mean is None
        or channel.std is None
    ):
        return
    assert channel.range is not None
    mean, low, high = (
        look.text(value) for value in (channel.mean, channel.low, channel.high)
    )
    yield f"  mean {mean}, std {look.factor * channel.std:.6g}, min {low}, max {high}"
    yield "  " + ", ".join(
        f"p{percent} {look.text(value)}"
        for percent, value in channel.percentiles.items()
    )
    most = max(channel.bins)
    bars = "".join(
        _BLOCKS[-(-count * (len(_BLOCKS) - 1) // most)] if most else " "
        for count in channel.bins
    )
    yield f"  {look.text(channel.range[0])} |{bars}| {look.text(channel.range[1])}"
