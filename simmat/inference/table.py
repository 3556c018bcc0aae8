"""The table of objects as CSV: a row for each object of each image, with what was measured of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simmat.errors import ConfigError, DataError
from simmat.io.cells import as_path, as_text, csv_line
from simmat.io.files import atomic_path
from simmat.measurement import SHAPE

HEAD = ("image", "label", "class", "class_name", "score")
"""Columns of each table before the measurements; the label of found objects is a number from 1 by falling score."""


@dataclass(frozen=True)
class Columns:
    """The columns of a table, which are those of its first image.

    Attributes:
        image: the first image.
        names: its columns.
    """

    image: str
    names: tuple[str, ...]

    def check(self, image: str, names: Iterable[str]) -> None:
        """Raise DataError if another image has other columns."""
        found = tuple(names)
        if found == self.names:
            return
        here = [name for name in found if name not in self.names]
        there = [name for name in self.names if name not in found]
        raise DataError(
            f"{image} has {', '.join(here[:2]) or 'fewer'}, but {self.image} has {', '.join(there[:2]) or 'fewer'}, "
            "and one table holds only images of the same channels and units; use a separate command, with another "
            "--out, for each kind of image"
        )


def write_csv(
    images: Iterable[tuple[str, Mapping[str, Any]]],
    class_names: Mapping[int, str],
    file: Path,
) -> int:
    """Write the objects of all images, given by name and json; return the number of images.

    Raises:
        DataError: see `write_table`.
    """
    names: set[str] = set()
    write_table(file, _rows(images, names))
    return len(names)


def _rows(
    images: Iterable[tuple[str, Mapping[str, Any]]], names: set[str]
) -> Iterator[dict[str, Any]]:
    """Yield the row of each object, and add the name of each image to `names`."""
    for name, record in images:
        names.add(name)
        # the json of a prompt is the object itself
        objects = record.get("objects", [record])
        for label, one in enumerate(objects, start=1):
            row = {"image": name, "label": label}
            for column in HEAD[2:]:
                row[column] = one.get(column)
            row["area"] = one.get("area", one.get("mask_pixels"))
            row["area_m2"] = one.get("area_m2")
            yield row | one.get("measurements", {})


def write_table(file: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows one after the other to a CSV file, whole or not at all; return their number.

    Args:
        file: the file.
        rows: columns -> values, None for an empty cell; all with the same columns, those of `HEAD` first. Names that a
            spreadsheet would run are written as `as_path` and `as_text` say.

    Raises:
        DataError: images have other channels or units, which have no common columns.
        OutputError: the file cannot be written.
    """
    columns = None
    count = 0
    with (
        atomic_path(file) as temporary,
        temporary.open(
            "w", encoding="utf-8", errors="backslashreplace", newline=""
        ) as stream,
    ):
        for row in rows:
            if columns is None:
                columns = Columns(row["image"], tuple(row))
                stream.write(csv_line(row))
            columns.check(row["image"], row)
            image, *others = row.values()
            stream.write(csv_line([as_path(image), *map(_cell, others)]))
            count += 1
        if columns is None:
            stream.write(csv_line([*HEAD, *SHAPE]))
    return count


def _cell(value: Any) -> Any:
    """Return what the CSV file holds of a value: 10 digits of a number, nothing for None; see `as_text`."""
    if isinstance(value, float):
        return f"{value:.10g}"
    return as_text(value)


def check_own_table(file: Path) -> None:
    """Raise ConfigError if a file exists that is not a table of objects."""
    if file.exists() and not is_own_table(file):
        raise ConfigError(
            f"{file} exists already and is not a table of objects; choose another --out, or move it away"
        )


def is_own_table(file: Path) -> bool:
    """Return whether a file begins as `write_table` writes it."""
    head = f"{','.join(HEAD)},".encode()
    with suppress(OSError), file.open("rb") as stream:
        return stream.read(len(head)) == head
    return False
