"""The json of each image that a call has written: it says what to skip, and which files may be replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from simmat.errors import ConfigError, SimMATError
from simmat.io.reading import read_json

FORMAT = 1
"""Format number of the json of an image or object; increased when an older reader would misread a change."""
_OWN_MARK = b"simmat predict"
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


def finished_files(out: Path, name: str, request: str) -> list[Path]:
    """Return the files that an earlier call wrote for the same request; empty if one of them is gone."""
    record = read_record(out / f"{name}.json")
    files = [out / file for file in sorted(written_files(record, name))]
    return files if record.get("request") == request and all(file.is_file() for file in files) else []


def request_digest(*values: object) -> str:
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
        check_own(out, set(existing) - written)
        replaceable.update(written)
    return frozenset(replaceable)


def check_own(out: Path, foreign: Iterable[str]) -> None:
    """Raise ConfigError if one of these files, which no call of `simmat predict` wrote, exists."""
    if found := [out / name for name in sorted(foreign) if (out / name).exists()]:
        raise ConfigError(
            f"{found[0]} exists already and was not written by simmat predict; choose another --out, or move it away"
        )


def check_own_for_call(file: Path) -> None:
    """Raise ConfigError if a file for all images would replace one that `simmat predict` did not write."""
    own = False
    if file.is_file():
        with suppress(OSError), file.open("rb") as stream:
            own = _OWN_MARK in stream.read(1000)
    if not own:
        check_own(file.parent, [file.name])
