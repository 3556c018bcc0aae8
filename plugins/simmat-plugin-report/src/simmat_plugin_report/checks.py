"""Check a data set: report its content, and its problems by severity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from simmat.data.card import class_title
from simmat.data.dataset import Dataset
from simmat.data.index import DataIndex, read_index
from simmat.data.index_file import NO_CLASS
from simmat.data.samples import SPLITS, Sample
from simmat.documents import FromLists, StrictModel
from simmat.drawing.display import DisplayStyle, display_style
from simmat.errors import equal_problems, few_of
from simmat.sensors.normalize import Moments
from simmat.types import Channel
from simmat_plugin_report.data_warnings import (
    joined_warning,
    neighbour_warning,
    normalized_warning,
    shift_warning,
)

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


class ChannelReport(StrictModel):
    """One channel of some images; text names its unit, and shows it in that of pictures, such as °C for kelvin.

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

    @property
    def style(self) -> DisplayStyle:
        """The colours and the unit in which its values are shown."""
        return display_style(Channel(self.name, self.quantity, self.unit))

    def __str__(self) -> str:
        unit = self.unit
        if self.style.unit != unit:
            unit += f", shown in {self.style.unit}"
        title = f"{self.name} [{unit}]"
        if self.low is None or self.mean is None or self.high is None:
            return f"{title}: no valid pixel"
        low, mean, high = (
            self.style.text(value) for value in (self.low, self.mean, self.high)
        )
        return f"{title}: {low} to {high}, mean {mean}, {self.invalid:.1%} invalid"


class SplitReport(StrictModel):
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
        area = (
            ""
            if self.area_px is None
            else " of {0} to {2} px (median {1})".format(*self.area_px)
        )
        count = len(self.sequences)
        what = f"frames of {count} sequence{'s' * (count != 1)}" if count else "samples"
        yield f"{self.name}: {self.samples} {what}, {self.regions} regions{area}"
        if tracked := [
            f"{name} {objects} in {frames} frames"
            for name, frames, objects in self.sequences
            if objects
        ]:
            yield f"  objects: {few_of(tracked, 4)}"
        sizes = ", ".join(
            f"{width}x{height} ({count})" for height, width, count in self.sizes_hw[:4]
        )
        more = f" and {len(self.sizes_hw) - 4} more" if len(self.sizes_hw) > 4 else ""
        yield f"  sizes (width x height): {sizes}{more}"
        if self.classes:
            classes = (
                f"{class_title(number, names)}: {count}"
                for number, count in self.classes.items()
            )
            yield "  regions by class: " + ", ".join(classes)
        if self.without_region:
            yield f"  {len(self.without_region)} samples without a region, first: {self.without_region[0]}"
        if self.dropped:
            yield f"  {self.dropped} smaller regions dropped"
        if self.ignored:
            yield f"  {self.ignored:.1%} of the pixels are not scored"
        for channel in self.channels:
            yield f"  {channel}"


class Finding(StrictModel):
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
    return Finding(
        severity=severity,
        kind=kind,
        text=text,
        samples=tuple(samples),
        pairs=tuple(pairs),
    )


def texts_of(findings: Sequence[Finding]) -> list[str]:
    """Return the texts of findings; the same problem of many files gives one text."""
    faults = equal_problems(
        [found.text for found in findings if found.kind == "damaged"]
    )
    return [*faults, *(found.text for found in findings if found.kind != "damaged")]


class DataReport(StrictModel):
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
        for severity, title in (
            ("note", "Notes"),
            ("warning", "Warnings"),
            ("error", "Problems"),
        ):
            if entries := [
                found for found in self.findings if found.severity == severity
            ]:
                yield ""
                yield f"{title} ({len(entries)}):"
                yield from (f"  - {entry}" for entry in texts_of(entries))
        if all(found.severity == "note" for found in self.findings):
            images = sum(split.samples for split in self.splits)
            yield ""
            yield f"Nothing to correct in {images} {'image' if images == 1 else 'images'}."


