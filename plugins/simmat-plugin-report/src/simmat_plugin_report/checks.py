"""Check a data set: report its content, and its problems by severity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from simmat.data.card import class_title
from simmat.data.dataset import Dataset
from simmat.data.fingerprint import shared_images
from simmat.data.index import DataIndex, neighbour_warning, normalized_warning, read_index
from simmat.data.samples import SPLITS
from simmat.data.statistics import Moments
from simmat.documents import Document, FromLists
from simmat.drawing.display import display_style
from simmat.errors import equal_problems, few_of
from simmat.types import Channel

Severity = Literal["error", "warning", "note"]
ClassNumber = Annotated[int, Field(strict=False, ge=-(2**63), lt=2**63)]
"""The number of a class, which is a string where it is a key in json."""

_NAMED = 10
"""Most images without a mask that the text lists."""
_FILL_VALUES = (-9999.0, -99999.0, -32768.0)
"""Values that files often hold where nothing was measured."""
_MANY_EMPTY = 0.5
"""Least fraction of images without a region for a warning."""
_NO_MASKS = (
    "no image has a mask, so there is nothing to train on or to score; label some with `simmat annotate`, or save "
    "masks as masks/NAME.png"
)
_UNEQUAL, _VERY_UNEQUAL = 10, 100
"""Least ratio of regions of the most frequent class to those of the rarest, for a note and for a warning."""


class ChannelReport(Document):
    """One channel of some images; text shows it in the unit of pictures, such as °C for kelvin.

    Attributes:
        low: smallest valid value; None without a valid pixel.
        invalid: fraction of invalid pixels.
    """

    name: str
    quantity: str = "unknown"
    unit: str
    low: float | None
    mean: float | None
    high: float | None
    invalid: float

    def __str__(self) -> str:
        look = display_style(Channel(self.name, self.quantity, self.unit))
        title = f"{self.name} [{look.unit}]"
        if self.low is None or self.mean is None or self.high is None:
            return f"{title}: no valid pixel"
        low, mean, high = (look.text(value) for value in (self.low, self.mean, self.high))
        return f"{title}: {low} to {high}, mean {mean}, {self.invalid:.1%} invalid"


class SplitReport(Document):
    """The contents of one split.

    Attributes:
        name: "train", "val" or "test"; "images" where there are no labels.
        sequences: (name, number of frames, of objects) of each sequence that the samples are frames of. An object with
            the same id in all frames is one; 0 where labels have no ids.
        without_region: ids of samples without a region, which training and scoring skip.
        dropped: regions smaller than the card allows.
        area_px: smallest, median and largest area of a region in pixels; None without regions.
        classes: class -> number of regions; empty if regions have no class.
        sizes_hw: (height, width, number of images), most frequent first.
        ignored: fraction of pixels that are not scored.
        channels: one report per channel, transformed but not normalized.
    """

    name: str
    samples: int
    sequences: FromLists[tuple[tuple[str, int, int], ...]] = ()
    without_region: FromLists[tuple[str, ...]]
    regions: int
    dropped: int
    area_px: FromLists[tuple[int, int, int]] | None
    classes: dict[ClassNumber, int]
    sizes_hw: FromLists[tuple[tuple[int, int, int], ...]]
    ignored: float
    channels: FromLists[tuple[ChannelReport, ...]]

    def lines(self, names: Mapping[int, str]) -> Iterator[str]:
        """Yield lines of text, with names of classes."""
        area = "" if self.area_px is None else " of {0} to {2} px (median {1})".format(*self.area_px)
        count = len(self.sequences)
        what = f"frames of {count} sequence{'s' * (count != 1)}" if count else "samples"
        yield f"{self.name}: {self.samples} {what}, {self.regions} regions{area}"
        if tracked := [f"{name} {objects} in {frames} frames" for name, frames, objects in self.sequences if objects]:
            yield f"  objects: {few_of(tracked, 4)}"
        sizes = ", ".join(f"{width}x{height} ({count})" for height, width, count in self.sizes_hw[:4])
        more = f" and {len(self.sizes_hw) - 4} more" if len(self.sizes_hw) > 4 else ""
        yield f"  sizes (width x height): {sizes}{more}"
        if self.classes:
            classes = (f"{class_title(number, names)}: {count}" for number, count in self.classes.items())
            yield "  regions by class: " + ", ".join(classes)
        if self.without_region:
            yield f"  {len(self.without_region)} samples without a region, first: {self.without_region[0]}"
        if self.dropped:
            yield f"  {self.dropped} smaller regions dropped"
        if self.ignored:
            yield f"  {self.ignored:.1%} of the pixels are not scored"
        for channel in self.channels:
            yield f"  {channel}"


class Finding(Document):
    """A problem or fact of a data set that the user should know.

    Attributes:
        severity: "error" stops training or scoring; "warning" makes scores wrong or training worse; "note" is worth
            knowing.
        kind: kind of the problem, such as "near-duplicates".
        samples: ids of the samples that it concerns, if it concerns single samples.
        pairs: pairs of sample ids, if it concerns pairs.
    """

    severity: Severity
    kind: str
    text: str
    samples: FromLists[tuple[str, ...]] = ()
    pairs: FromLists[tuple[tuple[str, str], ...]] = ()


def finding(
    severity: Severity,
    kind: str,
    text: str,
    samples: Sequence[str] = (),
    pairs: Sequence[tuple[str, str]] = (),
) -> Finding:
    """Return a `Finding`."""
    return Finding(severity=severity, kind=kind, text=text, samples=tuple(samples), pairs=tuple(pairs))


def texts_of(findings: Sequence[Finding]) -> list[str]:
    """Return the texts of findings; the same problem of many files gives one text."""
    faults = equal_problems([found.text for found in findings if found.kind == "damaged"])
    return [*faults, *(found.text for found in findings if found.kind != "damaged")]


class DataReport(Document):
    """The contents of a data set.

    Attributes:
        split_note: where the splits come from.
        class_names: class -> name, from the card or the COCO categories.
        unlabelled: files of images without a mask, which are not used, relative to the folder.
    """

    root: str
    regions: str
    split_note: str
    splits: Annotated[FromLists[tuple[SplitReport, ...]], Field(min_length=1)]
    findings: FromLists[tuple[Finding, ...]]
    class_names: dict[ClassNumber, str] = Field(default_factory=dict)
    unlabelled: FromLists[tuple[str, ...]] = ()

    @property
    def errors(self) -> tuple[str, ...]:
        """Problems that would stop training or scoring."""
        return tuple(found.text for found in self.findings if found.severity == "error")

    def text(self) -> str:
        """Return the report as text of several lines."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.root} (regions: {self.regions})"
        yield self.split_note
        for split in self.splits:
            yield ""
            yield from split.lines(self.class_names)
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
    dataset: Dataset, progress: Callable[[int], object] = lambda _: None, *, twice: bool = False
) -> DataReport:
    """Check every image and label; files that have not changed since the last pass are not read again.

    Of images without any label, those of `open_images`, the images alone are checked.

    Args:
        twice: read images again for near-duplicates across splits.
    """
    index = read_index(dataset, progress)
    dataset = index.dataset
    used = [tally for name in (*SPLITS, "") if (tally := _Tally(index, name)).samples]
    findings = [finding("error", "damaged", str(fault), (name,)) for name, fault in index.faults.items()]
    findings += [one for tally in used for one in tally.findings()]
    findings += [
        finding("error", "duplicates", text) for text in shared_images(dataset.samples, index.reference_digests())
    ]
    findings += _notes(dataset, used)
    if neighbours := neighbour_warning(index):
        findings.append(finding("warning", "neighbours", neighbours))
    if fractions := normalized_warning(index):
        findings.append(finding("warning", "unit", fractions))
    usable = [sample for sample in dataset.samples if sample.id not in index.faults]
    if joined := index.joined_note(usable):
        findings.append(finding("warning", "joined-regions", joined))
    if not any(map(dataset.is_labelled, dataset.samples)):
        findings.append(finding("warning", "no-masks", _NO_MASKS))
    if twice:
        from simmat_plugin_report.near_duplicates import near_duplicate_findings  # imports torch and scipy

        findings += near_duplicate_findings(index, progress)
    order = ("error", "warning", "note")
    return DataReport(
        root=str(dataset.root),
        regions=dataset.card.regions,
        split_note=dataset.split_note,
        splits=tuple(tally.report() for tally in used),
        findings=tuple(sorted(findings, key=lambda found: order.index(found.severity))),
        class_names=dict(dataset.class_names),
        unlabelled=tuple(sample.reference.relative_to(dataset.root).as_posix() for sample in dataset.unlabelled),
    )


