"""The numbers of the objects of an image: measured when they are asked for, kept until an edit changes them."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from simmat.data.instances import Instance
from simmat.inference import write_table
from simmat.io.paths import stem_of
from simmat.measurement import PixelAreas, Row, channel_column, measurer
from simmat.types import Window
from simmat_plugin_annotate.drafts import score_of
from simmat_plugin_annotate.labels import LabelledImage
from simmat_plugin_annotate.masks import Objects
from simmat_plugin_annotate.planes import Planes, UnknownError

STATISTICS = (
    "intensity_mean",
    "intensity_min",
    "intensity_max",
    "intensity_median",
    "intensity_contrast",
)
"""What the page shows of a channel."""
_MAX_CHANGED = 1000
"""Most changed objects whose neighbours are looked for; after more, all are measured again."""


class MeasuredImage:
    """The objects of one image in numbers, as `simmat measure` finds them.

    Attributes:
        labels: the objects.
        planes: the image.
    """

    def __init__(self, labels: LabelledImage, planes: Planes) -> None:
        self.labels = labels
        self.planes = planes
        # several tabs may ask at once
        self._lock = threading.Lock()
        self._objects: Objects = {}
        self._rows: dict[int, Row] = {}

    @cached_property
    def _areas(self) -> tuple[PixelAreas | None, str]:
        """The area of a pixel, and what contradicts itself in it."""
        return measurer().pixel_areas(self.planes)

    def document(self, channel: int, ids: Collection[int]) -> dict[str, Any]:
        """Return what the page shows of some objects, for one channel; ids of objects that are gone are left out.

        Raises:
            UnknownError: there is no such channel.
            DataError: the image cannot be read.
        """
        channels = self.planes.channels
        if channel >= len(channels):
            raise UnknownError(f"channels must be from 0 to {len(channels) - 1}")
        names = {name: channel_column(name, channels[channel]) for name in STATISTICS}
        areas, warning = self._areas
        if areas is not None:
            names = {areas.column: areas.column} | names
        with self._lock:
            version = self._take_labels()
            self._measure(ids)
            rows = [
                [number, *(self._rows[number][column] for column in names.values())]
                for number in ids
                if number in self._rows
            ]
        return {
            "version": version,
            "columns": list(names),
            "rows": rows,
            "warning": warning,
        }

    def csv(self, class_names: Mapping[int, str]) -> bytes:
        """Return the table of all objects, by rising label value, as `simmat measure` writes it.

        Raises:
            DataError: the image cannot be read, or a mask file cannot contain the objects.
            OutputError: the disk is full.
        """
        with self._lock, TemporaryDirectory() as folder:
            with self.labels.lock:
                values = self.labels.label_values()
                self._take_labels()
            self._measure(values)
            path = Path(folder) / "objects.csv"
            write_table(path, self._csv_rows(values, class_names))
            return path.read_bytes()

    def _csv_rows(
        self, values: Mapping[int, int], class_names: Mapping[int, str]
    ) -> Iterator[dict[str, Any]]:
        name = stem_of(Path(self.planes.origin))
        for number in sorted(self._rows, key=values.__getitem__):
            region = self._objects[number]
            class_id = self.labels.class_of(region)
            row = {
                "image": name,
                "label": values[number],
                "class": class_id,
                "class_name": None if class_id is None else class_names.get(class_id),
                "score": score_of(region),
            }
            yield row | self._rows[number]

    def _take_labels(self) -> int:
        """Take the present objects, and return the version of the labels."""
        with self.labels.lock:
            version = self.labels.version
            objects = dict(self.labels.objects)
        self._forget_changed(objects)
        self._objects = objects
        return version

    def _measure(self, ids: Collection[int]) -> None:
        """Measure those of the objects that are not measured yet."""
        numbers = list(self._objects)
        wanted = set(ids) - self._rows.keys()
        missing = [at for at, number in enumerate(numbers) if number in wanted]
        if not missing:
            return
        objects = list(self._objects.values())
        found = measurer().measure(self.planes, objects, self._areas[0], only=missing)
        for at, row in zip(missing, found.rows(), strict=True):
            self._rows[numbers[at]] = row

    def _forget_changed(self, objects: Objects) -> None:
        """Drop the numbers of objects whose pixels, or the pixels of a neighbour, are not those that were measured."""
        changed: list[Window] = []
        for number in self._objects.keys() | objects.keys():
            before = self._objects.get(number)
            now = objects.get(number)
            if _has_same_pixels(before, now):
                continue
            changed += [one.window for one in (before, now) if one is not None]
        if len(changed) > _MAX_CHANGED:
            self._rows.clear()
        for number in list(self._rows):
            region = objects.get(number)
            if region is None or _is_near(region.window, changed):
                del self._rows[number]


def _has_same_pixels(one: Instance | None, other: Instance | None) -> bool:
    """Return whether two states of an object share its pixels; an edit of its class keeps them."""
    if one is None or other is None:
        return False
    if one.crop is other.crop:
        return True
    return one.window == other.window and np.array_equal(one.crop, other.crop)


def _is_near(window: Window, others: Collection[Window]) -> bool:
    """Return whether one of the others may lie in the ring around a window."""
    y0, x0, y1, x1 = window
    reach = measurer().reach_px
    around = Window(y0 - reach, x0 - reach, y1 + reach, x1 + reach)
    return any(around.intersection(other) is not None for other in others)