def check_dataset(
    dataset: Dataset,
    progress: Callable[[int], object] = lambda _: None,
    *,
    twice: bool = False,
) -> DataReport:
    """Check every image and label; files that have not changed since the last pass are not read again.

    Of images without any label, those of `open_images`, the images alone are checked.

    Args:
        twice: read images again, for near-duplicates across splits and for shifts between sensors.
    """
    index = read_index(dataset, progress)
    dataset = index.dataset
    present = {sample.split for sample in dataset.samples}
    checked = [_check_split(index, name) for name in (*SPLITS, "") if name in present]
    findings = [
        finding("error", "damaged", str(fault), (name,))
        for name, fault in index.faults.items()
    ]
    findings += [one for _, found in checked for one in found]
    findings += [finding("error", "duplicates", text) for text in _shared_images(index)]
    findings += _imbalance(dataset, {split.name: split for split, _ in checked})
    if neighbours := neighbour_warning(index):
        findings.append(finding("warning", "neighbours", neighbours))
    if fractions := normalized_warning(index):
        findings.append(finding("warning", "unit", fractions))
    if joined := joined_warning(index):
        findings.append(finding("warning", "joined-regions", joined))
    if dataset.predicted_note:
        findings.append(finding("note", "predicted", dataset.predicted_note))
    if not any(map(dataset.is_labelled, dataset.samples)):
        findings.append(finding("warning", "no-masks", _NO_MASKS))
    if twice:
        # imports torch and scipy
        from simmat_plugin_report.near_duplicates import near_duplicate_warning

        if shifted := shift_warning(index):
            findings.append(finding("warning", "shifted-sensors", shifted))
        if alike := near_duplicate_warning(index, progress):
            findings.append(finding("warning", "near-duplicates", *alike))
    order = ("error", "warning", "note")
    return DataReport(
        root=str(dataset.root),
        regions=dataset.card.regions,
        split_note=dataset.split_note,
        splits=tuple(split for split, _ in checked),
        findings=tuple(sorted(findings, key=lambda found: order.index(found.severity))),
        class_names=dict(dataset.class_names),
        unlabelled=tuple(
            sample.reference.relative_to(dataset.root).as_posix()
            for sample in dataset.unlabelled
        ),
    )


def _check_split(index: DataIndex, name: str) -> tuple[SplitReport, list[Finding]]:
    """Return the contents of a split, "" for images without labels, and its problems."""
    dataset = index.dataset
    samples = [
        sample
        for sample in dataset.samples
        if sample.split == name and not sample.left_out
    ]
    used = [sample for sample in samples if sample.id not in index.faults]
    table = index.table_of(used)
    rows, areas = table.rows, table.instances[:, 2].tolist()
    frames, objects = (
        Counter(sample.sequence for sample in samples),
        _sequence_objects(index, used),
    )
    counts = zip(used, table.instance_counts().tolist(), strict=True)
    known = set(index.classes(used)) - {None}
    classes = Counter(
        number for number in table.instances[:, 1].tolist() if number in known
    )
    sizes = Counter(zip(rows["height"].tolist(), rows["width"].tolist(), strict=True))
    pixels = max(
        sum(height * width * count for (height, width), count in sizes.items()), 1
    )
    dropped, ignored, hidden = (
        int(rows[field].sum()) for field in ("dropped", "ignored", "hidden")
    )
    lows, highs = (
        rows["low"].min(axis=0, initial=np.inf),
        rows["high"].max(axis=0, initial=-np.inf),
    )
    moments = Moments.unstacked(rows["moments"])
    means, numbers = (
        np.diagonal(part, axis1=1, axis2=2) for part in (moments.mean, moments.count)
    )
    totals, valid = (means * numbers).sum(axis=0), numbers.sum(axis=0)
    report = SplitReport(
        name=name or "images",
        samples=len(samples),
        sequences=tuple(
            (name, frames[name], objects.get(name, 0)) for name in frames if name
        ),
        without_region=tuple(sample.id for sample, count in counts if not count)
        if name
        else (),
        regions=len(areas),
        dropped=dropped,
        area_px=(min(areas), round(np.median(areas)), max(areas)) if areas else None,
        classes=dict(sorted(classes.items())),
        sizes_hw=tuple((*size, count) for size, count in sizes.most_common()),
        ignored=ignored / pixels,
        channels=tuple(
            ChannelReport(
                name=channel.name,
                quantity=channel.quantity,
                unit=channel.unit,
                low=float(low) if low <= high else None,
                mean=float(total / count) if count else None,
                high=float(high) if low <= high else None,
                invalid=1 - float(count) / pixels,
            )
            for channel, low, high, total, count in zip(
                dataset.channels(), lows, highs, totals, valid, strict=True
            )
        ),
    )
    return report, list(_split_findings(report, dataset, len(used), hidden))


