"""The folder that a writer fills: its images and its card."""

from __future__ import annotations

import posixpath
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from simmat.data.card import DataCard, write_card
from simmat.errors import DataError
from simmat.io.reading import require_file
from simmat.types import RegionRule
from simmat_plugin_convert.labels import (
    NO_CLASS,
    ImageLabels,
    Item,
    Labels,
    Losses,
    drawn_labels,
)

Images = Literal["copy", "link", "none"]
_SIDECAR = ".aux.xml"
"""Ending of the file that GDAL writes beside an image, with scales."""


@dataclass(frozen=True)
class Target:
    """The input of a writer.

    Attributes:
        folder: the empty folder to write.
        labels: the labels to write.
        names: class -> name, of all classes; objects without a class are `NO_CLASS`.
        polygons: write outlines if a format has both outlines and masks.
        images: copy image files, link them, or write labels only.
        regions: meaning of a mask value; None takes a rule that keeps objects and classes.
        losses: counts what the format cannot store.
        progress: called for each image.
    """

    folder: Path
    labels: Labels
    names: Mapping[int, str]
    polygons: bool
    images: Images
    regions: RegionRule | None
    losses: Losses
    progress: Callable[[], object]

    def place(self, item: Item, folder: str, *, split_last: bool = False, every: bool = True) -> str:
        """Put the image files of an item into the new folder; return the relative path of the first.

        Args:
            item: the image.
            folder: relative path, such as "images".
            split_last: put the folder of the split inside that of the source.
            every: write all sources; otherwise only the first, and count the others as lost.
        """
        named = list(item.files.items())
        if not every and len(named) > 1:
            self.losses.add("images have files of further sources, which are left out", item.where)
            named = named[:1]
        first = ""
        for source, file in named:
            inner = [source] if len(named) > 1 else []
            split = [item.split] if item.split else []
            place = "/".join([folder, *(inner + split if split_last else split + inner)]).strip("/")
            place = posixpath.join(place, f"{item.name}{file.suffix}")
            first = first or place
            if self.images != "none":
                self._put(file, place)
        return first

    def new_file(self, place: str, image: Path) -> Path:
        """Return the path of a file, given by its relative path; raise DataError if another image has it."""
        path = self.folder / place
        if path.exists():
            raise DataError(f"{image}: two images would have the file {place}; rename one")
        return path

    def _put(self, file: Path, place: str) -> None:
        require_file(file, "image", hint="frames of a file are not copied: --images none, or save each as a file")
        for ending in ("", _SIDECAR):
            one = file.with_name(file.name + ending)
            if ending and not one.is_file():
                continue
            there = self.new_file(place + ending, file)
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                if self.images == "link":
                    there.symlink_to(one.resolve())
                else:
                    shutil.copyfile(one, there)
            except OSError as error:
                raise DataError(f"{one}: cannot be copied: {error.strerror}") from None

    def all(self) -> Iterable[tuple[Item, ImageLabels]]:
        """Yield all images with their labels."""
        for item, drawn in drawn_labels(self.labels):
            yield item, drawn
            self.progress()

    def write_card(self, regions: RegionRule, *, ignore: int | None = None) -> None:
        """Write `card.toml` with the rule for mask values and the other facts of the data set."""
        changed = {
            "regions": regions,
            "ignore": ignore,
            "class_names": {} if set(self.names.values()) <= {NO_CLASS} else dict(self.names),
            "zero_means": "background",
            "class_attribute": None,
        }
        write_card(self.folder, DataCard.model_validate({**self.labels.card.model_dump(), **changed}))
