"""What is in a data set, as plain values and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from simmat.data.classes import class_title

_NAMED = 10
"""Images without a mask that the text names."""


@dataclass(frozen=True)
class ChannelReport:
    """One channel of a split, as it reaches the network before normalization.

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
    """One split.

    Attributes:
        name: "train", "val" or "test".
        samples: how many.
        without_region: ids of samples that hold no region; training and scoring pass over them.
        regions: how many.
        dropped: regions smaller than the card allows.
        area_px: smallest, median and largest area of a region in pixels; None where there is none.
        classes: class -> regions; empty where regions have no class.
        sizes_hw: (height, width) -> images, most frequent first.
        ignored: fraction of pixels that are not scored.
        channels: C channels.
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
    """A whole data set, see `simmat.data.checks.check_dataset`.

    Attributes:
        root: its folder.
        regions: the rule by which regions were found.
        split_note: where the splits come from.
        splits: those that have samples.
        problems: what training or scoring would stumble over.
        notes: what a person should look at.
        class_names: class -> name, of the card or the COCO categories.
        unlabelled: files of the images without a mask, which nothing uses, relative to the folder.
    """

    root: str
    regions: str
    split_note: str
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    class_names: Mapping[int, str] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain json values."""
        values = asdict(self)
        values["class_names"] = {str(number): name for number, name in sorted(self.class_names.items())}
        for split in values["splits"]:
            split["sizes_hw"] = [[*size, count] for size, count in split["sizes_hw"].items()]
            split["classes"] = {str(number): count for number, count in split["classes"].items()}
        return values

    def text(self) -> str:
        """Return the report for people, several lines."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.root} (regions: {self.regions})"
        yield self.split_note
        for split in self.splits:
            yield ""
            yield from _split_lines(split, self.class_names)
        if self.unlabelled:
            yield ""
            yield f"Images without a mask, which are skipped ({len(self.unlabelled)}):"
            yield from (f"  - {name}" for name in self.unlabelled[:_NAMED])
            if (more := len(self.unlabelled) - _NAMED) > 0:
                yield f"  and {more} more; --json names all"
        for title, entries in (("Notes", self.notes), ("Problems", self.problems)):
            if entries:
                yield ""
                yield f"{title} ({len(entries)}):"
                yield from (f"  - {entry}" for entry in entries)


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
