"""Folders that are replaced as a whole, and files that come into a folder all together."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from simmat.errors import OutputError
from simmat.io.files.single import remove_leftovers, temporary_name
from simmat.io.files.system import locked, output_errors, remove_folder, sync, sync_tree, without_dots


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder next to `path` that replaces `path` when the block ends without an error.

    If `path` is a link, the link is replaced and its target stays. Two folders cannot be swapped in one step on every
    file system, so `path` is missing for a moment between two renames; `recover_folder` finishes a swap that was
    interrupted there.

    Raises:
        OutputError: the folder cannot be written, `path` is a file, or another process is writing it.
    """
    if not _has_name(Path(path)):
        raise OutputError(f"{path} cannot be replaced as a whole; give the folder by its name")
    target = without_dots(Path(path))
    new, old = _new_and_old(target)
    with output_errors(target, new, old):
        target.parent.mkdir(parents=True, exist_ok=True)
        recover_folder(target)
        if target.exists() and not target.is_dir():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        with locked(target) as free:
            if not free:
                raise OutputError(f"cannot write {target}: another process is writing it; wait for it to end")
            remove_folder(new)  # of a killed process
            remove_folder(old)
            new.mkdir()
            try:
                yield new
                sync_tree(new)
                _swap(new, target, old)
            except BaseException:
                recover_folder(target)
                with suppress(OSError):
                    remove_folder(new)
                raise
            sync(target.parent)
            remove_folder(old)


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
    staging = target / temporary_name("files")
    with output_errors(target):
        remove_leftovers(target / "files")
        staging.mkdir(parents=True)
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


def recover_folder(path: Path | str) -> Path:
    """Finish a swap of `atomic_folder` that was interrupted between its two renames; call it before reading.

    It returns `path`. Without an interrupted swap nothing is written, so it is safe on read-only media.
    """
    if not _has_name(Path(path)):
        return Path(path)
    target = without_dots(Path(path))
    new, old = _new_and_old(target)
    if not os.path.lexists(target) and old.is_dir():
        # The old folder is only renamed once the new one is complete and synced.
        with output_errors(target, new, old), suppress(FileNotFoundError):
            try:
                os.rename(new if new.is_dir() else old, target)
            except OSError:
                if not target.is_dir():  # otherwise a running writer has just finished its swap
                    raise
    return Path(path)


def _has_name(target: Path) -> bool:
    """Return False for "." and "..", which cannot be renamed."""
    return target.name not in ("", "..")


def _new_and_old(target: Path) -> tuple[Path, Path]:
    return target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")


def _swap(new: Path, target: Path, old: Path) -> None:
    if os.path.lexists(target):
        os.rename(target, old)
    try:
        os.rename(new, target)
    except FileNotFoundError:
        # The `recover_folder` of a reader has finished the swap between the two renames.
        if not target.is_dir():
            raise
