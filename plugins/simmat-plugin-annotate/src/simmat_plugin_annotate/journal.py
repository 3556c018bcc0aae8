"""The history of an image's labels: one json record a line, only ever added to.

A record is on disk before its mask replaces the former one, so no accepted mask is lost, whenever the server is killed,
and undo and redo go back to the beginning. A line that a crash cut short was never answered, and is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simmat.documents import Document, as_tuples, validate
from simmat.errors import DataError, SimMATError
from simmat.io.files import output_error, parse_json
from simmat.io.files.system import sync
from simmat.types import RegionRule
from simmat_plugin_annotate.masks import MaskDocument

HEAD = {"format": 1}
"""First line of a journal."""


class StoredObject(Document):
    """An object as it was at one time: its class, None where it has none, and its pixels."""

    class_id: int | None = Field(alias="class")
    mask: MaskDocument


class Change(Document):
    """One object before and after; None where it was not there."""

    id: int
    before: StoredObject | None
    after: StoredObject | None


class Record(Document):
    """One step of the history.

    Attributes:
        kind: "base" is what the mask held at first; "outside" what another program did to it; "written" says that the
            mask was written for an earlier step, or in another form.
        version: of the labels after it; "base" and "written" make no new one.
        changes: objects that became others.
        done: whether the image is marked as finished after it.
        objects: number of objects after it.
        classes: that the objects have after it; None in records that did not note them.
        rule: what the values of the mask mean after it.
        was: sha256 of the mask file before it; None where there was none.
        sha256: sha256 of the mask file after it; None where there is none, "" where it is written later.
        ignored: pixels without ground truth, of "base" and "outside".
        moving: the mask gets another file name.
    """

    kind: Literal["base", "edit", "undo", "redo", "done", "outside", "written"]
    version: int
    changes: Annotated[tuple[Change, ...], BeforeValidator(as_tuples)] = ()
    done: bool = False
    objects: int = 0
    classes: Annotated[tuple[int | None, ...] | None, BeforeValidator(as_tuples)] = None
    rule: RegionRule = "instances"
    was: str | None = None
    sha256: str | None = None
    ignored: MaskDocument | None = None
    moving: bool = False


@dataclass
class Journal:
    """The journal of one image; of its records only the last one is in memory.

    Attributes:
        path: the file; made with the first step.
        last: record; None where there is none.
        held: the record before the first step, until there is one.
    """

    path: Path
    last: Record | None = None
    held: Record | None = None

    def read(self) -> Iterator[tuple[int, Record]]:
        """Yield each record with its place in the file; a last line that is cut short is taken away."""
        place = 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        os.truncate(self.path, place)
                        return
                    record = self._parsed(line, place)
                    if record is not None:
                        self.last = record
                        yield place, record
                    place += len(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise output_error(error, self.path) from error

    def at(self, place: int) -> Record:
        """Return the record at a place in the file."""
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                record = self._parsed(file.readline(), place)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read: {error.strerror}; check who may read it") from error
        assert record is not None
        return record

    def _parsed(self, line: bytes, place: int) -> Record | None:
        """Return the record of a line; None for the head."""
        try:
            values = parse_json(line)
            if place == 0 and isinstance(values, dict) and "format" in values:
                if values != HEAD:
                    raise DataError(f"it is of format {values['format']}, this version reads {HEAD['format']}")
                return None
            return validate(Record, values)
        except (SimMATError, ValueError) as error:
            raise DataError(
                f"{self.path}, byte {place}: the history of this image cannot be read: {error}. Update "
                "simmat-plugin-annotate where a newer one wrote it, or move the file away: the labels are then those "
                "of the mask"
            ) from None

    def hold(self, record: Record) -> None:
        """Keep a record in memory until the first step."""
        self.last = self.held = record

    def append(self, *records: Record) -> int:
        """Write records to the end of the file, wait until the disk has them, and return the place of the last one."""
        every = [record for record in (self.held, *records) if record is not None]
        lines = [_line(_plain(record)) for record in every]
        before = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                before = file.tell()
                if before == 0:
                    lines.insert(0, _line(HEAD))
                file.write(b"".join(lines))
                file.flush()
                os.fsync(file.fileno())
            if before == 0:
                sync(self.path.parent)
        except OSError as error:
            if before is not None:
                with suppress(OSError), self.path.open("r+b") as file:
                    file.truncate(before)
            raise output_error(error, self.path) from error
        self.last, self.held = every[-1], None
        return before + sum(map(len, lines[:-1]))


def last_record(path: Path) -> Record | None:
    """Return the last record of a journal without reading the others; None where it must be read as a whole."""
    step, content, start = 2**16, b"", path.stat().st_size
    with path.open("rb") as file:
        while start and content.count(b"\n") < 2:
            start, step = max(start - step, 0), 8 * step
            file.seek(start)
            content = file.read()
    if not content.endswith(b"\n"):
        return None
    try:
        return validate(Record, parse_json(content[content.rfind(b"\n", 0, -1) + 1 :]))
    except (SimMATError, ValueError):
        return None


def _line(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _plain(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {
        "kind": record.kind,
        "version": record.version,
    }
