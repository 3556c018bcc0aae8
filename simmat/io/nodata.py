"""The number that the user says means "no measurement" (`--nodata`), held against files as they are read.

Only the reader of a file sees the numbers that are stored in it; afterwards they are kelvin, reflectance or filtered.
So `ModalityAdapter.load` is handed what is stated and hands it on to `read_image`; a sensor with a reader of its own
calls `stated_valid`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass
class StatedNodata:
    """What is stated of the files of one sample, and what was found in them.

    Attributes:
        values: file -> the stored number that means no measurement.
        stored: file -> (P, H, W) in its own numbers, of those whose reader has asked.
    """

    values: Mapping[Path, float] = field(default_factory=dict)
    stored: dict[Path, npt.NDArray[Any]] = field(default_factory=dict)

    def unasked(self) -> tuple[Path, ...]:
        """Return the files of which something is stated that no reader asked for."""
        return tuple(path for path in self.values if path not in self.stored)


def stated_valid(
    path: Path | str, stored: npt.NDArray[Any], nodata: StatedNodata | None
) -> npt.NDArray[np.bool_] | None:
    """Return where a file's numbers are not the one that the user says means no measurement.

    For sensors that read files by other means than `read_image`: without it `--nodata` is refused for them.

    Args:
        path: the file, as `load` was given it.
        stored: (P, H, W) in the file's own numbers, before any scale, offset or filter.
        nodata: what `load` was given.

    Returns:
        (P, H, W), or None where nothing is stated of this file.
    """
    if nodata is None:
        return None
    file = Path(path)
    nodata.stored[file] = stored
    value = nodata.values.get(file)
    if value is None:
        return None
    with np.errstate(over="ignore"):  # beyond float16 or float32 it equals nothing finite
        return np.asarray(stored != value)
