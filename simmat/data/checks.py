"""Report the contents of a data set, and what is wrong with it by severity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

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

Severity = Literal["error", "warning", "note"]

_MANY_EMPTY = 0.5
"""Fraction of images without a region from which it is a warning."""
_UNEQUAL, _VERY_UNEQUAL = 10, 100
"""Times that the most frequent class has the regions of the rarest, from which it is a note and a warning."""
_MOST_SURE = 4
"""Standard errors from which `simmat.data.second_look` says that masks are misaligned."""
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
class Finding:
    """Something about a data set that the user should know.

    Attributes:
        severity: "error" stops training or scoring; "warning" makes scores wrong or training worse; "note" is worth
            knowing.
        kind: what it is about, the same for every data set: "near-duplicates".
        text: a sentence.
        samples: ids of the samples that it concerns, where it concerns single ones.
        pairs: ids of two samples each, where it concerns pairs.
    """

    severity: Severity
    kind: str
    text: str
    samples: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()


def texts_of(findings: Sequence[Finding]) -> list[str]:
    """Return the texts of findings; many files with the same fault are one text."""
    faults = equal_problems([found.text for found in findings if found.kind == "damaged"])
    return [*faults, *(found.text for found in findings if found.kind != "damaged")]


@dataclass(frozen=True)
class DataReport:
    """The contents of a data set, see `check_dataset`.

    Attributes:
        root: its folder.
        regions: the region rule of the card.
        split_note: where the splits come from.
        splits: reports of the splits that have samples.
        findings: what is wrong or should be checked, the worst first.
        class_names: class -> name, from the card or the COCO categories.
        unlabelled: files of images without a mask, which are not used, relative to the folder.
        read_file: one image, relative to the folder; "" if the sensor's transform keeps the channels.
        as_read: channels of that image in physical units, before the sensor's transform.
    """

    root: str
    regions: str
    split_note: str
    splits: tuple[SplitReport, ...]
    findings: tuple[Finding, ...]
    class_names: Mapping[int, str] = field(default_factory=dict)
    unlabelled: tuple[str, ...] = ()
    read_file: str = ""
    as_read: tuple[ChannelReport, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What would stop training or scoring: the errors."""
        return tuple(found.text for found in self.findings if found.severity == "error")

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should check: warnings and notes."""
        return tuple(found.text for found in self.findings if found.severity != "error")

    def to_dict(self) -> dict[str, Any]:
        """Return the report as json values."""
        values = asdict(self)
        values |= {"problems": list(self.problems), "notes": list(self.notes)}
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
        for severity, title in (("note", "Notes"), ("warning", "Warnings"), ("error", "Problems")):
            if entries := [found for found in self.findings if found.severity == severity]:
                yield ""
                yield f"{title} ({len(entries)}):"
                yield from (f"  - {entry}" for entry in texts_of(entries))


def check_dataset(
    dataset: Dataset, progress: Callable[[int], None] | None = None, *, second_look: bool = False
) -> DataReport:
    """Check every image and label; files that have not changed since the last pass are not read again.

    Args:
        dataset: the data set.
        progress: called with the number of completed samples.
        second_look: read images again for near-duplicates across splits and misaligned masks, see
            `simmat.data.second_look`.
    """
    index = read_index(dataset, progress)
    dataset = index.dataset
    used = [tally for name in SPLITS if (tally := _Tally(index, name)).samples]
    findings = [Finding("error", "damaged", str(fault), (name,)) for name, fault in index.faults.items()]
    findings += [finding for tally in used for finding in tally.findings()]
    findings += [
        Finding("error", "duplicates", text) for text in shared_images(dataset.samples, index.reference_digests())
    ]
    findings += _notes(dataset, used)
    if neighbours := neighbour_warning(index):
        findings.append(Finding("warning", "neighbours", neighbours))
    if second_look:
        findings += _second_look(index, progress)
    order = ("error", "warning", "note")
    return DataReport(
        root=str(dataset.root),
        regions=dataset.card.regions,
        split_note=dataset.split_note,
        splits=tuple(tally.report() for tally in used),
        findings=tuple(sorted(findings, key=lambda found: order.index(found.severity))),
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

    def findings(self) -> Iterator[Finding]:
        """Describe what would stop training or scoring on this split."""
        if self.read and not self.areas:
            card = self.dataset.card
            text = f"{self.name}: no sample has a region of at least {card.smallest}; check the masks, --regions "
            yield Finding("error", "no-regions", f"{text}and --min-region")
        for channel, least, most in zip(self.channels, self.low, self.high, strict=True):
            if self.read and least > most:
                text = f"{self.name}: channel {channel.name!r} has no valid pixel; check --nodata"
                yield Finding("error", "no-valid-pixel", text)
        severity: Severity = "error" if self.name == "train" else "warning"  # the statistics are those of train
        yield from (Finding(severity, "constant-channel", text) for text in self.constants())

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


def _notes(dataset: Dataset, tallies: Sequence[_Tally]) -> Iterator[Finding]:
    for tally in tallies:
        if tally.dropped > len(tally.areas):
            text = (
                f"{tally.name}: {tally.dropped} regions are smaller than {dataset.card.smallest} and dropped, "
                f"{len(tally.areas)} are kept"
            )
            yield Finding("warning", "dropped-regions", text)
        if tally.hidden:
            text = f"{tally.name}: {tally.hidden} regions have no pixel that can be scored (all ignored or invalid)"
            yield Finding("warning", "hidden-regions", text)
        unnamed = sorted(set(tally.classes) - set(dataset.class_names)) if dataset.class_names else []
        if unnamed:
            yield Finding("note", "unnamed-classes", f"{tally.name}: classes without a name in the card: {unnamed}")
        for text in fill_value_hints(dataset.adapter, tally.stored, tally.name, dataset.card.nodata):
            yield Finding("warning", "fill-values", text)
        yield from _background_only(tally)
    yield from _imbalance(dataset, tallies)


def _background_only(tally: _Tally) -> Iterator[Finding]:
    """Describe the images of a split without a region; a split without any region is an error of its own."""
    count = len(tally.without_region)
    if not count or not tally.areas:
        return
    severity: Severity = "warning" if count > _MANY_EMPTY * tally.read else "note"
    text = (
        f"{tally.name}: {count} of {tally.read} images ({count / tally.read:.0%}) are all background, and training and "
        "scoring with clicks skip them; if they hold objects, their masks are missing"
    )
    yield Finding(severity, "background-only", text, tuple(tally.without_region))


def _imbalance(dataset: Dataset, tallies: Sequence[_Tally]) -> Iterator[Finding]:
    """Describe classes that are rare in train, or absent there and in another split."""
    by_split = {tally.name: tally for tally in tallies}
    train = by_split.get("train")
    if train is None or not train.classes:
        return
    for name, tally in by_split.items():
        if absent := sorted(set(tally.classes) - set(train.classes)):
            titles = ", ".join(class_title(number, dataset.class_names) for number in absent)
            text = f"{name} has classes that train has not: {titles}; nothing can learn them, so move samples"
            yield Finding("warning", "class-imbalance", text)
    most, fewest = (pick(train.classes.items(), key=lambda item: item[1]) for pick in (max, min))
    ratio = most[1] / fewest[1]
    if ratio >= _UNEQUAL:
        names = [class_title(number, dataset.class_names) for number, _ in (most, fewest)]
        text = (
            f"train: class {names[0]} has {most[1]} regions, {ratio:.0f} times as many as class {names[1]} with "
            f"{fewest[1]}; rare classes are learned badly, and their scores vary much; label more of them"
        )
        yield Finding("warning" if ratio >= _VERY_UNEQUAL else "note", "class-imbalance", text)


def _second_look(index: DataIndex, progress: Callable[[int], None] | None) -> Iterator[Finding]:
    from simmat.data.second_look import look_again

    look = look_again(index, progress)
    if look.pairs:
        held_out = {sample.id: sample.split for _, *pair in look.pairs for sample in pair if sample.split != "train"}
        plural, verb = ("", "s") if len(held_out) == 1 else ("s", "")
        first = "; ".join(
            f"{one.id!r} ({one.split}) and {other.id!r} ({other.split}), {alike:.2f}"
            for alike, one, other in look.pairs[:3]
        )
        text = (
            f"{len(held_out)} image{plural} of {' and '.join(sorted(set(held_out.values())))} nearly show{verb} what "
            f"an image of another split shows, so scores are too good: {first}"
            + ("; --json lists all" if len(look.pairs) > 3 else "")
            + f". Found by the correlation of the fine structure of {look.compared} images, shrunk, in every flip and "
            "turn (1 is equal, from 0.8 on it is said); look at some before you move them to one split"
        )
        pairs = tuple((one.id, other.id) for _, one, other in look.pairs)
        yield Finding(
            "warning", "near-duplicates", text, tuple(sorted({name for pair in pairs for name in pair})), pairs
        )
    for split, place in look.places.items():
        text = (
            f"{split}: the masks fit the edges of their images better {place.what}: there the edges under their "
            f"outlines are {place.there:.1f} standard deviations stronger than elsewhere, here {place.here:.1f}; so in "
            f"{place.share:.0%} of the images, {place.sure:.0f} standard errors beyond chance ({_MOST_SURE} is said). "
            "Check how images and masks were exported"
        )
        yield Finding("warning", "misaligned-masks", text)
    if look.odd:
        words = "; ".join(
            f"{sample.id!r} {place.what} ({place.there:.1f} there, {place.here:.1f} here)"
            for sample, place in look.odd[:3]
        )
        text = (
            f"{len(look.odd)} of {look.aligned} masks would fit the edges of their image better elsewhere, though the "
            f"others fit: {words}, in standard deviations of the strength of edges. A guess, so look at them"
        )
        yield Finding("note", "misaligned-masks", text, tuple(sample.id for sample, _ in look.odd))


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
