"""Find paths among the options of a sensor: another machine must not make this one read its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from os.path import exists
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any


def paths_among(values: Any) -> Iterator[str]:
    """Yield what is the path of a file in parsed options: their type says so, or it names a place on this machine."""
    if isinstance(values, PurePath):
        yield str(values)
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from paths_among(value)
    elif isinstance(values, list | tuple | set | frozenset):
        for value in values:
            yield from paths_among(value)
    elif isinstance(values, str) and _is_place(values):
        yield values


def _is_place(text: str) -> bool:
    if PurePosixPath(text).is_absolute() or PureWindowsPath(text).anchor:
        return True
    if text.startswith("~"):
        return True
    # W/m2 is a unit
    return ("/" in text or "\\" in text) and exists(text)
