"""The report of `simmat data check`, as documents and as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BeforeValidator, Field

from simmat.data.card import class_title
from simmat.documents import Document, as_tuples
from simmat.drawing.display import display_style
from simmat.errors import equal_problems, few_of
from simmat.types import Channel

Severity = Literal["error", "warning", "note"]
Item = TypeVar("Item")
Listed = Annotated[tuple[Item, ...], BeforeValidator(as_tuples)]
"""A tuple that is a list in json."""
ClassNumber = Annotated[int, Field(strict=False, ge=-(2**63), lt=2**63)]
"""The number of a class, which is a string where it is a key in json."""

_NAMED = 10
"""Most images without a mask that the text lists."""


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
    sequences: Listed[tuple[str, int, int]] = ()
    without_region: Listed[str]
    regions: int
    dropped: int
    area_px: Annotated[tuple[int, int, int], BeforeValidator(as_tuples)] | None
    classes: dict[ClassNumber, int]
    sizes_hw: Listed[tuple[int, int, int]]
    ignored: float
    channels: Listed[ChannelReport]

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
    samples: Listed[str] = ()
    pairs: Listed[tuple[str, str]] = ()


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
    """The contents of a data set, see `simmat_plugin_report.checks.check_dataset`.

    Attributes:
        split_note: where the splits come from.
        class_names: class -> name, from the card or the COCO categories.
        unlabelled: files of images without a mask, which are not used, relative to the folder.
    """

    root: str
    regions: str
    split_note: str
    splits: Annotated[Listed[SplitReport], Field(min_length=1)]
    findings: Listed[Finding]
    class_names: dict[ClassNumber, str] = Field(default_factory=dict)
    unlabelled: Listed[str] = ()

    @property
    def errors(self) -> tuple[str, ...]:
        """Problems that would stop training or scoring."""
        return tuple(found.text for found in self.findings if found.severity == "error")

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings and notes, which the user should check."""
        return tuple(found.text for found in self.findings if found.severity != "error")

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
