"""Report the contents and the problems of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from simmat.data.card import class_title
from simmat.data.dataset import Dataset
from simmat.data.fill_values import fill_value_hints
from simmat.data.fingerprint import shared_images
from simmat.data.index import DataIndex, read_index
from simmat.data.index_file import NO_CLASS
from simmat.data.leakage import neighbour_warning
from simmat.data.samples import SPLITS
from simmat.data.statistics import Moments
from simmat.errors import equal_problems

_NAMED = 10
"""Most images without a mask that the text lists."""


@dataclass(frozen=True)
class ChannelReport:
    """One channel of a split, transformed but not normalized.

    Attributes:
        name: of the channel.
        unit: of the values.
        low: smallest valid value; None where no pixel is valid.
        mean: over valid pixels.
        high: largest valid value.
        invalid: fraction of pixels without a measurement.
    """

    name: str
    unit: str
    low: float | None
    mean: float | None
    high: float | None
    invalid: float


@dataclass(frozen=True)
class SplitReport:
    """The contents of one split.

    Attributes:
        name: "train", "val" or "test".
        samples: number of samples.
        without_region: ids of samples without a region, which training and scoring skip.
        regions: number of regions.
        dropped: regions smaller than the card allows.
        area_px: smallest, median and largest area of a region in pixels; None without regions.
        classes: class -> number of regions; empty if regions have no class.
        sizes_hw: (height, width) -> number of images, most frequent first.
        ignored: fraction of pixels that are not scored.
        channels: one report per channel.
    """

    name: str
    samples: int
    without_region: tuple[str, ...]
    regions: int
    dropped: int
    area_px: tuple[int, int, int] | None
    classes: Mapping[int, int]
    sizes_hw: Mapping[tuple[int, int], int]
    ignored: float
    channels: tuple[ChannelReport, ...]


@dataclass(frozen=True)
class DataReport:
    """The contents of a data set, see `check_dataset`.

    Attributes:
        root: its folder.
        regions: the region rule of the card.
        split_note: where the splits come from.
        splits: reports of the splits that have samples.
        problems: what would stop training or scoring.
        notes: what the user should check.
        class_names: class -> name, from the card or the COCO categories.
        unlabelled: files of images without a mask, which are not used, relative to the folder.
        read_file: one image, relative to the folder; "" if the sensor's transform keeps the channels.
        as_read: channels of that image in physical units, before the sensor's transform.
    """

    root: str
    regions: str
    split_note: str
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    class_names: Mapping[int, str] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()
    read_file: str = ""
    as_read: tuple[ChannelReport, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as json values."""
        values = asdict(self)
        values["class_names"] = {str(number): name for number, name in sorted(self.class_names.items())}
        for split in values["splits"]:
            split["sizes_hw"] = [[*size, count] for size, count in split["sizes_hw"].items()]
            split["classes"] = {str(number): count for number, count in split["classes"].items()}
        return values

    def text(self) -> str:
        """Return the report as text of several lines."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.root} (regions: {self.regions})"
        yield self.split_note
        for split in self.splits:
            yield ""
            yield from _split_lines(split, self.class_names)
        if self.as_read:
            yield ""
            yield f"{self.read_file} as read, before the sensor's transform:"
            yield from (f"  {_channel_line(channel)}" for channel in self.as_read)
        if self.unlabelled:
            yield ""
            yield f"Images without a mask, which are skipped ({len(self.unlabelled)}):"
            yield from (f"  - {name}" for name in self.unlabelled[:_NAMED])
            if (more := len(self.unlabelled) - _NAMED) > 0:
                yield f"  and {more} more; --json lists all"
        for title, entries in (("Notes", self.notes), ("Problems", self.problems)):
            if entries:
                yield ""
                yield f"{title} ({len(entries)}):"
                yield from (f"  - {entry}" for entry in equal_problems(entries))


def check_dataset(dataset: Dataset, progress: Callable[[int], None] | None = None) -> DataReport:
    """Check every image and label; files that have not changed since the last pass are not read again.

    Args:
        dataset: the data set.
        progress: called with the number of completed samples.
    """
    index = read_index(dataset, progress)
    dataset = index.dataset
    used = [tally for name in SPLITS if (tally := _Tally(index, name)).samples]
    problems = [str(fault) for fault in index.faults.values()]
    problems += [problem for tally in used for problem in tally.problems()]
    problems += shared_images(dataset.samples, index.reference_digests())
    return DataReport(
        root=str(dataset.root),
        regions=dataset.card.regions,
        split_note=dataset.split_note,
        splits=tuple(tally.report() for tally in used),
        problems=tuple(problems),
        notes=tuple(filter(None, (*_notes(dataset, used), neighbour_warning(index)))),
        class_names=dataset.class_names,
        unlabelled=tuple(sample.reference.relative_to(dataset.root).as_posix() for sample in dataset.unlabelled),
        **_as_read(index),
    )


def _as_read(index: DataIndex) -> dict[str, Any]:
    """Report one image in physical units if the splits' values are transformed, so that a wrong scale is visible."""
    dataset = index.dataset
    sample = next((sample for sample in dataset.samples if sample.id not in index.faults), None)
    if sample is None or set(dataset.channels()) <= set(dataset.loaded_channels):
        return {}
    image = dataset.image(sample)
    planes = [plane[valid] for plane, valid in zip(image.data, image.valid, strict=True)]
    return {
        "read_file": sample.reference.relative_to(dataset.root).as_posix(),
        "as_read": tuple(
            ChannelReport(
                name=channel.name,
                unit=channel.unit,
                low=float(plane.min()) if plane.size else None,
                mean=float(plane.mean(dtype=np.float64)) if plane.size else None,
                high=float(plane.max()) if plane.size else None,
                invalid=1 - plane.size / image.data[0].size,
            )
            for channel, plane in zip(image.channels, planes, strict=True)
        ),
    }


