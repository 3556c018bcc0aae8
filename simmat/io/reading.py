"""Read untrusted files: regular ones, with limits on their size, their decoded size and the depth of json."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from simmat.errors import ConfigError, DataError, SimMATError, all_problems
from simmat.types import Window

MAX_BYTES = 2**32
"""Largest file that is read as a whole (4 GiB): eight million objects, of about 500 bytes in json."""
MAX_DEPTH = 64
"""Deepest allowed nesting of json values."""
_MAX_LINE_BYTES = 2**20
"""Longest line of a log; a longer one is not a record."""
_URL = re.compile(r"(?:/vsicurl/)?(https?|s3|gs):/+(.+)", re.IGNORECASE)
"""URLs that are read."""
LIMIT_VARIABLE = "SIMMAT_MAX_IMAGE_GIB"
"""Environment variable that replaces `DEFAULT_GIB`; `simmat --max-image-gib` sets it."""
DEFAULT_GIB = 2.0
"""GiB of one decoded image: an RGB image of 178,956,970 pixels."""
MAX_PLANES = 4096
"""Planes of one image; every plane has metadata that takes time, even with few pixels."""
_FLOAT32 = 4


def url_of(path: Path) -> str | None:
    """Return the URL that a path stands for, in which `Path` made one slash of two; None for other paths.

    A folder from someone else may hold a folder "https:"; its files are no URLs.
    """
    match = _URL.fullmatch(path.as_posix())
    if match is None or path.exists():
        return None
    return f"{match[1].lower()}://{match[2]}"


def missing(path: Path, what: str) -> str:
    """Say that there is no file or folder at a path, and for a URL which ones are read."""
    match = _URL.search(path.as_posix())  # a relative path may have become absolute
    if match is None:
        return f"{path}: no such {what}"
    url = f"{match[1]}://{match[2]}".partition("?")[0]
    return (
        f"{url}: no such {what}; by URL (http, https, s3, gs) only GeoTIFFs are read, by `simmat predict` and "
        "`Predictor`: download others first"
    )


def shown_url(path: Path) -> str:
    """Return a path, or the URL that it stands for without a query, which may hold a secret."""
    url = url_of(path)
    if url is None:
        return str(path)
    return url.partition("?")[0]


def stem_of(path: Path) -> str:
    """Return the name of a file without its ending, also of a URL with a query."""
    url = url_of(path)
    if url is None:
        return path.stem
    return Path(urlsplit(url).path or "remote").stem


def require_file(path: Path, what: str = "file", *, error: type[SimMATError] = DataError, hint: str = "") -> None:
    """Check that `path` is a regular file, without opening it; links are followed.

    Opening a FIFO would wait for a writer, and reading a device may never end.

    Args:
        what: what it should be, for messages ("image", "config file").
        hint: what to do if the file does not exist.

    Raises:
        SimMATError: of class `error`; the path is missing, a folder, a FIFO, a socket or a device.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise error(missing(path, "file") + (f"; {hint}" if hint else "")) from None
    except (OSError, ValueError) as cause:
        raise error(f"{path}: cannot be read: {getattr(cause, 'strerror', None) or cause}") from cause
    if not stat.S_ISREG(mode):
        found = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise error(f"{path}: a {found}, not a file; give the path of a file ({what})")


def require_folder(path: Path, hint: str) -> None:
    """Raise DataError if `path` is no folder; `hint` says which one to give."""
    if path.is_dir():
        return
    if path.exists():
        raise DataError(f"{path}: a file, not a folder; {hint}")
    raise DataError(f"{missing(path, 'folder')}; {hint}")


def read_bytes(
    path: Path, what: str = "file", *, limit: int = MAX_BYTES, error: type[SimMATError] = DataError, hint: str = ""
) -> bytes:
    """Return the content of a regular file of at most `limit` bytes; other arguments and errors: `require_file`."""
    require_file(path, what, error=error, hint=hint)
    try:
        if path.stat().st_size <= limit:
            return path.read_bytes()
    except OSError as cause:
        raise error(f"{path}: cannot be read: {cause.strerror}; check who may read it") from cause
    raise error(f"{path}: larger than {limit / 2**20:g} MiB, too large for a {what}; give another file")


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
    _check_numbers([value], finite=not constants)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a json number")


