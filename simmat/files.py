"""Files that are whole or not there: written beside, made durable, renamed into place.

A crash at any moment leaves the old file or the new one, never half of one. What the operating
system refuses becomes an OutputError that says what, where and what to do.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from simmat.errors import ConfigError, OutputError

TEMPORARY_MARK = ".simmat-tmp"
"""Stands in every temporary file's name, so that what a killed process left can be told and removed."""

_TRIALS = 5

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
    errno.ELOOP: ("the path is a loop of links", "choose another path"),
}


def with_home(path: Path | str) -> Path:
    """Return a path with `~` or `~name` at its start replaced by that home folder.

    Raises:
        ConfigError: there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path} begins with a home folder that does not exist; give the whole path") from error


def output_error(error: OSError, path: Path) -> OutputError:
    """Say in words why `path` cannot be written, and what to do."""
    cause, remedy = _CAUSES.get(error.errno or 0, (error.strerror or str(error), "check the path and try again"))
    return OutputError(f"cannot write {path}: {cause}; {remedy}")


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there becomes `path` when the block ends well.

    The temporary name keeps the ending (".png"), so that libraries that go by it write the right
    format. Missing parent folders are made; of a link the file it leads to is replaced. On any failure the
    temporary file is removed and `path` stays as it was.

    Raises:
        OutputError: the file cannot be written there, or something that is no file has its name (a device, a pipe).
    """
    target = _led_to(Path(path))
    temporary = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(4)}{TEMPORARY_MARK}{target.suffix}")
    with _output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if target.exists() and not target.is_file():
            raise OutputError(f"cannot write {path}: it is a device or a pipe, not a file; give the name of a file")
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
            _sync(target.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


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
    """
    file, found = Path(path), []
    if not file.exists():
        return []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            break
        found.append(record)
    return found


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Give an empty folder beside `path`; what it holds becomes the folder `path` when the block ends well.

    A folder already at `path` is replaced as a whole, or of a link the folder it leads to. No file system swaps two
    folders in one step everywhere, so between two renames `path` is missing for a moment; `recover_folder` finishes a
    swap that was cut there.

    Raises:
        OutputError: the folder cannot be written there, `path` is a file, or another process is writing it.
    """
    if not _has_name(Path(path)):
        raise OutputError(f"{path} cannot be replaced as a whole; give the folder by its name")
    target = _led_to(Path(path))
    new, old = _beside(target)
    with _output_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(target)
        if target.exists() and not target.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        with _claimed(new, target):
            _remove_folder(old)
            try:
                yield new
                _sync_tree(new)
                _swap(new, target, old)
            except BaseException:
                recover_folder(target)
                with suppress(OSError):
                    _remove_folder(new)
                raise
            _sync(target.parent)
            _remove_folder(old)


@contextmanager
def staged_files(folder: Path | str) -> Iterator[Path]:
    """Give an empty folder within `folder`; the files written there move up into `folder` when the block ends well.

    On any failure before that `folder` has only what it had, and is not made. A file of the same name is replaced.

    Raises:
        OutputError: files cannot be written there.
    """
    target = Path(folder)
    staging = target / f".{secrets.token_hex(4)}{TEMPORARY_MARK}"
    made = [place for place in (target, *target.parents) if not place.exists()]
    with _output_errors(target):
        staging.mkdir(parents=True)
    try:
        yield staging
        with _output_errors(target):
            files = sorted(staging.iterdir())
            if blocked := next((target / file.name for file in files if (target / file.name).is_dir()), None):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(blocked))
            for file in files:
                os.replace(file, target / file.name)
            _sync(target)
    finally:
        with suppress(OSError):
            _remove_folder(staging)
            for place in made:
                place.rmdir()  # refuses one that holds something