class _Tally:
    """Totals over the samples of one split."""

    def __init__(self, index: DataIndex, name: str) -> None:
        self.dataset, self.name, self.channels = index.dataset, name, index.dataset.channels()
        samples = [sample for sample in self.dataset.samples if sample.split == name]
        used = [sample for sample in samples if sample.id not in index.faults]
        table = index.table_of(used)
        self.samples, self.read = len(samples), len(used)
        regions = np.diff(table.ends[:, 0], prepend=0).tolist()
        self.without_region = [sample.id for sample, count in zip(used, regions, strict=True) if not count]
        self.areas = table.instances[:, 1].tolist()
        self.classes = Counter(number for number in table.instances[:, 0].tolist() if number != NO_CLASS)
        self.sizes = Counter((height, width) for height, width in table.counts[:, :2].tolist())
        self.pixels = sum(height * width * count for (height, width), count in self.sizes.items())
        self.dropped, self.ignored, self.hidden = table.counts[:, 2:5].sum(axis=0).tolist()
        self.stored = table.stored
        packed, low, high = table.split_numbers()
        moments = Moments.unpacked(packed)
        self.low, self.high = low.min(axis=0, initial=np.inf), high.max(axis=0, initial=-np.inf)
        mean, valid = (np.diagonal(part, axis1=1, axis2=2) for part in (moments.mean, moments.count))
        self.total, self.valid = (mean * valid).sum(axis=0), valid.sum(axis=0)

    def problems(self) -> Iterator[str]:
        """Describe what would stop training or scoring on this split."""
        if self.read and not self.areas:
            card = self.dataset.card
            yield (
                f"{self.name}: no sample has a region of at least {card.smallest}; "
                "check the masks, --regions and --min-region"
            )
        for channel, least, most in zip(self.channels, self.low, self.high, strict=True):
            if self.read and least > most:
                yield f"{self.name}: channel {channel.name!r} has no valid pixel; check --nodata"
        if self.name == "train":  # the statistics are those of this split
            yield from self.constants()

    def constants(self) -> Iterator[str]:
        """Describe the channels that have one value everywhere."""
        for channel, least, most in zip(self.channels, self.low, self.high, strict=True):
            if least == most:
                yield f"{self.name}: channel {channel.name!r} is {least:g} {channel.unit} everywhere"

    def report(self) -> SplitReport:
        """Return the report of the split."""
        mean = self.total / np.maximum(self.valid, 1)
        areas = sorted(self.areas)
        return SplitReport(
            name=self.name,
            samples=self.samples,
            without_region=tuple(self.without_region),
            regions=len(self.areas),
            dropped=self.dropped,
            area_px=(areas[0], areas[len(areas) // 2], areas[-1]) if areas else None,
            classes=dict(sorted(self.classes.items())),
            sizes_hw=dict(self.sizes.most_common()),
            ignored=self.ignored / max(self.pixels, 1),
            channels=tuple(
                ChannelReport(
                    name=channel.name,
                    unit=channel.unit,
                    low=_finite(self.low[index]),
                    mean=_finite(mean[index]) if self.valid[index] else None,
                    high=_finite(self.high[index]),
                    invalid=1 - float(self.valid[index]) / max(self.pixels, 1),
                )
                for index, channel in enumerate(self.channels)
            ),
        )


def _notes(dataset: Dataset, tallies: Sequence[_Tally]) -> Iterator[str]:
    for tally in tallies:
        if tally.dropped > len(tally.areas):
            yield (
                f"{tally.name}: {tally.dropped} regions are smaller than {dataset.card.smallest} and dropped, "
                f"{len(tally.areas)} are kept"
            )
        if tally.hidden:
            yield f"{tally.name}: {tally.hidden} regions have no pixel that can be scored (all ignored or invalid)"
        if tally.name != "train":
            yield from tally.constants()
        unnamed = sorted(set(tally.classes) - set(dataset.class_names)) if dataset.class_names else []
        if unnamed:
            yield f"{tally.name}: classes without a name in the card: {unnamed}"
        yield from fill_value_hints(dataset.adapter, tally.stored, tally.name, dataset.card.nodata)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _split_lines(split: SplitReport, names: Mapping[int, str]) -> Iterator[str]:
    area = "" if split.area_px is None else " of {} to {} px (median {})".format(*(split.area_px[i] for i in (0, 2, 1)))
    yield f"{split.name}: {split.samples} samples, {split.regions} regions{area}"
    sizes = ", ".join(f"{width}x{height} ({count})" for (height, width), count in list(split.sizes_hw.items())[:4])
    more = f" and {len(split.sizes_hw) - 4} more" if len(split.sizes_hw) > 4 else ""
    yield f"  sizes (width x height): {sizes}{more}"
    if split.classes:
        classes = (f"{class_title(number, names)}: {count}" for number, count in split.classes.items())
        yield "  regions by class: " + ", ".join(classes)
    if split.without_region:
        yield f"  {len(split.without_region)} samples without a region, first: {split.without_region[0]}"
    if split.dropped:
        yield f"  {split.dropped} smaller regions dropped"
    if split.ignored:
        yield f"  {split.ignored:.1%} of the pixels are not scored"
    for channel in split.channels:
        yield f"  {_channel_line(channel)}"


def _channel_line(channel: ChannelReport) -> str:
    if channel.low is None or channel.mean is None or channel.high is None:
        return f"{channel.name} [{channel.unit}]: no valid pixel"
    return (
        f"{channel.name} [{channel.unit}]: {channel.low:g} to {channel.high:g}, mean {channel.mean:g}, "
        f"{channel.invalid:.1%} invalid"
    )
