"""Locks on folders: they leave no file behind, and end with the process that holds them, however it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path, *, patience_s: float = 0, without: bool = True) -> Iterator[bool]:
    """Hold a folder's lock while the block runs.

    Args:
        folder: a folder that is there.
        patience_s: how long to wait in seconds where another process or another block has it.
        without: what to give where there is no lock to take: the system or the file system has none, or the folder may
            not be read.

    Yields:
        Whether the lock is held: False where another has it.
    """
    try:
        import fcntl
    except ImportError:
        yield without
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        yield without
        return
    end = time.monotonic() + patience_s
    held = False
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
                held = without
                break
        yield held
    finally:
        os.close(handle)
