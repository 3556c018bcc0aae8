"""Write single files atomically."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import re
import secrets
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from simmat.errors import DataError, OutputError
from simmat.io.files.inputs import parse_json, require_file
from simmat.io.files.system import TEMPORARY_MARK, output_errors, remove_folder, sync, without_dots

_MAX_LINE_BYTES = 2**20
"""Longest line of a log; a longer one is not a record."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`; the file there replaces `path` when the block ends without an error.

    The temporary name keeps the suffix (".png"), by which libraries choose the format. Missing parent folders are
    made. If `path` is a link, the link is replaced and its target stays: in a folder of someone else, a link could lead
    anywhere. On any failure the temporary file is removed and `path` stays as it was.

    Raises:
        OutputError: the file cannot be written, or `path` is a folder, device or pipe.
    """
    target = without_dots(Path(path))
    temporary = target.with_name(temporary_name(target.name))
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        # /dev/stdout may be a link to a file, and root could replace it
        if target.parent == Path("/dev") or (target.exists() and not target.is_file()):
            raise OutputError(f"cannot write {path}: it is a device or a pipe, not a file; give the name of a file")
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, target)
            sync(target.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def temporary_name(name: str) -> str:
    """Return a temporary name for a file or folder, which says the machine and the process, with its ending."""
    return f"{_prefix(name)}{os.getpid():x}-{secrets.token_hex(4)}{TEMPORARY_MARK}{Path(name).suffix}"


def _prefix(name: str) -> str:
    machine = socket.gethostname()
    with suppress(OSError):  # containers may share a name, and have processes of their own
        machine += os.readlink("/proc/self/ns/pid")
    return f".{Path(name).stem[:40]}.{hashlib.sha256(machine.encode()).hexdigest()[:6]}-"


def remove_leftovers(path: Path | str) -> None:
    """Remove what processes of this machine left under a `temporary_name` of `path` when they died.

    Files of other machines that share the folder are kept.

    Raises:
        OutputError: one cannot be removed.
    """
    target = without_dots(Path(path))
    ending = re.escape(TEMPORARY_MARK + target.suffix)
    left = re.compile(rf"{re.escape(_prefix(target.name))}([0-9a-f]+)-[0-9a-f]{{8}}{ending}")
    with output_errors(target):
        for found in target.parent.iterdir() if target.parent.is_dir() else ():
            if (match := left.fullmatch(found.name)) and not _is_alive(int(match[1], 16)):
                _remove(found)


def _remove(path: Path) -> None:
    if path.is_dir():
        remove_folder(path)
    else:
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write a whole file from bytes; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    r"""Write a whole file from text, in UTF-8 with "\n" as it is; see `atomic_path`.

    A lone surrogate, by which Python represents a byte of a file name that is not UTF-8, is written as its escape,
    which json reads back.
    """
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_rows(path: Path | str, rows: Iterable[Sequence[str]]) -> None:
    """Write a whole CSV file, its header first; see `atomic_write_text` and `read_rows`."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    atomic_write_text(path, text.getvalue())


def atomic_write_json(path: Path | str, value: Any) -> None:
    """Write a json value, indented, keys in the given order; raise ValueError for NaN and infinity.

    The text is never in memory as a whole: that of 100,000 objects would take 300 MB in pieces.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream,
    ):
        json.dump(value, stream, indent=2, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Return the records of a log, up to the first line that is not a json object with an integer "step".

    A crash may cut the last line. A missing log has no records.

    Raises:
        DataError: the path is not a file, or cannot be read.
    """
    file, found = Path(path), []
    if not file.exists():
        return []
    require_file(file, "log")
    try:
        with file.open("rb") as stream:
            while line := stream.readline(_MAX_LINE_BYTES):
                record = parse_json(line, constants=True)
                if not isinstance(record, dict) or type(record.get("step")) is not int:
                    break
                found.append(record)
    except ValueError:
        return found
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}; check who may read it") from error
    return found


def remove_temporary(folder: Path | str) -> None:
    """Remove the temporary files that a killed process left in `folder`; no other process may be writing there."""
    with output_errors(Path(folder)):
        for left in Path(folder).glob(f".*{TEMPORARY_MARK}*"):
            _remove(left)


def check_writable(folder: Path | str) -> None:
    """Raise OutputError if `folder` cannot be made or written to; leave no trace."""
    target = Path(folder)
    with output_errors(target):
        with suppress(FileNotFoundError):
            target.stat()  # its name may be too long, or a link lead in a circle
        near = next(place for place in (target, *target.absolute().parents) if os.path.lexists(place))
        with TemporaryFile(dir=near, prefix=".", suffix=TEMPORARY_MARK, buffering=0) as probe:
            probe.write(b"\0")
