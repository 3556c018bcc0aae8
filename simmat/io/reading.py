"""Read whole files within limits: bytes, json, CSV and logs.

What is read may come from anyone: a pipe, a device, a file too large for the memory, and json nested too deep are
refused.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from simmat.errors import DataError, SimMATError, all_problems, shortened
from simmat.io.cells import as_read
from simmat.io.paths import require_file

MAX_BYTES = 2**32
"""Largest file that is read as a whole (4 GiB): eight million objects, of about 500 bytes in json."""
MAX_DEPTH = 64
"""Deepest allowed nesting of json values."""
_MAX_LINE_BYTES = 2**20
"""Longest line of a log; a longer one is not a record."""


def read_bytes(
    path: Path,
    what: str = "file",
    *,
    limit: int = MAX_BYTES,
    error: type[SimMATError] = DataError,
    hint: str = "",
) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; other arguments and errors: `require_file`."""
    require_file(path, what, error=error, hint=hint)
    try:
        if path.stat().st_size <= limit:
            return path.read_bytes()
    except OSError as cause:
        raise error(
            f"{path}: cannot be read: {cause.strerror}; check its permissions"
        ) from cause
    raise error(
        f"{path}: larger than {limit / 2**20:g} MiB, too large for a {what}; give another file"
    )


def read_json(
    path: Path,
    what: str = "file",
    *,
    limit: int = MAX_BYTES,
    error: type[SimMATError] = DataError,
    hint: str = "",
    constants: bool = False,
) -> Any:
    """Return the value of a json file; see `read_bytes` and `parse_json`. Errors are of class `error`."""
    content = read_bytes(path, what, limit=limit, error=error, hint=hint)
    try:
        return parse_json(content, constants=constants)
    except ValueError as cause:
        raise error(f"{path}: not valid json: {cause}") from cause


def parse_json(text: str | bytes, *, constants: bool = False) -> Any:
    """Return the value of a json text.

    Args:
        text: json; bytes are UTF-8, with or without a byte order mark.
        constants: also accept NaN and Infinity, which Python writes although they are not json.

    Raises:
        ValueError: not json, nested deeper than `MAX_DEPTH`, or with a number that does not fit into 64 bits.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        value = json.loads(text, parse_constant=None if constants else _refuse_constant)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    _check_values([value], finite=not constants)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a json number")


def _check_values(node: Any, *, finite: bool, depth: int = 0) -> None:
    """Check the numbers in a list or table of a json value, and its depth: a message that shows it would fail."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    children = node.values() if type(node) is dict else node
    for child in children:
        kind = type(child)
        if kind is dict or kind is list:
            _check_values(child, finite=finite, depth=depth + 1)
        elif kind is int and not -(2**63) <= child < 2**64:
            raise ValueError(
                f"a whole number of {child.bit_length()} bits; at most 64 are allowed"
            )
        elif kind is float and finite and not math.isfinite(child):
            raise ValueError("a number larger than a double can hold")


def read_csv_rows(
    path: Path, what: str, columns: str, *, hint: str = ""
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header of a CSV in UTF-8, and its rows with their line numbers; blank lines are skipped.

    Cells are as before `as_text`.

    `columns` and `hint`, on what to do about rows of another length, are for the messages of a DataError.
    """
    content = read_bytes(path, what)
    lines = []
    try:
        reader = csv.reader(
            io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True
        )
        for row in reader:
            is_blank = not any(cell.strip() for cell in row)
            if not is_blank:
                lines.append((reader.line_num, [as_read(cell) for cell in row]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not valid CSV in UTF-8: {error}") from None
    if not lines:
        raise DataError(
            f"{path}: the file is empty; its first line must name the columns: {columns}"
        )
    _, header = lines[0]
    if len(header) == 1:
        for separator in ";\t":
            if separator in header[0]:
                raise DataError(
                    f"{path}: the columns are separated by {separator!r}; separate them by commas"
                )
    name, count = Counter(header).most_common(1)[0]
    if count > 1:
        raise DataError(
            f"{path}: the column {shortened(repr(name))} occurs twice; remove or rename one"
        )
    problems = []
    for number, row in lines:
        if len(row) != len(header):
            problems.append(
                f"line {number}: {len(row)} cells, the header has {len(header)}"
            )
    if problems:
        raise DataError(
            all_problems(f"{path}: rows do not match the header{hint}:", problems)
        )
    return header, lines[1:]


def read_log(path: Path | str) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, up to the first line that is not a json object with an integer "step".

    A crash may cut the last line. A missing log has no records.

    Raises:
        DataError: the path is not a file, or cannot be read.
    """
    for record, _ in read_log_from(path, 0):
        yield record


def read_log_from(
    path: Path | str, offset: int
) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the records of a growing log after `offset`, each with the offset to go on from; see `read_log`.

    Args:
        path: the log.
        offset: where an earlier call ended, in bytes; 0 for the start.
    """
    file = Path(path)
    if not file.exists():
        return
    require_file(file, "log")
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            if offset:
                # The offset is before the line's end, which may not have been written yet.
                stream.readline(_MAX_LINE_BYTES)
            while line := stream.readline(_MAX_LINE_BYTES):
                record = parse_json(line, constants=True)
                if not isinstance(record, dict) or type(record.get("step")) is not int:
                    return
                end = stream.tell()
                if line.endswith(b"\n"):
                    end -= 1
                yield record, end
    except ValueError:
        return
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read: {error.strerror}; check its permissions"
        ) from error
