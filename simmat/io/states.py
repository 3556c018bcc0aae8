"""Which files are read for one name, and whether they changed: the parts of every key of what was read before."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.paths import IMAGE_FOLDERS, frame_of, is_image_folder, require_file
from simmat.io.tiff import TIFF_ENDINGS, sidecars

_BESIDE = {
    ".shp": (".dbf", ".shx", ".prj", ".cpg"),
    ".hdr": ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip"),
}
"""Ending of a file -> endings of the files beside it that decide what it says."""
_WITH_OTHERS = (*_BESIDE, *TIFF_ENDINGS, *IMAGE_FOLDERS)
"""Endings of names for which several files are looked at."""


def files_of(path: str) -> tuple[Path, ...]:
    """Return every file that is read for one name: with a shapefile what lies beside it, of a frame its file.

    A frame of a folder, such as a DICOM series, has all files of the folder, and so has a folder that is one image.

    Raises:
        DataError: a folder that is one image has no file.
    """
    main = Path(path)
    frame = frame_of(main)
    if frame is not None:
        main = frame.file
    if is_image_folder(main):
        found = tuple(sorted(filter(Path.is_file, main.rglob("*"))))
        if not found:
            raise DataError(f"{main}: an image folder without any file")
        return found
    if frame is not None:
        if main.is_file():
            return (main,)
        return _files_in(main, main.stat().st_mtime_ns)
    files = [main]
    for ending in _BESIDE.get(main.suffix.lower(), ()):
        files += [main.with_suffix(ending), main.with_suffix(ending.upper())]
    return (main, *(file for file in files[1:] if file.exists()))


@lru_cache(maxsize=8)  # each frame of a folder asks for all files
def _files_in(folder: Path, _changed_ns: int) -> tuple[Path, ...]:
    return tuple(sorted(filter(Path.is_file, folder.iterdir())))


class FileState(NamedTuple):
    """What changes when a file changes, without opening it: programs can set the mtime, but not the ctime."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int


def content_states(path: Path) -> tuple[FileState, ...]:
    """Return the state of a file; of a folder also those of its files, which change without it.

    Raises:
        OSError: there is none.
    """
    if is_image_folder(path):
        return _states_of((path, *files_of(str(path))))
    if path.is_dir():
        return _states_of((path, *_files_in(path, path.stat().st_mtime_ns)))
    return _states_of((path,))


def file_states(path: str) -> tuple[FileState, ...]:
    """Return the state of every file that decides what is read for one name, and is there; a key holds all of them.

    Those are `files_of` it, and the files beside a TIFF that are looked at.

    Raises:
        OSError: the first of `files_of` is missing.
    """
    return _states_of(_looked_at(path))


def _looked_at(path: str) -> tuple[Path, ...]:
    files = files_of(path)
    main = files[0]
    if main.suffix.lower() in TIFF_ENDINGS:
        return (*files, *sidecars(main))
    return files


def _states_of(files: Sequence[Path | str]) -> tuple[FileState, ...]:
    main, *others = files
    states = [_state_of(main)]
    for file in others:
        with suppress(FileNotFoundError):
            states.append(_state_of(file))
    return tuple(states)


def _state_of(file: Path | str) -> FileState:
    status = os.stat(file)
    name = os.path.basename(file)
    return FileState(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def file_times(paths: Iterable[str]) -> npt.NDArray[np.int64]:
    """Return (F, 3) size, mtime and ctime in ns of F files, without opening them; -1 for a missing file.

    Where several files are read for one name, these are three parts of a digest of their states, see `file_states`.
    """

    @lru_cache(maxsize=8)
    def times(files: tuple[Path | str, ...]) -> tuple[int, ...]:
        states = _states_of(files)
        if len(states) == 1:
            return states[0][1:]
        digest = hashlib.sha256(repr([tuple(state) for state in states]).encode())
        return struct.unpack("=3q", digest.digest()[:24])

    def times_of(path: str) -> tuple[int, ...]:
        # the name of a frame ends with a digit
        several = path[-1:].isdigit() or path.lower().endswith(_WITH_OTHERS)
        try:
            return times(_looked_at(path) if several else (path,))
        except (OSError, ValueError):
            return -1, -1, -1

    return np.fromiter(chain.from_iterable(map(times_of, paths)), np.int64).reshape(
        -1, 3
    )


def file_digest(files: tuple[Path, ...]) -> bytes:
    """Return the sha256 of the `files_of` a name; raise DataError if they cannot be read."""
    digest = hashlib.sha256()
    try:
        for file in files:
            require_file(file, "image or mask", hint="restore it, or remove its sample")
            with file.open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read: {error.strerror}; repair the file or link, or remove it"
        ) from None
    return digest.digest()
