"""The files of the annotator in a folder of images: the lock, the check for links, and the size of caches."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from simmat.data.card import CARD_FILE
from simmat.data.formats.folders import IMAGES, MASKS
from simmat.data.formats.manifest import MANIFEST_FILE
from simmat.errors import DataError
from simmat.io.files import output_error, require_folder, with_home

HOME = Path(".simmat") / "annotate"
JOURNAL = "journal"
STATE_FILE = "state.json"
PREDICTIONS_FILE = "predictions.json"
LOCK_FILE = "lock"
RUNS = "runs"
CACHES = ("embeddings", "tiles")
MAX_CACHED = 8 * 2**30
"""Most bytes of each of the `CACHES` that stay for the next session."""


@contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Lock a folder against other servers inside the block; read the folder only there.

    Raises:
        DataError: there is no such folder, another server uses it, or a link would lead written files out of it.
        OutputError: the folder cannot be written.
    """
    root = with_home(root).absolute()
    require_folder(root, f"give the folder that contains {IMAGES}/")
    home = root / HOME
    for folder, names in (
        (root, (MASKS, RUNS, CARD_FILE, MANIFEST_FILE)),
        (home, (JOURNAL, STATE_FILE, PREDICTIONS_FILE, LOCK_FILE, *CACHES)),
    ):
        for name in names:
            check_inside(root, folder / name)
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout:
        raise DataError(
            f"{root} is being annotated by another `simmat annotate`; use its page, or stop it first"
        ) from None
    except OSError as error:
        raise output_error(error, home) from error
    try:
        yield
    finally:
        lock.release()


def check_inside(root: Path, path: Path) -> None:
    """Raise DataError for a path that a link leads out of a folder, as a data set from others may contain."""
    target = Path(os.path.realpath(path))  # unlike `resolve`, it accepts circular links
    if not target.is_relative_to(os.path.realpath(root)):
        raise DataError(f"{path} leads out of {root} to {target}; put a copy in place of the link")


def trim(cache: Path) -> None:
    """Remove links from a cache, and its oldest files if it is too large."""
    files = []
    for path in cache.rglob("*"):
        if path.is_symlink():  # writing to it would write to its target
            path.unlink(missing_ok=True)
        elif path.is_file():
            stat = path.stat()
            files.append((stat.st_mtime, stat.st_size, path))
    size = sum(size for _, size, _ in files)
    for _, freed, path in sorted(files):
        if size <= MAX_CACHED:
            return
        path.unlink(missing_ok=True)
        size -= freed