def _split_findings(
    split: SplitReport, dataset: Dataset, read: int, hidden: int
) -> Iterator[Finding]:
    """Yield the problems of a split: `read` images could be read, and `hidden` regions have no pixel to score."""
    name, card, empty = split.name, dataset.card, split.without_region
    # images without labels belong to no split
    if name in SPLITS and read and not split.regions:
        text = f"{name}: no sample has a region of at least {card.smallest}; check masks, --regions and --min-region"
        yield finding("error", "no-regions", text)
    # statistics come from train
    severity: Severity = "error" if name == "train" else "warning"
    fill_values: dict[float, list[str]] = {}
    for channel in split.channels:
        text, low = f"{name}: channel {channel.name!r}", channel.low
        if low is None:
            if read:
                yield finding(
                    "error",
                    "no-valid-pixel",
                    f"{text} has no valid pixel; check --nodata",
                )
            continue
        if low == channel.high:
            said = (
                f"{text} is {channel.style.text(low)} {channel.style.unit} everywhere"
            )
            yield finding(severity, "constant-channel", said)
        if low in _FILL_VALUES or (low == 0 and channel.unit == "K"):
            fill_values.setdefault(low, []).append(channel.name)
    for low, names in fill_values.items():
        text = f"{name}: the lowest value of {', '.join(names)} is {low:g}, which usually means no measurement; if "
        yield finding("warning", "fill-values", f"{text}it does, use --nodata {low:g}")
    if split.dropped > split.regions:
        text = f"{name}: {split.dropped} regions are smaller than {card.smallest} and dropped, {split.regions} are kept"
        yield finding("warning", "dropped-regions", text)
    if hidden:
        text = f"{name}: {hidden} regions have no pixel that can be scored (all ignored or invalid)"
        yield finding("warning", "hidden-regions", text)
    if dataset.class_names and (
        unnamed := sorted(set(split.classes) - set(dataset.class_names))
    ):
        yield finding(
            "note",
            "unnamed-classes",
            f"{name}: classes without a name in the card: {unnamed}",
        )
    if empty and split.regions:  # a split without any region is an error of its own
        text = (
            f"{name}: {len(empty)} of {read} images ({len(empty) / read:.0%}) are all background, so training "
            "and scoring with clicks skip them; if they contain objects, their masks are missing"
        )
        yield finding(
            "warning" if len(empty) > _MANY_EMPTY * read else "note",
            "background-only",
            text,
            empty,
        )


def _imbalance(
    dataset: Dataset, splits: Mapping[str, SplitReport]
) -> Iterator[Finding]:
    """Describe classes that are rare in train, or absent there and in another split."""
    train = splits.get("train")
    if train is None or not train.classes:
        return
    for name, split in splits.items():
        if absent := sorted(set(split.classes) - set(train.classes)):
            titles = ", ".join(
                class_title(number, dataset.class_names) for number in absent
            )
            text = f"{name} has classes that are missing in train: {titles}; a model cannot learn them, so move samples"
            yield finding("warning", "class-imbalance", text)
    most, fewest = (
        pick(train.classes.items(), key=lambda item: item[1]) for pick in (max, min)
    )
    ratio = most[1] / fewest[1]
    if ratio >= _UNEQUAL:
        names = [
            class_title(number, dataset.class_names) for number, _ in (most, fewest)
        ]
        text = (
            f"train: class {names[0]} has {most[1]} regions, {ratio:.0f} times as many as class {names[1]} with "
            f"{fewest[1]}; rare classes are learned poorly and their scores vary a lot; label more of them"
        )
        yield finding(
            "warning" if ratio >= _VERY_UNEQUAL else "note", "class-imbalance", text
        )


def _shared_images(index: DataIndex) -> Iterator[str]:
    """Describe each sample that has the same image, by path or content, as an earlier sample of another split."""
    first: dict[bytes, Sample] = {}
    for sample, digest in zip(
        index.usable, index.table.rows["sha256"][:, 0], strict=True
    ):
        other = first.setdefault(digest.tobytes(), sample)
        if other.split == sample.split:
            continue
        # else blocks of one image
        if sample.window is None or other.paths[0] != sample.paths[0]:
            yield (
                f"the same image is in {other.split} ({other.id!r}, {other.reference.name}) and in {sample.split} "
                f"({sample.id!r}, {sample.reference.name})"
            )


def _sequence_objects(index: DataIndex, samples: Sequence[Sample]) -> dict[str, int]:
    """Return sequence -> number of objects in its frames, each id counted once; 0 without ids."""
    found: dict[str, set[int]] = {
        sample.sequence: set() for sample in samples if sample.sequence
    }
    for row, _, _, number in index.table_of(samples).instances.tolist():
        if samples[row].sequence and number != NO_CLASS:
            found[samples[row].sequence].add(number)
    return {name: len(ids) for name, ids in found.items()}
