"""The history of the labels of an image: an append-only file with one json record per line.

A record is on disk before its mask replaces the former one, so no accepted mask is lost if the server is killed, and
undo and redo reach back to the first step. A line that a crash cut off was never acknowledged, and is removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from simmat.documents import FromLists, StrictModel, validate
from simmat.errors import DataError, SimMATError
from simmat.io.files import output_error, sync
from simmat.io.reading import parse_json
from simmat.types import RegionRule
from simmat_plugin_annotate.masks import MaskDocument
from simmat_plugin_annotate.state import MAX_CLASS_ID

HEAD = {"format": 1}
"""First line of a journal."""


class StoredObject(StrictModel):
    """An object in one state: its class, None if it has none, its pixels, and the score if it was followed there.

    `predicted` is True if a model found it, and nobody has drawn, clicked or confirmed it since.
    """

    class_id: int | None = Field(alias="class", ge=1, lt=MAX_CLASS_ID)
    mask: MaskDocument
    score: float | None = None
    predicted: bool = False


class Change(StrictModel):
    """An object before and after a step; None if it did not exist."""

    id: int = Field(ge=1)
    before: StoredObject | None
    after: StoredObject | None


class Record(StrictModel):
    """One step of the history.

    Attributes:
        kind: "base" is the first content of the mask; "outside" a change by another program; "written" the writing of
            the mask for an earlier step, or by another rule; "follow" what was followed from another frame; the others
            are steps of the user.
        version: version of the labels after the step; "base" and "written" keep the version.
        done: True if the image is marked as finished after the step.
        predicted: number of objects that a model found, and nobody has drawn, clicked or confirmed since.
        classes: classes of the objects after the step; None in records without them.
        ids: of a frame, ids of the objects after the step, each with its class; None in records without them.
        followed: number of objects that were followed, and nobody has accepted.
        score: lowest score of those, 0 if one is lost; None if there are none.
        lost: ids of objects that following did not find.
        absent: ids of objects that the user has removed from the frame.
        rule: meaning of the mask values after the step.
        was: sha256 of the mask file before the step; None if there was none.
        sha256: sha256 of the mask file after the step; None if there is none, "" if it is written later.
        ignored: pixels without ground truth, for "base" and "outside".
        moving: True if the mask gets another file name.
    """

    kind: Literal[
        "base", "edit", "undo", "redo", "done", "outside", "written", "follow"
    ]
    version: int
    changes: FromLists[tuple[Change, ...]] = ()
    done: bool = False
    objects: int = 0
    predicted: int = 0
    classes: FromLists[tuple[int | None, ...] | None] = None
    ids: FromLists[tuple[tuple[int, int | None], ...] | None] = None
    followed: int = 0
    score: float | None = None
    lost: FromLists[tuple[int, ...]] = ()
    absent: FromLists[tuple[int, ...]] = ()
    rule: RegionRule = "instances"
    was: str | None = None
    sha256: str | None = None
    ignored: MaskDocument | None = None
    moving: bool = False


@dataclass
class Journal:
    """The journal of one image. Only its last record is in memory.

    Attributes:
        path: the file; the first step creates it.
        last: the last record; None if there is none.
        held: the "base" record, kept in memory until the first step writes it.
    """

    path: Path
    last: Record | None = None
    held: Record | None = None

    def read(self) -> Iterator[tuple[int, Record]]:
        """Yield each record with its byte offset in the file; remove an incomplete last line."""
        offset = 0
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        os.truncate(self.path, offset)
                        return
                    record = self._parsed(line, offset)
                    if record is not None:
                        self.last = record
                        yield offset, record
                    offset += len(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise output_error(error, self.path) from error

    def at(self, offset: int) -> Record:
        """Return the record at a byte offset in the file."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                record = self._parsed(file.readline(), offset)
        except OSError as error:
            raise DataError(
                f"{self.path}: cannot be read: {error.strerror}; check its permissions"
            ) from error
        assert record is not None
        return record

    def _parsed(self, line: bytes, offset: int) -> Record | None:
        """Return the record of a line; None for the first line, `HEAD`."""
        try:
            values = parse_json(line)
            if offset == 0 and isinstance(values, dict) and "format" in values:
                if values != HEAD:
                    raise DataError(
                        f"its format is {values['format']}, this version reads {HEAD['format']}"
                    )
                return None
            return validate(Record, values)
        except (SimMATError, ValueError) as error:
            raise DataError(
                f"{self.path}, byte {offset}: the history of this image cannot be read: {error}. Update "
                "simmat-plugin-annotate if a newer version wrote it, or move the file away: the labels are then those "
                "of the mask"
            ) from None

    def append(self, *records: Record) -> int:
        """Append records, wait until they are on disk, and return the byte offset of the last one."""
        every = [record for record in (self.held, *records) if record is not None]
        lines = [
            _line(record.model_dump(mode="json", by_alias=True, exclude_defaults=True))
            for record in every
        ]
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
    """Return the last record of a journal without reading the others; None if the whole file must be read."""
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
