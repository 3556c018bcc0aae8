"""The json of each image that a call has written: it says what to skip, and which files may be replaced."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simmat.errors import ConfigError, SimMATError
from simmat.inference.formats import write_for_call
from simmat.io.files import read_json, shown_url
from simmat.specs import ResultFormat
from simmat.terminal import say

if TYPE_CHECKING:
    from simmat.predictor import Predictor

FORMAT = 1
"""Format number of the json of an image or object; increased when an older reader would misread a change."""
OWN_MARK = b"simmat predict"
"""What a file for all images holds in its first 1000 bytes, so that a later call may replace it."""


def read_record(file: Path) -> dict[str, Any]:
    """Return the json of an image; empty if there is none, or it cannot be read."""
    try:
        found = read_json(file)
    except SimMATError:
        return {}
    return found if isinstance(found, dict) else {}


def files_key(files: Mapping[str, Path]) -> list[Any]:
    """Return source, path, size and time of each file; missing files are reported when they are read."""
    key: list[Any] = []
    for source, file in files.items():
        status = file.stat() if file.exists() else None
        key.append([source, str(file.absolute()), *((status.st_size, status.st_mtime_ns) if status else ())])
    return key


def written_files(record: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the names of the files that an earlier call wrote for an image or object."""
    names = record.get("written")
    prefixes = (f"{name}.", f"{name}_")  # a json file of another program must not make us replace other files
    return frozenset(
        file
        for file in (names if isinstance(names, list) else ())
        if isinstance(file, str) and file.startswith(prefixes) and not set(file) & set("/\\\0")
    )


def is_written(out: Path, name: str, request: str) -> bool:
    """Return whether an earlier call did the same, and all files that it wrote still exist."""
    record = read_record(out / f"{name}.json")
    written = written_files(record, name)
    return record.get("request") == request and all((out / file).is_file() for file in written)


def record_of(
    request: str,
    files: Mapping[str, Path],
    predictor: Predictor,
    missing: Sequence[str | int],
    size_hw: tuple[int, int],
) -> dict[str, Any]:
    """Return the values with which the json of an image begins."""
    return {
        "format": FORMAT,
        "request": request,
        "files": {source: shown_url(file) for source, file in files.items()},
        "missing": sorted(predictor.inputs.missing_channels(missing)),
        "bundle": str(predictor.bundle.path) if predictor.bundle else None,
        "size_hw": list(size_hw),
    }


def digest_of(*values: object) -> str:
    """Return the sha256 of a request given as json values."""
    return hashlib.sha256(json.dumps([FORMAT, *values]).encode()).hexdigest()


def replaceable_files(out: Path, outputs: Iterable[str], endings: Sequence[str]) -> frozenset[str]:
    """Return the names of files that an earlier call wrote for these outputs, which may be replaced.

    Raises:
        ConfigError: a file of another program would be replaced.
    """
    replaceable: set[str] = set()
    for name in outputs:
        existing = [f"{name}{ending}" for ending in endings if (out / f"{name}{ending}").exists()]
        written = written_files(read_record(out / f"{name}.json"), name) if existing else frozenset()
        if foreign := [file for file in existing if file not in written]:
            raise ConfigError(foreign_file(out / foreign[0]))
        replaceable.update(written)
    return frozenset(replaceable)


def foreign_file(file: Path) -> str:
    """Return the error message for a file that simmat predict did not write and does not replace."""
    return f"{file} exists already and was not written by simmat predict; choose another --out, or move it away"


def write_files_for_all(
    formats: Iterable[ResultFormat], out: Path, names: Iterable[str], class_names: Mapping[int, str]
) -> None:
    """Write the files that hold the results of all images, from the json of each."""
    for one in formats:
        images = ((name, read_record(out / f"{name}.json")) for name in names)
        say(write_for_call(one, images, class_names, out))


def check_files_for_all(formats: Iterable[ResultFormat], out: Path, names: Iterable[str]) -> None:
    """Raise ConfigError if a file that holds the results of all images would replace another file."""
    for one in formats:
        file = out / one.endings[0]
        if file.stem in names:
            raise ConfigError(
                f"the results of the image {file.stem!r} and those of all images would both be {file.name}; rename the "
                f"image, or leave {one.name} out of --format"
            )
        if file.exists() and not (file.is_file() and OWN_MARK in _first_bytes(file, 1000)):
            raise ConfigError(foreign_file(file))


def _first_bytes(file: Path, count: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(count)
    except OSError:
        return b""


def check_unique(names: Sequence[str]) -> None:
    """Raise ConfigError if files of several images or objects would have the same name."""
    if duplicates := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ConfigError(
            f"several masks would be written as {duplicates[:5]}; rename the files, or use separate calls"
        )
