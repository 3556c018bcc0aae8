"""The number that the user says means "no measurement" (`--nodata`), held against files as they are read.

Only the reader of a file sees the numbers that are stored in it; afterwards they are kelvin, reflectance or filtered.
So whoever loads a sample states the numbers, and every reader asks for those of its file: `read_image` does, and a
sensor with a reader of its own calls `stated_valid`. Statements hold within their block and in its thread alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class Reading:
    """What is stated of the files of a sample, and what was found in them.

    Attributes:
        nodata: file -> the stored number that means no measurement.
        stored: file -> (P, H, W) in its own numbers, of those that a reader has asked for.
    """

    nodata: Mapping[Path, float]
    stored: dict[Path, npt.NDArray[Any]] = field(default_factory=dict)

    def unasked(self) -> tuple[Path, ...]:
        """Return the files of which something is stated that no reader asked for."""
        return tuple(path for path in self.nodata if path not in self.stored)


_CURRENT: ContextVar[Reading | None] = ContextVar("simmat_reading", default=None)


@contextmanager
def reading(nodata: Mapping[Path, float]) -> Iterator[Reading]:
    """State numbers for the files that are read within this block."""
    current = Reading(nodata)
    token = _CURRENT.set(current)
    try:
        yield current
    finally:
        _CURRENT.reset(token)


def stated_valid(path: Path | str, stored: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return where a file's numbers are not the one that the user says means no measurement.

    For sensors that read files by other means than `read_image`: without it `--nodata` is refused for them.

    Args:
        path: the file, as `load` was given it.
        stored: (P, H, W) in the file's own numbers, before any scale, offset or filter.

    Returns:
        (P, H, W), or None where nothing is stated of this file.
    """
    current, file = _CURRENT.get(), Path(path)
    if current is None:
        return None
    current.stored[file] = stored
    value = current.nodata.get(file)
    if value is None:
        return None
    with np.errstate(over="ignore"):  # beyond float16 or float32 it equals nothing finite
        return np.asarray(stored != value)
