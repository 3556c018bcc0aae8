"""Files: read within limits, written whole or not at all; locks, and the cache folder.

What is read may come from anyone: a pipe, a device, a file or an image too large for the memory, and json nested too
deep are refused. What is written goes to a temporary name, is synced and renamed: a crash leaves the old file or the
new one, never a part of one. Errors of the operating system say the path, the cause and a remedy.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import math
import mmap
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from urllib.parse import urlsplit

import platformdirs
from filelock import FileLock, Timeout

from simmat.errors import (
    ConfigError,
    DataError,
    OutputError,
    SimMATError,
    all_problems,
    shortened,
)
from simmat.types import Window

if TYPE_CHECKING:
    import numpy as np

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
AXES = ("x", "y", "z")
"""Axes of a volume: a slice along z has rows along y and columns along x, along y z and x, along x z and y."""
IMAGE_FOLDERS = (".zarr", ".safe")
"""Endings of folders that are one image each."""
TEMPORARY_MARK = ".simmat-tmp"
"""Part of every temporary name, so that the remains of a killed process can be recognised and removed."""
_TEMPORARY_NAME = re.compile(
    r"\..*\.[0-9a-f]{8}" + re.escape(TEMPORARY_MARK) + r"(\..*)?", re.DOTALL
)
STALE_S = 24 * 3600
"""Age in seconds of a temporary file that no running process still writes."""
CACHE_VARIABLE = "SIMMAT_CACHE"
"""Environment variable that names another cache folder."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (
    *NO_SPACE, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTEMPTY, errno.ENOTDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.ELOOP,
)  # fmt: skip
"""Errors about what is written; those of networks are others."""


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
    if path.is_symlink():
        return f"{path}: a link to {os.readlink(path)}, which is missing; restore that {what}, or remove the link"
    if match is None:
        return f"{path}: no such {what}"
    url = f"{match[1]}://{match[2]}".partition("?")[0]
    return (
        f"{url}: no such {what}; only GeoTIFFs are read by URL (http, https, s3, gs), by `simmat predict` and "
        "`Predictor`; download other files first"
    )


def shown_url(path: Path) -> str:
    """Return a path, or the URL that it stands for without a query, which may hold a secret."""
    url = url_of(path)
    if url is None:
        return str(path)
    return url.partition("?")[0]


def stem_of(path: Path) -> str:
    """Return the name of a file without its ending, also of a URL with a query.

    Raises:
        DataError: a URL is not valid.
    """
    url = url_of(path)
    if url is None:
        return path.stem
    try:
        return Path(urlsplit(url).path or "remote").stem
    except ValueError as error:
        raise DataError(
            f"{shown_url(path)}: not a valid address ({error}); give that of a GeoTIFF"
        ) from None


def with_home(path: Path | str) -> Path:
    """Return a path with a leading `~` or `~name` replaced; raise ConfigError if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{path} begins with a home folder that does not exist; give the whole path"
        ) from error


def is_image_folder(path: Path) -> bool:
    """Return whether a path is a folder that is one image, as its name says: a Zarr store, a Sentinel product."""
    return path.name.lower().endswith(IMAGE_FOLDERS) and path.is_dir()


class FrameAddress(NamedTuple):
    """The parts of a frame's path; `axis` is "" for files that are no volume."""

    file: Path
    axis: str
    number: int


def frame_of(path: Path) -> FrameAddress | None:
    """Return the file, axis and number of the path of a frame; None for any other path."""
    if not (path.name.isascii() and path.name.isdigit() and len(path.name) < 10):
        return None
    axis = (
        path.parent.name
        if path.parent.name in AXES and not path.parent.exists()
        else ""
    )
    file = path.parent.parent if axis else path.parent
    if file.exists() if axis else file.is_file() or is_image_folder(file):
        return FrameAddress(file, axis, int(path.name))
    return None


def require_file(
    path: Path,
    what: str = "file",
    *,
    error: type[SimMATError] = DataError,
    hint: str = "",
) -> None:
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
        raise error(
            f"{path}: cannot be read: {getattr(cause, 'strerror', None) or cause}"
        ) from cause
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
                lines.append((reader.line_num, row))
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


