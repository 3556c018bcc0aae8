"""Counts of a polarization camera: which are too bright or too dark to trust."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from simmat.io.images import ImageFile, full_scale, largest_count
from simmat.types import BoolArray

DARK_COUNTS = 2.0
"""A mean of the four intensities at or below this is dark: a rounding of half a count is a DoLP of 0.2 there."""


def saturation_of(image: ImageFile) -> float:
    """Return the count from which on a pixel is full; infinite for floats."""
    return full_scale(largest_count(image))


def dark_limit_of(image: ImageFile) -> float:
    """Return the mean up to which the four intensities are dark: 0 for floats, which are not rounded to counts."""
    return 0.0 if image.planes.dtype.kind == "f" else DARK_COUNTS


def is_dark(mean: npt.NDArray[np.floating], limit: float = DARK_COUNTS) -> BoolArray:
    """Return where the mean of the four intensities is too small to tell a polarization."""
    return np.asarray(mean <= limit)