def recover_folder(path: Path | str) -> Path:
    """Finish a swap of `atomic_folder` that a crash cut between its two renames; call it before reading.

    Where nothing was cut, nothing is written, so this is safe on read-only media and beside a writer.

    Returns:
        `path`, for use in an expression.
    """
    if not _has_name(Path(path)):
        return Path(path)
    target = _led_to(Path(path))
    new, old = _beside(target)
    if not target.exists() and old.is_dir():
        # The old folder only moves away once the new one is complete and durable.
        with _output_errors(target), suppress(FileNotFoundError):
            try:
                os.rename(new if new.is_dir() else old, target)
            except OSError:
                if not target.is_dir():  # where it is, a writer that lives has finished its swap since
                    raise
    return Path(path)


def remove_temporary(folder: Path | str) -> None:
    """Remove the temporary files that a killed process left in `folder`; nobody else may be writing there."""
    with _output_errors(Path(folder)):
        for left in Path(folder).glob(f".*{TEMPORARY_MARK}*"):
            if left.is_dir():
                _remove_folder(left)
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
    probe = target / f".{secrets.token_hex(4)}{TEMPORARY_MARK}"
    made: list[Path] = []
    with _output_errors(target):
        try:
            for place in reversed([target, *target.parents]):
                if not place.exists():
                    place.mkdir(exist_ok=True)
                    made.append(place)
            target.mkdir(exist_ok=True)  # refuses a file of that name
            probe.write_bytes(b"\0")
        finally:
            with suppress(OSError):
                probe.unlink(missing_ok=True)
            for place in reversed(made):
                with suppress(OSError):
                    place.rmdir()


@contextmanager
def _output_errors(target: Path) -> Iterator[None]:
    """Turn what the system refuses about `target` or its neighbours into an OutputError; let the rest pass."""
    try:
        yield
    except OSError as error:
        named = error.filename2 or error.filename  # of two, the second is written
        about = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else None
        ours = (target, *target.parents, *(_beside(target) if _has_name(target) else ()))
        made = about is not None and (about in ours or TEMPORARY_MARK in about.name)
        near = about is None or target.parent in about.parents
        # A file that is missing beside it may be one that is read there; a network has errors of no cause here.
        if not made and not (near and error.errno in _CAUSES and error.errno != errno.ENOENT):
            raise
        raise output_error(error, target) from error


def _has_name(target: Path) -> bool:
    """False for "." and "..": nothing lies beside them that could take their place."""
    return target.name not in ("", "..")


def _led_to(path: Path) -> Path:
    """Return what a link leads to, and a path without its "..", which a folder on the way could take along."""
    return Path(os.path.realpath(path)) if path.is_symlink() or ".." in path.parts else path


@contextmanager
def _claimed(new: Path, target: Path) -> Iterator[None]:
    """Make the folder `new` for this process alone; one that a killed process left is emptied.

    A lock on the folder itself leaves no file behind, and ends with its process.

    Raises:
        OutputError: a process that lives has it.
    """
    with ExitStack() as held:
        with _locked(target.parent, patience_s=2):  # for the moment between looking and taking
            if new.exists():
                with _locked(new) as free:
                    if not free:
                        raise OutputError(f"cannot write {target}: another process is writing it; wait for it to end")
                    _remove_folder(new)
            new.mkdir()
            held.enter_context(_locked(new))
        yield


@contextmanager
def _locked(folder: Path, *, patience_s: float = 0) -> Iterator[bool]:
    """Hold a folder's lock and give True, or False where another has it; a system without such locks gives True."""
    try:
        import fcntl
    except ImportError:
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    end = time.monotonic() + patience_s
    free = False
    try:
        while not free:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            except BlockingIOError:
                if time.monotonic() >= end:
                    break
                time.sleep(0.02)
            except OSError:  # a file system without locks
                free = True
        yield free
    finally:
        os.close(handle)


def _beside(target: Path) -> tuple[Path, Path]:
    return target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")


def _swap(new: Path, target: Path, old: Path) -> None:
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(new, target)
    except FileNotFoundError:
        # A reader's recover_folder came between the two renames and has finished the swap.
        if not target.is_dir():
            raise


def _remove_folder(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _sync(path: Path) -> None:
    """Make a file or folder durable; systems that cannot sync a folder need no sync of it."""
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


def _sync_tree(folder: Path) -> None:
    for inner in sorted(folder.rglob("*"), reverse=True):
        _sync(inner)
    _sync(folder)
