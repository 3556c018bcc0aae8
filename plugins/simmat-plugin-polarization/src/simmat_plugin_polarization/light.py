"""Which counts of a polarization camera are too bright or too dark to give a polarization."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simmat.io.images import ImageFile, full_scale, largest_count
from simmat.types import BoolArray

DARK_COUNTS = 2.0
"""Largest mean of the four intensities that is dark: rounding by half a count is a DoLP error of 0.2 there."""


def saturation_of(image: ImageFile) -> float:
    """Return the smallest saturated count; infinity for floats."""
    return full_scale(largest_count(image))


def dark_limit_of(image: ImageFile) -> float:
    """Return the largest mean of the four intensities that is dark: 0 for floats, which are not rounded."""
    return 0.0 if image.planes.dtype.kind == "f" else DARK_COUNTS


def is_dark(mean: npt.NDArray[np.floating], limit: float = DARK_COUNTS) -> BoolArray:
    """Return bool, True where the mean of the four intensities is too small to give a polarization."""
    return np.asarray(mean <= limit)