def decoded_limit() -> int:
    """Return how many bytes a decoded image may have; raise ConfigError if the variable is not a positive number."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        gib = float(text) if text else DEFAULT_GIB
        if not 0 < gib < 2**32:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{LIMIT_VARIABLE} must be a positive number of GiB such as 8, got {text!r}"
        ) from None
    return int(gib * 2**30)


def check_size(
    path: Path, height: int, width: int, planes: int = 1, *, itemsize: int = _FLOAT32
) -> None:
    """Refuse an image without pixels, and one that is too large, before its pixels are decoded.

    Args:
        planes: P, over all pages.
        itemsize: bytes of a decoded value; images become float32, so at least 4 are counted.

    Raises:
        DataError: a length is 0, P is more than `MAX_PLANES`, or (P, H, W) takes more than `decoded_limit()` bytes.
    """
    if height < 1 or width < 1 or planes < 1:
        raise DataError(
            f"{path}: holds no pixels, its size is {width}x{height} in {planes} planes"
        )
    if planes > MAX_PLANES:
        raise DataError(
            f"{path}: claims {planes} planes, at most {MAX_PLANES} are read; the file may be damaged"
        )
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
    # its size was checked: a length within is wrong, or the machine is small
    except MemoryError as error:
        raise DataError(f"{path}: damaged, or larger than the free memory") from error
    # damaged files raise all kinds of errors in the libraries (zlib.error, TokenError, …)
    except Exception as error:
        raise DataError(
            f"{path}: damaged or cut short, it cannot be read as {kind.upper()} ({error})"
        ) from error


def _check_target(target: Path, *, is_folder: bool = False) -> None:
    """Refuse to write a file or folder where something else is: each writer asks this before it replaces anything.

    A link is replaced itself, and its target stays: in a folder of someone else, a link could lead anywhere.

    Raises:
        OSError: there is a folder in the way of a file, or a file in the way of a folder.
        OutputError: there is a device or a pipe.
    """
    if is_folder:
        if target.exists() and not target.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        return
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    # /dev/stdout may be a link to a file, and root could replace it
    if target.parent == Path("/dev") or (target.exists() and not target.is_file()):
        raise OutputError(
            f"cannot write {target}: it is a device or a pipe, not a file; give the name of a file"
        )


def require_inside(
    folder: Path | str, *paths: Path, error: type[SimMATError] = OutputError
) -> None:
    """Refuse to write or remove what a link leads out of the folder that the user named.

    A folder of someone else may hold links. Whoever writes or removes below `folder` asks this first: of a file that is
    replaced or removed with the folder that it is in, as a link in its place is replaced itself; of a file that is
    appended to, and of a folder that is emptied, with its own path. `folder` itself may be a link.

    Raises:
        SimMATError: of class `error`; a link in the path leads out of `folder`.
    """
    root = os.path.realpath(folder)
    for path in paths:
        # unlike `resolve`, it accepts circular links
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(root):
            raise error(
                f"{path} leads out of {folder} to {target}; put a copy in place of the link"
            )


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`; the file there replaces `path` when the block ends without an error.

    The temporary name keeps the suffix (".png"), by which libraries choose the format. Missing parent folders are
    made. If `path` is a link, the link is replaced and its target stays. On any failure the temporary file is removed
    and `path` stays as it was.

    Raises:
        OutputError: the file cannot be written, or `path` is a folder, device or pipe.
    """
    target = Path(path)
    temporary = target.with_name(_temporary_name(target.name))
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_target(target)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, target)
            sync(target.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write a whole file from bytes; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    r"""Write a whole file from text, in UTF-8, with "\n" unchanged; see `atomic_path`.

    A lone surrogate, by which Python represents a byte of a file name that is not UTF-8, is written as its escape,
    which json reads back.
    """
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_rows(path: Path | str, rows: Iterable[Sequence[str]]) -> None:
    """Write a whole CSV file, its header first; see `atomic_write_text` and `read_csv_rows`."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    atomic_write_text(path, text.getvalue())


def atomic_write_json(path: Path | str, value: Any) -> None:
    """Write a json value, indented, keys in the given order; raise ValueError for NaN and infinity.

    The text is never in memory as a whole: that of 100,000 objects would take 300 MB in pieces.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open(
            "w", encoding="utf-8", errors="backslashreplace", newline="\n"
        ) as stream,
    ):
        json.dump(value, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder next to `path` that replaces `path` when the block ends without an error.

    If `path` is a link, the link is replaced and its target stays. Two folders cannot be swapped in one step on every
    file system, so `path` is missing for a moment between two renames; `recover_folder` finishes a swap that was
    interrupted there.

    Raises:
        OutputError: the folder cannot be written, `path` is a file, or another process is writing it.
    """
    if Path(path).name in ("", ".."):
        raise OutputError(
            f"{path} cannot be replaced as a whole; give the folder by its name"
        )
    target, new, old = _swapped(path)
    with output_errors(target, new, old):
        target.parent.mkdir(parents=True, exist_ok=True)
        _check_target(target, is_folder=True)
        with locked(target) as free:
            if not free:
                raise OutputError(
                    f"cannot write {target}: another process is writing it; wait for it to end"
                )
            _finish_swap(target, new, old)
            remove_folder(new)  # of a killed process
            remove_folder(old)
            new.mkdir()
            try:
                yield new
                for inner in sorted(new.rglob("*"), reverse=True):
                    sync(inner)
                sync(new)
                if os.path.lexists(target):
                    os.rename(target, old)
                os.rename(new, target)
            except BaseException:
                _finish_swap(target, new, old)
                with suppress(OSError):
                    remove_folder(new)
                raise
            sync(target.parent)
            remove_folder(old)


def recover_folder(path: Path | str) -> Path:
    """Finish a swap of `atomic_folder` that was interrupted between its two renames; call it before reading.

    It returns `path`. Without an interrupted swap nothing is written, so it is safe on read-only media.
    """
    if Path(path).name not in ("", ".."):
        target, new, old = _swapped(path)
        with locked(target) as free, output_errors(target, new, old):
            if free:  # otherwise a writer is at work
                _finish_swap(target, new, old)
    return Path(path)


def _swapped(path: Path | str) -> tuple[Path, Path, Path]:
    """Return the paths of a swap: the folder, the new one before the swap, and the old one after it."""
    target = Path(path)
    return (
        target,
        target.with_name(f".{target.name}.new"),
        target.with_name(f".{target.name}.old"),
    )


def _finish_swap(target: Path, new: Path, old: Path) -> None:
    """Do the second rename of a swap; the old folder is only renamed once the new one is complete and synced."""
    if os.path.lexists(target) or not old.is_dir():
        return
    if new.is_dir():
        os.rename(new, target)
    else:
        os.rename(old, target)


@contextmanager
def staged_files(
    folder: Path | str, *, replaced: Iterable[str] = (), tidy: bool = True
) -> Iterator[Path]:
    """Yield an empty folder inside `folder`; its files move into `folder` when the block ends without an error.

    Files of the same name are replaced. On a failure in the block, `folder` keeps what it had, and is not made if it
    did not exist. Running processes do not disturb each other.

    Args:
        replaced: names of files of an earlier call, removed unless they are written again.
        tidy: remove what killed processes left in `folder`, all of whose names are read for that.

    Raises:
        OutputError: files cannot be written there.
    """
    target = Path(folder)
    made = [place for place in (target, *target.parents) if not place.exists()]
    staging = target / _temporary_name("files")
    with output_errors(target):
        if tidy:
            remove_temporary(target)
        staging.mkdir(parents=True)
    try:
        yield staging
        with output_errors(target):
            files = sorted(staging.iterdir())
            for file in files:
                _check_target(target / file.name)
            for file in files:
                os.replace(file, target / file.name)
            for name in set(replaced) - {file.name for file in files}:
                (target / name).unlink(missing_ok=True)
            sync(target)
    finally:
        with suppress(OSError):
            remove_folder(staging)
            for place in made:
                place.rmdir()  # fails if it is not empty


def _temporary_name(name: str) -> str:
    """Return a temporary name for a file or folder, with its ending."""
    return f".{Path(name).stem[:40]}.{secrets.token_hex(4)}{TEMPORARY_MARK}{Path(name).suffix}"


def remove_temporary(folder: Path | str, *, older_than_s: float = STALE_S) -> None:
    """Remove the temporary files and folders in `folder` that killed processes left.

    Args:
        older_than_s: least age in seconds of what is removed; 0 where no other process can be writing.

    Raises:
        OutputError: one cannot be removed.
    """
    target = Path(folder)
    with output_errors(target):
        # a cache has thousands
        for name in os.listdir(target) if target.is_dir() else ():
            if not _TEMPORARY_NAME.fullmatch(name):
                continue
            left = target / name
            # another process has just renamed or removed it
            with suppress(FileNotFoundError):
                if time.time() - left.lstat().st_mtime >= older_than_s:
                    remove_folder(left)
                    left.unlink(missing_ok=True)


def check_writable(folder: Path | str) -> None:
    """Raise OutputError if `folder` cannot be made or written to; leave no trace."""
    target = Path(folder)
    with output_errors(target):
        with suppress(FileNotFoundError):
            target.stat()  # its name may be too long, or a link lead in a circle
        near = next(
            place
            for place in (target, *target.absolute().parents)
            if os.path.lexists(place)
        )
        with TemporaryFile(
            dir=near, prefix=".", suffix=TEMPORARY_MARK, buffering=0
        ) as probe:
            probe.write(b"\0")


def output_error(error: OSError, path: Path) -> OutputError:
    """Return an error that says why `path` cannot be written, and what to do."""
    remedy = "free some space, or choose" if error.errno in NO_SPACE else "choose"
    return OutputError(
        f"cannot write {path}: {error.strerror or error}; {remedy} another path that you may write to"
    )


@contextmanager
def output_errors(target: Path, *temporary: Path) -> Iterator[None]:
    """Turn an OSError about `target` or its temporary files into an OutputError; errors about other files pass."""
    try:
        yield
    except OSError as error:
        # a rename names two files and writes the second
        named = error.filename2 or error.filename
        about = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else target
        ours = (target, *target.parents, *temporary)
        written = isinstance(named, str | bytes) and (
            about in ours or TEMPORARY_MARK in about.name
        )
        # A missing file beside `target` may be an input of the block.
        if not written and not (
            error.errno in _REFUSED
            and (about == target or target.parent in about.parents)
        ):
            raise
        raise output_error(error, target) from error


def cache_folder() -> Path:
    """Return the folder of downloaded weights, indexes and locks: $SIMMAT_CACHE, else the platform's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return with_home(named)
    return platformdirs.user_cache_path("simmat", appauthor=False)


@contextmanager
def locked(path: Path, *, timeout_s: float = 0) -> Iterator[bool]:
    """Hold this user's lock on a path, which need not exist, while the block runs; nothing is written beside it.

    Yields:
        False if another process or block still holds it after `timeout_s`; True also if files cannot be locked here.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
    lock = FileLock(cache_folder() / "locks" / f"{name}.lock")
    free = True
    # a cache folder that cannot be written, or has no locks
    with suppress(OSError, NotImplementedError):
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            free = False
    try:
        yield free
    finally:
        lock.release()


def remove_folder(folder: Path) -> None:
    """Remove a folder with its contents, if it exists; of a link to a folder the link."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)


def release_pages(array: np.ndarray[Any, Any]) -> None:
    """Release the memory of a memory-mapped array; its file keeps what is written.

    Otherwise an array that is processed band by band ends up in memory as a whole. Other arrays are not changed.
    """
    mapping = getattr(array, "_mmap", None)
    if isinstance(mapping, mmap.mmap) and sys.platform != "win32":
        mapping.madvise(mmap.MADV_DONTNEED)


def sync(path: Path) -> None:
    """Flush a file or folder to disk; does nothing where the system cannot sync a folder."""
    try:
        # as fsync needs it there
        handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)
