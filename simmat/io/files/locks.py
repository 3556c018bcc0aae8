"""Locks on folders: they leave no file behind, and the system releases them when their process ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, *, patience_s: float = 0) -> Iterator[bool | None]:
    """Hold a folder's lock while the block runs.

    Args:
        patience_s: how many seconds to wait where another process or block holds the lock.

    Yields:
        True if the lock is held, False if another process or block holds it, None if locking is not possible: the
        system or the file system has no locks, or the folder is not readable.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # opening a pipe would wait for a writer
    except (ImportError, PermissionError):
        yield None
        return
    end = time.monotonic() + patience_s
    held: bool | None = False
    try:
        while not held:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                if time.monotonic() >= end:
                    break
                time.sleep(0.02)
            except OSError:  # a file system without locks
                held = None
                break
        yield held
    finally:
        os.close(handle)