class _Tally:
    """Totals over the samples of one split."""

    def __init__(self, index: DataIndex, name: str) -> None:
        self.dataset, self.name, self.channels = index.dataset, name, index.dataset.channels()
        self.title = name or "images"
        samples = [sample for sample in self.dataset.samples if sample.split == name]
        used = [sample for sample in samples if sample.id not in index.faults]
        table = index.table_of(used)
        rows = table.rows
        self.samples, self.read = len(samples), len(used)
        frames, objects = Counter(sample.sequence for sample in samples), index.sequence_objects(used)
        self.sequences = tuple((name, frames[name], objects.get(name, 0)) for name in frames if name)
        regions = table.instance_counts().tolist()
        self.without_region = [sample.id for sample, count in zip(used, regions, strict=True) if not count]
        self.areas = table.instances[:, 2].tolist()
        known = set(index.classes(used)) - {None}
        self.classes = Counter(number for number in table.instances[:, 1].tolist() if number in known)
        self.sizes = Counter(zip(rows["height"].tolist(), rows["width"].tolist(), strict=True))
        self.pixels = sum(height * width * count for (height, width), count in self.sizes.items())
        self.dropped, self.ignored, self.hidden = (
            int(table.rows[name].sum()) for name in ("dropped", "ignored", "hidden")
        )
        low, high, moments = rows["low"], rows["high"], Moments.unstacked(rows["moments"])
        self.low, self.high = low.min(axis=0, initial=np.inf), high.max(axis=0, initial=-np.inf)
        mean, valid = (np.diagonal(part, axis1=1, axis2=2) for part in (moments.mean, moments.count))
        self.total, self.valid = (mean * valid).sum(axis=0), valid.sum(axis=0)

    def findings(self) -> Iterator[Finding]:
        """Yield the problems that would stop training or scoring on this split."""
        if self.name and self.read and not self.areas:  # images without labels belong to no split
            card = self.dataset.card
            text = f"{self.name}: no sample has a region of at least {card.smallest}; check the masks, --regions "
            yield finding("error", "no-regions", f"{text}and --min-region")
        severity: Severity = "error" if self.name == "train" else "warning"  # statistics come from train
        for channel, least, most in zip(self.channels, self.low, self.high, strict=True):
            text, look = f"{self.title}: channel {channel.name!r}", display_style(channel)
            if self.read and least > most:
                yield finding("error", "no-valid-pixel", f"{text} has no valid pixel; check --nodata")
            if least == most:
                yield finding(severity, "constant-channel", f"{text} is {look.text(least)} {look.unit} everywhere")

    def report(self) -> SplitReport:
        """Return the report of the split."""
        mean = self.total / np.maximum(self.valid, 1)
        areas = self.areas
        return SplitReport(
            name=self.title,
            samples=self.samples,
            sequences=self.sequences,
            without_region=tuple(self.without_region) if self.name else (),
            regions=len(self.areas),
            dropped=self.dropped,
            area_px=(min(areas), round(np.median(areas)), max(areas)) if areas else None,
            classes=dict(sorted(self.classes.items())),
            sizes_hw=tuple((*size, count) for size, count in self.sizes.most_common()),
            ignored=self.ignored / max(self.pixels, 1),
            channels=tuple(
                ChannelReport(
                    name=channel.name,
                    quantity=channel.quantity,
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
            yield finding("warning", "dropped-regions", text)
        if tally.hidden:
            text = f"{tally.name}: {tally.hidden} regions have no pixel that can be scored (all ignored or invalid)"
            yield finding("warning", "hidden-regions", text)
        unnamed = sorted(set(tally.classes) - set(dataset.class_names)) if dataset.class_names else []
        if unnamed:
            yield finding("note", "unnamed-classes", f"{tally.name}: classes without a name in the card: {unnamed}")
        yield from _fill_values(tally)
        yield from _background_only(tally)
    yield from _imbalance(dataset, tallies)


def _fill_values(tally: _Tally) -> Iterator[Finding]:
    """Describe channels whose lowest value looks like one that files hold where nothing was measured."""
    found: dict[float, list[str]] = {}
    for channel, low in zip(tally.channels, tally.low.tolist(), strict=True):
        if low in _FILL_VALUES or (low == 0 and channel.unit == "K"):
            found.setdefault(low, []).append(channel.name)
    for low, names in found.items():
        text = (
            f"{tally.title}: the lowest value of {', '.join(names)} is {low:g}, which usually means no measurement; if "
            f"it does, use --nodata {low:g}"
        )
        yield finding("warning", "fill-values", text)


def _background_only(tally: _Tally) -> Iterator[Finding]:
    """Describe the images of a split without a region; a split without any region is an error of its own."""
    count = len(tally.without_region)
    if not count or not tally.areas:
        return
    severity: Severity = "warning" if count > _MANY_EMPTY * tally.read else "note"
    text = (
        f"{tally.name}: {count} of {tally.read} images ({count / tally.read:.0%}) are all background, and training and "
        "scoring with clicks skip them; if they contain objects, their masks are missing"
    )
    yield finding(severity, "background-only", text, tuple(tally.without_region))


def _imbalance(dataset: Dataset, tallies: Sequence[_Tally]) -> Iterator[Finding]:
    """Describe classes that are rare in train, or absent there and in another split."""
    by_split = {tally.name: tally for tally in tallies}
    train = by_split.get("train")
    if train is None or not train.classes:
        return
    for name, tally in by_split.items():
        if absent := sorted(set(tally.classes) - set(train.classes)):
            titles = ", ".join(class_title(number, dataset.class_names) for number in absent)
            text = f"{name} has classes that are missing in train: {titles}; nothing can learn them, so move samples"
            yield finding("warning", "class-imbalance", text)
    most, fewest = (pick(train.classes.items(), key=lambda item: item[1]) for pick in (max, min))
    ratio = most[1] / fewest[1]
    if ratio >= _UNEQUAL:
        names = [class_title(number, dataset.class_names) for number, _ in (most, fewest)]
        text = (
            f"train: class {names[0]} has {most[1]} regions, {ratio:.0f} times as many as class {names[1]} with "
            f"{fewest[1]}; rare classes are learned poorly and their scores vary a lot; label more of them"
        )
        yield finding("warning" if ratio >= _VERY_UNEQUAL else "note", "class-imbalance", text)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
