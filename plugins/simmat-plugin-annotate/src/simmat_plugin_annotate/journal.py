"""The history of an image's labels: one json record a line, only ever added to.

A record is on disk before its mask replaces the former one, so no accepted mask is lost, whenever the server is killed,
and undo and redo go back to the beginning. A line that a crash cut short was never answered, and is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from simmat.documents import Document, as_tuples, validate
from simmat.errors import DataError, SimMATError
from simmat.io.files import output_error, parse_json, read_bytes
from simmat.types import RegionRule
from simmat_plugin_annotate.masks import MaskDocument

MOST_BYTES = 2**31
"""Longest journal that is read."""


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
    rule: RegionRule = "instances"
    was: str | None = None
    sha256: str | None = None
    ignored: MaskDocument | None = None
    moving: bool = False


@dataclass
class Journal:
    """The journal of one image.

    Attributes:
        path: the file; made with the first record.
        records: in their order.
    """

    path: Path
    records: list[Record] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read a journal; a missing one is empty.

        A last line that is cut short is taken away. A damaged journal is kept under another name, and the mask beside
        it counts.

        Raises:
            OutputError: the file cannot be repaired.
        """
        journal = cls(path)
        if not path.exists():
            return journal
        content = read_bytes(path, "journal", limit=MOST_BYTES)
        good = 0
        for line in content.splitlines(keepends=True):
            try:
                if not line.endswith(b"\n"):
                    raise DataError("cut short")
                journal.records.append(validate(Record, parse_json(line)))
            except (SimMATError, ValueError):
                break
            good += len(line)
        if good == len(content):
            return journal
        try:
            if content.count(b"\n", good) > 1:  # more than a cut last line
                journal.records = []
                os.replace(path, path.with_name(f"{path.stem}.damaged-{path.stat().st_mtime_ns}.jsonl"))
            else:
                os.truncate(path, good)
        except OSError as error:
            raise output_error(error, path) from error
        return journal

    def append(self, records: Sequence[Record]) -> None:
        """Write records to the end of the file, and wait until the disk has them.

        Raises:
            OutputError: they cannot be written; none of them is in the journal then.
        """
        lines = "".join(json.dumps(_plain(record), separators=(",", ":")) + "\n" for record in records)
        before = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                before = file.tell()
                file.write(lines.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if before is not None:
                with self.path.open("r+b") as file:
                    file.truncate(before)
            raise output_error(error, self.path) from error
        self.records += records


def last_record(path: Path) -> Record | None:
    """Return the last record of a journal without reading the others; None where it must be read as a whole."""
    content = read_bytes(path, "journal", limit=MOST_BYTES)
    if not content.endswith(b"\n"):
        return None
    try:
        return validate(Record, parse_json(content[content.rfind(b"\n", 0, -1) + 1 :]))
    except (SimMATError, ValueError):
        return None


def _plain(record: Record) -> dict[str, Any]:
    return record.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {
        "kind": record.kind,
        "version": record.version,
    }
