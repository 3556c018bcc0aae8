"""Files that are whole or not there, one by one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from simmat.errors import ConfigError, DataError, OutputError
from simmat.io.files.inputs import parse_json, require_file
from simmat.io.files.locks import locked
from simmat.io.files.system import TEMPORARY_MARK, led_to, output_errors, remove_folder, sync

_TRIALS = 5
_LONGEST_RECORD = 2**20
"""Bytes of a line of a log; a longer one is no record."""
_STAGING = f".{'[0-9a-f]' * 8}{TEMPORARY_MARK}"
"""Pattern of the names of `staged_files`."""


def with_home(path: Path | str) -> Path:
    """Return a path with `~` or `~name` at its start replaced by that home folder.

    Raises:
        ConfigError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} begins with a home folder that does not exist; give the whole path") from error


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there becomes `path` when the block ends well.

    The temporary name keeps the ending (".png"), so that libraries that go by it write the right
    format. Missing parent folders are made; of a link the file it leads to is replaced. On any failure the
    temporary file is removed and `path` stays as it was.

    Raises:
        OutputError: the file cannot be written there, or something that is no file has its name (a device, a pipe).
    """
    target = led_to(Path(path))
    temporary = target.with_name(
        f"{_begin(target)}{os.getpid():x}-{secrets.token_hex(4)}{TEMPORARY_MARK}{target.suffix}"
    )
    with output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if target.exists() and not target.is_file():
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
    """Remove the temporary files beside `path` that `atomic_path` made for it in a process that has died.

    Those of other machines, which may share the folder, are left alone.

    Raises:
        OutputError: one cannot be removed.
    """
    target = led_to(Path(path))
    left = re.compile(
        rf"{re.escape(_begin(target))}([0-9a-f]+)-[0-9a-f]{{8}}{re.escape(TEMPORARY_MARK + target.suffix)}"
    )
    with output_errors(target):
        for found in target.parent.iterdir() if target.parent.is_dir() else ():
            if (match := left.fullmatch(found.name)) and not _is_alive(int(match[1], 16)):
                found.unlink(missing_ok=True)


def _begin(target: Path) -> str:
    """Return how the name of a temporary file begins: for which file, and on which machine."""
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
    """Write bytes as the whole of `path`; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path | str, text: str) -> None:
    """Write text as the whole of `path`, UTF-8, lines ending in a line feed; see `atomic_path`.

    A byte of a file name that is no UTF-8, which Python holds as a lone surrogate, is written as its escape, which
    json reads back.
    """
    atomic_write_bytes(path, text.encode("utf-8", "backslashreplace"))


def atomic_write_json(path: Path | str, value: Any) -> None:
    """Write a json value, indented, keys in the order given; NaN and infinity raise ValueError (they are no json)."""
    atomic_write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_log(path: Path | str) -> list[dict[str, Any]]:
    """Return the records of a log, a json object with its "step" a line, up to the first line that is none.

    A crash cuts the last one. Without a log there are none.

    Raises:
        DataError: it is no file, or cannot be read.
    """
    file, found = Path(path), []
    if not file.exists():
        return []
    require_file(file, "log")
    try:
        with file.open("rb") as stream:
            while line := stream.readline(_LONGEST_RECORD):
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
    """Give an empty folder within `folder`; the files written there move up into `folder` when the block ends well.

    On any failure before that `folder` has only what it had, and is not made. A file of the same name is replaced. What
    a killed process left of such a call in `folder` is removed; calls of processes that live do not disturb each other.

    Args:
        folder: where the files go.
        replaced: names of files of an earlier call, which are removed where they were not written again.

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
                    place.rmdir()  # refuses one that holds something


def _new_staging(target: Path, held: ExitStack) -> tuple[Path, list[Path]]:
    """Make a folder within `target` that is locked until `held` closes, and list those that were there before.

    All is done under the lock of `target`, so every folder on the list has been locked by its process already.
    """
    staging = target / f".{secrets.token_hex(4)}{TEMPORARY_MARK}"
    target.mkdir(parents=True, exist_ok=True)
    with locked(target, patience_s=2) as alone:
        left = [path for path in target.glob(_STAGING) if path.is_dir() and not path.is_symlink()] if alone else []
        staging.mkdir(parents=True)
        held.enter_context(locked(staging))
    return staging, left


def _remove_unheld(folders: Iterable[Path]) -> None:
    """Remove the folders whose processes have ended; where that cannot be told, as without locks, they stay."""
    for folder in folders:
        with suppress(OSError), locked(folder) as free:
            if free:
                remove_folder(folder)


def remove_temporary(folder: Path | str) -> None:
    """Remove the temporary files that a killed process left in `folder`; nobody else may be writing there."""
    with output_errors(Path(folder)):
        for left in Path(folder).glob(f".*{TEMPORARY_MARK}*"):
            if left.is_dir():
                remove_folder(left)
            else:
                left.unlink(missing_ok=True)


def check_writable(folder: Path | str) -> None:
    """Try to make `folder` and to write into it, before hours of work depend on it; no trace of the trial stays.

    Raises:
        OutputError: it cannot be made or written to.
    """
    for _ in range(_TRIALS - 1):
        with suppress(OutputError):
            return _try_to_write(Path(folder))
        time.sleep(0.01)  # another process may have been trying the same, and have removed what it had made
    _try_to_write(Path(folder))


def _try_to_write(target: Path) -> None:
    made = [place for place in (target, *target.parents) if not place.exists()]
    with output_errors(target):
        try:
            target.mkdir(parents=True, exist_ok=True)  # refuses a file of that name
            with TemporaryFile(dir=target, prefix=".", suffix=TEMPORARY_MARK, buffering=0) as probe:
                probe.write(b"\0")
        finally:
            with suppress(OSError):
                for place in made:
                    place.rmdir()  # refuses one that holds something
