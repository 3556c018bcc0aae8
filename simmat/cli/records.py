"""What the json of an image says of the call that wrote it, so that a later call can skip what is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simmat.errors import ConfigError, SimMATError
from simmat.io.files import read_json


def read_record(file: Path) -> dict[str, Any]:
    """Return the json of an image; empty if there is none, or it is of another program."""
    try:
        found = read_json(file)
    except SimMATError:
        return {}
    return found if isinstance(found, dict) else {}


def files_key(files: Mapping[str, Path]) -> list[Any]:
    """Return paths, sizes and times of files; missing ones are reported when they are read."""
    found: list[Any] = []
    for source, file in files.items():
        status = file.stat() if file.exists() else None
        found.append([source, str(file.absolute()), *((status.st_size, status.st_mtime_ns) if status else ())])
    return found


def refuse_twice(names: Sequence[str]) -> None:
    """Refuse images or objects whose files would have one name."""
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ConfigError(f"several masks would be written as {twice[:5]}; rename the files, or use separate calls")
