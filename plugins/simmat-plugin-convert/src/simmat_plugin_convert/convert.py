"""Convert a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path

from simmat.data.predicted import PREDICTED_FILE, write_predicted
from simmat.errors import ConfigError, OutputError, all_problems
from simmat.io.files import atomic_folder
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import RegionRule
from simmat_plugin_convert.labels import (
    NO_CLASS,
    Labels,
    Losses,
    ReaderInput,
    check_names,
    drawn_labels,
    with_file_names,
)
from simmat_plugin_convert.readers import read_labels
from simmat_plugin_convert.writers import WRITERS, Images, WriterInput

ROTATED_BY_EXIF = ("labelme", "cvat", "yolo", "label-studio")
"""Formats of tools that rotate images by their EXIF orientation."""


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        kind: the format that was read.
        notes: losses, left-out images and what was read otherwise than it is stated, one line each.
    """

    kind: str
    images: int
    objects: int
    notes: tuple[str, ...]


def convert(
    data: Path,
    out: Path,
    adapter: ModalityAdapter,
    to: str,
    kind: str | None = None,
    card: Mapping[str, object] | None = None,
    *,
    images: Images = "copy",
    regions: RegionRule | None = None,
    polygons: bool = False,
    boxes: bool = False,
    lossy: bool = False,
    progress: Callable[[], object] = lambda: None,
) -> Conversion:
    """Write the labels of a data set in another format, completely or not at all.

    Args:
        adapter: the sensor of the images.
        to: "masks", "coco", "labelme", "yolo", "cvat" or "label-studio".
        kind: the format to read; None finds it from the files.
        images: copy image files, link them, or write labels only.
        regions: meaning of a value in new masks; None takes a rule that keeps objects and classes.
        polygons: write outlines if a format has both outlines and masks.
        boxes: read boxes as filled rectangles.
        lossy: convert even if the new format cannot store everything.

    Raises:
        DataError: the labels cannot be read; the message lists all problems.
        ConfigError: the new format cannot store them, or a setting is invalid.
        OutputError: the folder is not empty, or cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(f"{out} is not an empty folder; choose another one")
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise OutputError(
            f"--out {out} is inside {data}, whose files are read; choose a folder outside of it"
        )
    losses = Losses()
    found, labels = read_labels(
        ReaderInput(data, adapter, card or {}, losses, boxes), kind
    )
    if labels.skipped:
        losses.add("images have no mask and are left out", str(data), labels.skipped)
    labels = with_file_names(labels)
    present: set[int | None] = set()
    objects = 0
    # find all problems before anything is written
    for _, drawn in drawn_labels(labels, upright=to in ROTATED_BY_EXIF):
        present.update(one.class_id for one in drawn.objects)
        objects += len(drawn.objects)
    names = _all_names(labels, present)
    check_names(names, data)
    with atomic_folder(out) as folder:
        WRITERS[to](
            WriterInput(
                folder, labels, names, polygons, images, regions, losses, progress
            )
        )
        predicted = {item.where for item in labels.items if item.predicted}
        write_predicted(folder, predicted)
        if losses.counts and not lossy:
            title = f"{data}: {to} cannot store everything; nothing was written. With --lossy this would be lost:"
            raise ConfigError(all_problems(title, losses.lines()))
    return Conversion(
        found,
        len(labels.items),
        objects,
        tuple(filter(None, (labels.note, *losses.lines(), _said_of(predicted)))),
    )


def _said_of(predicted: Sized) -> str:
    if not predicted:
        return ""
    return (
        f"the labels of {len(predicted)} images were made by a model; {PREDICTED_FILE} lists them, so they are "
        "used for training, but not for validation and test"
    )


def _all_names(labels: Labels, present: set[int | None]) -> dict[int, str]:
    """Return class -> name of all classes, including one for objects without a class."""
    unused = {0, labels.card.ignore} - present
    names = {
        number: name
        for number, name in labels.class_names.items()
        if number not in unused
    }
    for number in sorted(number for number in present if number is not None):
        names.setdefault(number, str(number))
    if None in present or not names:
        free = next(
            number for number in range(1, len(names) + 2) if number not in names
        )
        if NO_CLASS not in names.values():
            names[free] = NO_CLASS
    return names
