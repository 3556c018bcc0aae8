"""A labelled data set in memory, independent of the format."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from simmat.data.card import DataCard, load_card
from simmat.data.formats.coco import draw_region, segmentation_problem
from simmat.data.instances import Instance, region_from_mask
from simmat.data.samples import name_of_files, problems_of_file_names
from simmat.errors import (
    ConfigError,
    DataError,
    all_problems,
    equal_problems,
    shortened,
)
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import BoolArray
from simmat_plugin_convert.image_files import check_upright, split_of_name

NO_CLASS = "object"
"""Class of objects without one, in formats where every object has a class."""
IGNORE = "ignore"
"""Label of areas without ground truth, in formats without a notion of them."""
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 80, 80


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image.

    Attributes:
        size_hw: (height, width) in pixels.
        objects: objects in the order of the file; they may overlap.
        ignore: (H, W) bool, True on pixels without ground truth; None if there are none.
    """

    size_hw: tuple[int, int]
    objects: tuple[Instance, ...]
    ignore: BoolArray | None = None


@dataclass(frozen=True)
class Item:
    """One image and its labels.

    Attributes:
        name: relative path without ending and without the split, with "/" between folders.
        split: "train", "val" or "test"; "" if it is not given.
        files: source name -> file, the reference first.
        draw: reads the labels.
        predicted: True if a model made some of its labels, see `simmat.data.predicted.mark_predicted`.
    """

    name: str
    split: str
    files: Mapping[str, Path]
    draw: Callable[[], ImageLabels]
    predicted: bool = False

    @property
    def reference(self) -> Path:
        """The file of the reference source."""
        return next(iter(self.files.values()))

    @property
    def where(self) -> str:
        """The name with the split."""
        return f"{self.split}/{self.name}" if self.split else self.name

    def listed_in(self, ids: Set[str]) -> Item:
        """Return the image, marked if a list of those with predicted labels has it; YOLO's splits may be new."""
        if ids.isdisjoint({self.name, self.where}):
            return self
        return replace(self, predicted=True)


