"""Where the annotator keeps its files in a folder of images: locked, inside of it, and not growing without end."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simmat.data.card import CARD_FILE
from simmat.data.formats.folders import IMAGES, MASKS
from simmat.data.formats.manifest import MANIFEST_FILE
from simmat.errors import DataError
from simmat.io.files import output_error, with_home
from simmat.io.files.locks import locked

HOME = Path(".simmat") / "annotate"
JOURNAL = "journal"
STATE_FILE = "state.json"
RUNS = "runs"
CACHES = ("embeddings", "tiles")
MOST_CACHED = 8 * 2**30
"""Bytes of each of the `CACHES` that the next session finds."""

_log = logging.getLogger(__name__)


@contextmanager
def claimed(root: Path) -> Iterator[None]:
    """Keep other servers away from a folder while the block runs; it is read within.

    Raises:
        DataError: there is no such folder, another server works on it, or a link in it leads what is written out of it.
        OutputError: it cannot be written to.
    """
    root = with_home(root).absolute()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "no such folder"
        raise DataError(f"{root}: {what}; give the folder that holds {IMAGES}/")
    home = root / HOME
    for folder, names in ((root, (MASKS, RUNS, CARD_FILE, MANIFEST_FILE)), (home, (JOURNAL, STATE_FILE, *CACHES))):
        for name in names:
            check_inside(root, folder / name)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(error, home) from error
    with locked(home) as alone:
        if alone is False:
            raise DataError(f"{root} is being annotated by another `simmat annotate`; use its page, or end it first")
        if alone is None:
            _log.warning("%s cannot be locked here: make sure that no other `simmat annotate` works on it", root)
        yield


def check_inside(root: Path, path: Path) -> None:
    """Refuse a path that leads out of a folder by a link, which a data set of somebody else may hide."""
    place = Path(os.path.realpath(path))  # unlike `resolve`, it takes links in a circle
    if not place.is_relative_to(os.path.realpath(root)):
        raise DataError(f"{path} leads out of {root} to {place}; put a copy in place of the link")


def trim(cache: Path) -> None:
    """Remove links from a cache, and its oldest files where it has grown too large."""
    files = []
    for path in cache.rglob("*"):
        if path.is_symlink():  # what is written there would follow it
            path.unlink(missing_ok=True)
        elif path.is_file():
            stat = path.stat()
            files.append((stat.st_mtime, stat.st_size, path))
    size = sum(size for _, size, _ in files)
    for _, freed, path in sorted(files):
        if size <= MOST_CACHED:
            return
        path.unlink(missing_ok=True)
        size -= freed
