"""Files that are written whole or not at all; locks, and the cache folder.

What is written goes to a temporary name, is synced and renamed: a crash leaves the old file or the new one, never a
part of one. Errors of the operating system say the path, the cause and a remedy.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import platformdirs
from filelock import FileLock, Timeout

from simmat.errors import OutputError, SimMATError
from simmat.io.cells import as_text, csv_line
from simmat.io.paths import with_home

if TYPE_CHECKING:
    import numpy as np

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


def write_rows(path: Path | str, rows: Iterable[Sequence[object]]) -> None:
    """Write a whole CSV file, its header first; see `as_text`, `atomic_write_text` and `read_csv_rows`."""
    lines = [csv_line(map(as_text, row)) for row in rows]
    atomic_write_text(path, "".join(lines))


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