@dataclass
class Losses:
    """Counts what the new format cannot store.

    Attributes:
        counts: description of the loss -> place -> number.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, what: str, where: str, count: int = 1) -> None:
        """Note a loss; the same one at the same place counts once."""
        if count:
            self.counts.setdefault(what, {})[where] = count

    def lines(self) -> list[str]:
        """Return the losses, one line each."""
        return [
            f"{sum(found.values())} {what} (first: {next(iter(found))})"
            for what, found in self.counts.items()
        ]


@dataclass(frozen=True)
class Labels:
    """A labelled data set.

    Attributes:
        root: its folder.
        items: its images.
        class_names: class -> name, of all classes that objects may have.
        card: other facts of the data set.
        skipped: number of images without labels, which are left out.
        note: a sentence for the user on what was read otherwise than it is stated; "" if nothing was.
    """

    root: Path
    items: Sequence[Item]
    class_names: Mapping[int, str]
    card: DataCard
    skipped: int = 0
    note: str = ""


class ClassNumbers:
    """Assigns numbers to classes that a format knows by name: those of the card, then the next free ones from 1.

    Attributes:
        names: class -> name.
    """

    def __init__(
        self, card_names: Mapping[int, str], listed: Sequence[str] = ()
    ) -> None:
        self.names = dict(card_names)
        self._next = 1
        self._numbers = {name: number for number, name in self.names.items()}
        for name in listed:
            self.number(name)

    def number(self, name: str) -> int:
        """Return the number of a class; a class that is not known yet gets a new one."""
        if name not in self._numbers:
            while self._next in self.names:
                self._next += 1
            self._numbers[name] = self._next
            self.names[self._next] = name
        return self._numbers[name]


@dataclass
class ReaderInput:
    """The input of a reader.

    Attributes:
        root: the folder.
        adapter: the sensor, for the sizes of images.
        card: options of the card from the command line.
        losses: counts what cannot be read as a mask.
        boxes: read boxes as filled rectangles.
        problems: problems of files, raised together at the end.
        seen: names of the classes of shapes.
    """

    root: Path
    adapter: ModalityAdapter
    card: Mapping[str, object]
    losses: Losses
    boxes: bool = False
    problems: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def known_card(self) -> DataCard:
        """Return the card of the folder, if there is one."""
        return load_card(self.root, self.card, defaults={"regions": "instances"})

    def done(
        self,
        items: Sequence[Item],
        numbers: ClassNumbers,
        card: DataCard,
        what: str,
        *,
        skipped: int = 0,
        note: str = "",
    ) -> Labels:
        """Return the labels, or raise the problems that were found.

        If no image has a split, and the first folders of all names mean one, these are the splits.
        """
        if self.problems:
            raise DataError(
                all_problems(
                    f"{self.root}: {what} that cannot be read:",
                    equal_problems(self.problems),
                )
            )
        if not items:
            raise DataError(f"{self.root}: {what} name no image")
        heads = [
            split_of_name(item.name.split("/")[0]) if "/" in item.name else ""
            for item in items
        ]
        if all(heads) and not any(item.split for item in items):
            items = [
                replace(one, name=one.name.partition("/")[2], split=head)
                for one, head in zip(items, heads, strict=True)
            ]
        for name in sorted(self.seen - {IGNORE}):
            numbers.number(name)
        return Labels(self.root, items, numbers.names, card, skipped, note)


def polygon_region(
    polygons: Sequence[Sequence[float]],
    size_hw: tuple[int, int],
    class_id: int,
    where: str,
    losses: Losses,
) -> Instance | None:
    """Return the region inside polygons, each x, y, x, y, … in pixels; None if it contains no pixel centre.

    Raises:
        DataError: a polygon is invalid or completely outside the image.
    """
    height, width = size_hw
    listed = [[float(value) for value in polygon] for polygon in polygons]
    if problem := segmentation_problem(listed, size_hw):
        raise DataError(f"{where}: {problem}")
    for polygon in listed:
        xs, ys = polygon[::2], polygon[1::2]
        if max(xs) <= 0 or max(ys) <= 0 or min(xs) >= width or min(ys) >= height:
            raise DataError(
                f"{where}: a polygon is outside of the image: x {min(xs):g} to {max(xs):g}, y {min(ys):g} to "
                f"{max(ys):g}, the image is {width}x{height}; were labels and images mixed up?"
            )
        if min(*xs, *ys) < -1 or max(xs) > width + 1 or max(ys) > height + 1:
            losses.add("polygons reach beyond the image and are cut at its edge", where)
    region = draw_region(listed, size_hw, class_id)
    if region is None:
        losses.add("polygons contain no pixel centre and are left out", where)
    return region


def with_file_names(labels: Labels) -> Labels:
    """Return the labels with names of images that can be written to every format, each inside of the new folder.

    Raises:
        ConfigError: some contain control characters or bytes that are not UTF-8, lead out of the folder, are too long,
            or name one file.
    """
    problems = [
        f"{item.where!r}" for item in labels.items if not _is_writable(item.where)
    ]
    if problems:
        title = f"{labels.root}: names of images with characters that other formats cannot store; rename the files:"
        raise ConfigError(all_problems(title, problems))
    names: dict[str, list[str]] = {}
    for item in labels.items:
        names.setdefault(item.split, []).append(item.name)
    for of_split in names.values():
        problems += problems_of_file_names(of_split)
    if problems:
        title = f"{labels.root}: names of images that cannot be used:"
        raise ConfigError(all_problems(title, problems))
    named = [replace(item, name=name_of_files(item.name)) for item in labels.items]
    return replace(labels, items=named)


def _is_writable(text: str) -> bool:
    return not any(
        ord(one) < 32 or 0x7F <= ord(one) < 0xA0 or 0xD800 <= ord(one) < 0xE000
        for one in text
    )


def check_names(names: Mapping[int, str], root: Path) -> None:
    """Check that class names can be written to every format.

    Args:
        names: class -> name.
        root: folder of the data set, for messages.

    Raises:
        ConfigError: a name is empty, occurs twice or contains control characters.
    """
    problems = [
        f"class {number} has no name"
        for number, name in names.items()
        if not name.strip()
    ]
    problems += [
        f"class {number}: {name!r} contains a character that cannot be written"
        for number, name in names.items()
        if not _is_writable(name)
    ]
    problems += [
        f"{count} classes are named {name!r}"
        for name, count in Counter(names.values()).items()
        if count > 1
    ]
    problems += [
        f"class {number} is named {IGNORE!r}, which marks areas to ignore"
        for number, name in names.items()
        if name == IGNORE
    ]
    if problems:
        raise ConfigError(
            all_problems(
                f"{root}: class names that cannot be converted; rename them:", problems
            )
        )


def drawn_labels(
    labels: Labels, *, upright: bool = False
) -> Iterator[tuple[Item, ImageLabels]]:
    """Yield all images with their labels; objects without a class keep None.

    Args:
        upright: check that no image is rotated by its EXIF orientation.

    Raises:
        DataError: labels cannot be read, or images are rotated; the message lists all problems.
    """
    problems: list[str] = []
    for item in labels.items:
        try:
            if upright:
                check_upright(item.files)
            drawn = item.draw()
        except DataError as error:
            problems.append(str(error))
            continue
        if not problems:
            yield item, drawn
    if problems:
        raise DataError(
            all_problems(
                f"{labels.root}: images and labels that cannot be converted:", problems
            )
        )


def named_class(instance: Instance, names: Mapping[int, str]) -> str:
    """Return the name of an object's class."""
    return NO_CLASS if instance.class_id is None else names[instance.class_id]


def named_regions(
    drawn: ImageLabels, names: Mapping[int, str]
) -> list[tuple[str, Instance]]:
    """Return the objects with the names of their classes, followed by the area to `IGNORE` if there is one."""
    area = None if drawn.ignore is None else region_from_mask(drawn.ignore, None)
    named = [(named_class(one, names), one) for one in drawn.objects]
    return named if area is None else [*named, (IGNORE, area)]


def overlapping(objects: Sequence[Instance], size_hw: tuple[int, int]) -> int:
    """Return the number of objects that have a pixel in common with an earlier one."""
    taken = np.zeros(size_hw, np.bool_)
    count = 0
    for instance in objects:
        part = taken[instance.window.slices]
        count += bool((part & instance.crop).any())
        part |= instance.crop
    return count


def one_line(value: Any) -> str:
    """Return a value as text for a message, shortened if it is long.

    A short yaml file can contain nested lists whose full text does not fit into memory.
    """
    return shortened(_SHORT.repr(value))