def _check_numbers(node: Any, *, finite: bool, depth: int = 0) -> None:
    """Check the numbers in a list or table of a json value, and its depth."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    children = node.values() if type(node) is dict else node
    for child in children:
        kind = type(child)
        if kind is dict or kind is list:
            _check_numbers(child, finite=finite, depth=depth + 1)
        elif kind is int and not -(2**63) <= child < 2**64:
            raise ValueError(f"a whole number of {child.bit_length()} bits; at most 64 are allowed")
        elif kind is float and finite and not math.isfinite(child):
            raise ValueError("a number larger than a double can hold")


def read_csv_rows(
    path: Path, what: str, columns: str, *, hint: str = ""
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header of a CSV in UTF-8, and its rows with their line numbers; blank lines are skipped.

    `columns` and `hint`, on what to do about rows of another length, are for the messages of a DataError.
    """
    content = read_bytes(path, what)
    lines = []
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        for row in reader:
            is_blank = not any(cell.strip() for cell in row)
            if not is_blank:
                lines.append((reader.line_num, row))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not valid CSV in UTF-8: {error}") from None
    if not lines:
        raise DataError(f"{path}: the file is empty; its first line must name the columns: {columns}")
    _, header = lines[0]
    if len(header) == 1:
        _refuse_other_separators(path, header[0])
    problems = []
    for number, row in lines:
        if len(row) != len(header):
            problems.append(f"line {number}: {len(row)} cells, the header has {len(header)}")
    if problems:
        raise DataError(all_problems(f"{path}: rows do not match the header{hint}:", problems))
    return header, lines[1:]


def _refuse_other_separators(path: Path, header: str) -> None:
    for separator in ";\t":
        if separator in header:
            raise DataError(f"{path}: the columns are separated by {separator!r}; separate them by commas")


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Return the records of a log, up to the first line that is not a json object with an integer "step".

    A crash may cut the last line. A missing log has no records.

    Raises:
        DataError: the path is not a file, or cannot be read.
    """
    file = Path(path)
    records: list[dict[str, Any]] = []
    if not file.exists():
        return records
    require_file(file, "log")
    try:
        with file.open("rb") as stream:
            while line := stream.readline(_MAX_LINE_BYTES):
                record = parse_json(line, constants=True)
                if not isinstance(record, dict) or type(record.get("step")) is not int:
                    break
                records.append(record)
    except ValueError:
        return records
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}; check who may read it") from error
    return records


def decoded_limit() -> int:
    """Return how many bytes a decoded image may have; raise ConfigError if the variable is not a positive number."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        gib = float(text) if text else DEFAULT_GIB
        if not 0 < gib < 2**32:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{LIMIT_VARIABLE} must be a positive number of GiB such as 8, got {text!r}") from None
    return int(gib * 2**30)


def check_size(path: Path, height: int, width: int, planes: int = 1, *, itemsize: int = _FLOAT32) -> None:
    """Refuse an image without pixels, and one that is too large, before its pixels are decoded.

    Args:
        planes: P, over all pages.
        itemsize: bytes of a decoded value; images become float32, so at least 4 are counted.

    Raises:
        DataError: a length is 0, P is more than `MAX_PLANES`, or (P, H, W) takes more than `decoded_limit()` bytes.
    """
    if height < 1 or width < 1 or planes < 1:
        raise DataError(f"{path}: holds no pixels, its size is {width}x{height} in {planes} planes")
    if planes > MAX_PLANES:
        raise DataError(f"{path}: claims {planes} planes, at most {MAX_PLANES} are read; the file may be damaged")
    size = height * width * planes * max(itemsize, _FLOAT32)
    limit = decoded_limit()
    if size > limit:
        raise DataError(
            f"{path}: claims {planes} x {height} x {width} values (planes, height, width), {size / 2**30:.3g} GiB "
            f"decoded, more than the limit of {limit / 2**30:.3g} GiB; the file may be damaged. If it is right, cut it "
            f"into tiles, or raise the limit: simmat --max-image-gib {-(-size >> 30) if size < 2**60 else 'N'} … "
            f"(or {LIMIT_VARIABLE})"
        )


def check_window(path: Path, window: Window, size_hw: tuple[int, int]) -> None:
    """Refuse a window without pixels, and one that reaches beyond its image."""
    (y0, x0, y1, x1), (height, width) = window, size_hw
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise DataError(
            f"{path}: is {width}x{height} (width x height), so it holds no window of rows {y0} to {y1} and columns "
            f"{x0} to {x1}; choose one inside of it"
        )


@contextmanager
def decoding_errors(path: Path, kind: str) -> Iterator[None]:
    """Raise DataError with the path instead of any error that a library raises about a damaged file."""
    try:
        yield
    except SimMATError:
        raise
    except MemoryError as error:  # its size was checked: a length within is wrong, or the machine is small
        raise DataError(f"{path}: damaged, or larger than the free memory") from error
    except Exception as error:  # damaged files raise all kinds of errors in the libraries (zlib.error, TokenError, …)
        raise DataError(f"{path}: damaged or cut short, it cannot be read as {kind.upper()} ({error})") from error
