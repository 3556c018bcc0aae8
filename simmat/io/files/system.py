"""Turn errors of the operating system into OutputErrors; sync files and folders; the cache folder and locks in it."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from filelock import FileLock, Timeout

from simmat.errors import ConfigError, OutputError

if TYPE_CHECKING:
    import numpy as np

TEMPORARY_MARK = ".simmat-tmp"
"""Part of every temporary name, so that the remains of a killed process can be recognised and removed."""

_CAUSES = {
    errno.ENOSPC: ("the disk is full", "free some space or choose another folder"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or choose another folder"),
    errno.EFBIG: ("the file is larger than allowed here", "choose another folder or raise the file size limit"),
    errno.EACCES: ("no permission", "choose a folder you may write to"),
    errno.EPERM: ("no permission", "choose a folder you may write to"),
    errno.EROFS: ("the file system is read-only", "choose a folder you may write to"),
    errno.ENOENT: ("nothing can be made there", "choose another folder"),
    errno.EISDIR: ("a folder of that name is in the way", "move it or choose another name"),
    errno.ENOTEMPTY: ("a folder of that name is in the way", "move it or choose another name"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "move it or choose another path"),
    errno.EEXIST: ("a file of that name is in the way", "move it or choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("a link is in the way, or a loop of links", "remove it or choose another path"),
}


CACHE_VARIABLE = "SIMMAT_CACHE"
"""Environment variable that names another cache folder."""


def with_home(path: Path | str) -> Path:
    """Return a path with a leading `~` or `~name` replaced; raise ConfigError if there is no such home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} begins with a home folder that does not exist; give the whole path") from error


def cache_folder() -> Path:
    """Return the folder of downloaded weights, indexes and locks: $SIMMAT_CACHE, else the platform's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return with_home(named) if named else platformdirs.user_cache_path("simmat", appauthor=False)


@contextmanager
def locked(path: Path, *, timeout_s: float = 0) -> Iterator[bool]:
    """Hold this user's lock on a path, which need not exist, while the block runs; nothing is written beside it.

    Yields:
        False if another process or block still holds it after `timeout_s`; True also where files cannot be locked.
    """
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:24]
    lock = FileLock(cache_folder() / "locks" / f"{name}.lock")
    free = True
    with suppress(OSError, NotImplementedError):  # a cache folder that cannot be written, or has no locks
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=timeout_s)
        except Timeout:
            free = False
    try:
        yield free
    finally:
        lock.release()


def output_error(error: OSError, path: Path) -> OutputError:
    """Return an error that says why `path` cannot be written, and what to do."""
    cause, remedy = _CAUSES.get(error.errno or 0, (error.strerror or str(error), "check the path and try again"))
    return OutputError(f"cannot write {path}: {cause}; {remedy}")


@contextmanager
def output_errors(target: Path, *temporary: Path) -> Iterator[None]:
    """Turn an OSError about `target` or its temporary files into an OutputError; other errors pass."""
    try:
        yield
    except OSError as error:
        named = error.filename2 or error.filename  # a rename names two files and writes the second
        about = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else None
        ours = (target, *target.parents, *temporary)
        written = about is not None and (about in ours or TEMPORARY_MARK in about.name)
        near = about is None or target.parent in about.parents
        # A missing file next to `target` may be an input of the block; network errors are not in _CAUSES.
        if not written and not (near and error.errno in _CAUSES and error.errno != errno.ENOENT):
            raise
        raise output_error(error, target) from error


def without_dots(path: Path) -> Path:
    """Return a path without "..", which would break when a folder on the path is replaced; a link at its end stays."""
    return Path(os.path.realpath(path.parent), path.name) if ".." in path.parts else path


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
    if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        mapping.madvise(mmap.MADV_DONTNEED)


def sync(path: Path) -> None:
    """Flush a file or folder to disk; does nothing where the system cannot sync a folder."""
    try:
        handle = os.open(path, os.O_RDONLY)
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


def sync_tree(folder: Path) -> None:
    """Flush a folder with its contents to disk."""
    for inner in sorted(folder.rglob("*"), reverse=True):
        sync(inner)
    sync(folder)
