"""Folders that are replaced as a whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from simmat.errors import OutputError
from simmat.io.files.locks import locked
from simmat.io.files.system import output_errors, remove_folder, sync, sync_tree, without_dots


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
        with _claimed(new, target):
            remove_folder(old)
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


@contextmanager
def _claimed(new: Path, target: Path) -> Iterator[None]:
    """Make the folder `new` and lock it for this process; one that a killed process left is replaced."""
    with ExitStack() as held:
        with locked(target.parent, patience_s=2):  # so that no other process comes between the check and the lock
            if new.is_symlink():
                new.unlink()
            elif new.exists():
                with locked(new) as free:
                    if free is False:
                        raise OutputError(f"cannot write {target}: another process is writing it; wait for it to end")
                    remove_folder(new)
            new.mkdir()
            held.enter_context(locked(new))
        yield


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
