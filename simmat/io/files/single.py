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
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from simmat.errors import ConfigError, DataError, OutputError
from simmat.io.files.inputs import parse_json, require_file
from simmat.io.files.locks import locked
from simmat.io.files.system import TEMPORARY_MARK, output_errors, remove_folder, sync, without_dots

_TRIES = 5
_MOST_LINE_BYTES = 2**20
"""Longest line of a log; a longer one is not a record."""
_STAGING_PATTERN = f".{'[0-9a-f]' * 8}{TEMPORARY_MARK}"
"""Pattern of the names of `staged_files`."""


def with_home(path: Path | str) -> Path:
    """Return a path with a leading `~` or `~name` replaced; raise ConfigError if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} begins with a home folder that does not exist; give the whole path") from error


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
    temporary = target.with_name(
        f"{_temporary_prefix(target)}{os.getpid():x}-{secrets.token_hex(4)}{TEMPORARY_MARK}{target.suffix}"
    )
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


def remove_left(path: Path | str) -> None:
    """Remove temporary files for `path` that processes of this machine left in `atomic_path` when they died.

    Files of other machines that share the folder are kept.

    Raises:
        OutputError: one cannot be removed.
    """
    target = without_dots(Path(path))
    left = re.compile(
        rf"{re.escape(_temporary_prefix(target))}([0-9a-f]+)-[0-9a-f]{{8}}{re.escape(TEMPORARY_MARK + target.suffix)}"
    )
    with output_errors(target):
        for found in target.parent.iterdir() if target.parent.is_dir() else ():
            if (match := left.fullmatch(found.name)) and not _is_alive(int(match[1], 16)):
                found.unlink(missing_ok=True)


def _temporary_prefix(target: Path) -> str:
    """Return how temporary names for a file start on this machine."""
    machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:6]
    return f".{target.stem[:40]}.{machine}-"


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
            while line := stream.readline(_MOST_LINE_BYTES):
                record = parse_json(line, constants=True)
                if not isinstance(record, dict) or type(record.get("step")) is not int:
                    break
                found.append(record)
    except ValueError:
        return found
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}; check who may read it") from error
    return found


@contextmanager
def staged_files(folder: Path | str, *, replaced: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty folder inside `folder`; its files move into `folder` when the block ends without an error.

    Files of the same name are replaced. On a failure in the block, `folder` keeps what it had, and is not made if it
    did not exist. Remains of killed processes are removed; running processes do not disturb each other.

    Args:
        replaced: names of files of an earlier call, removed unless they are written again.

    Raises:
        OutputError: files cannot be written there.
    """
    target = Path(folder)
    made = [place for place in (target, *target.parents) if not place.exists()]
    with ExitStack() as held:
        with output_errors(target):
            staging, left = _new_staging(target, held)
            _remove_unheld(left)
        try:
            yield staging
            with output_errors(target):
                files = sorted(staging.iterdir())
                if blocked := next((target / file.name for file in files if (target / file.name).is_dir()), None):
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(blocked))
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


def _new_staging(target: Path, held: ExitStack) -> tuple[Path, list[Path]]:
    """Make a folder inside `target`, locked until `held` closes, and list the staging folders that existed before.

    This holds the lock of `target`, so the process of every listed folder has already locked it.
    """
    staging = target / f".{secrets.token_hex(4)}{TEMPORARY_MARK}"
    target.mkdir(parents=True, exist_ok=True)
    with locked(target, patience_s=2) as alone:
        left = (
            [path for path in target.glob(_STAGING_PATTERN) if path.is_dir() and not path.is_symlink()] if alone else []
        )
        staging.mkdir(parents=True)
        held.enter_context(locked(staging))
    return staging, left


def _remove_unheld(folders: Iterable[Path]) -> None:
    """Remove the folders whose processes have ended; keep all where locking is not possible."""
    for folder in folders:
        with suppress(OSError), locked(folder) as free:
            if free:
                remove_folder(folder)


def remove_temporary(folder: Path | str) -> None:
    """Remove the temporary files that a killed process left in `folder`; no other process may be writing there."""
    with output_errors(Path(folder)):
        for left in Path(folder).glob(f".*{TEMPORARY_MARK}*"):
            if left.is_dir():
                remove_folder(left)
            else:
                left.unlink(missing_ok=True)


def check_writable(folder: Path | str) -> None:
    """Raise OutputError if `folder` cannot be made or written to; leave no trace."""
    for _ in range(_TRIES - 1):
        with suppress(OutputError):
            return _try_to_write(Path(folder))
        time.sleep(0.01)  # another process may run the same check and remove the folder it made
    _try_to_write(Path(folder))


def _try_to_write(target: Path) -> None:
    made = [place for place in (target, *target.parents) if not place.exists()]
    with output_errors(target):
        try:
            target.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=target, prefix=".", suffix=TEMPORARY_MARK, buffering=0) as probe:
                probe.write(b"\0")
        finally:
            with suppress(OSError):
                for place in made:
                    place.rmdir()  # fails if it is not empty
