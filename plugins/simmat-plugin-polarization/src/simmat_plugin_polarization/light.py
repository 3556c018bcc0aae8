"""Counts of a polarization camera: which are too bright or too dark to trust."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.imageio import ImageFile
from simmat.types import BoolArray

DARK_COUNTS = 2.0
"""A mean of the four intensities at or below this is dark: a rounding of half a count is a DoLP of 0.2 there."""
_SHIFTED_12_BITS = 65520  # 4095 in the upper 12 of 16 bits


def saturation_of(image: ImageFile) -> float:
    """Return the count from which on a pixel is full: infinite for floats.

    A TIFF's ImageDescription may state the bits in use as json `{"bits": 12}`. Else it is the largest number of the
    file's type; in 16 bits the largest of a 12-bit count shifted up, which cameras write too.

    Raises:
        DataError: the stated bits are no number of bits of the file's type.
    """
    dtype = image.planes.dtype
    if dtype.kind == "f":
        return float("inf")
    if (bits := _stated_bits(image)) is not None:
        return float(2**bits - 1)
    return float(_SHIFTED_12_BITS if dtype == np.uint16 else np.iinfo(dtype).max)


def describe_bits(bits: int) -> str:
    """Return the text that `saturation_of` reads back."""
    return json.dumps({"bits": bits})


def dark_limit_of(image: ImageFile) -> float:
    """Return the mean up to which the four intensities are dark: 0 for floats, which are not rounded to counts."""
    return 0.0 if image.planes.dtype.kind == "f" else DARK_COUNTS


def is_dark(mean: npt.NDArray[np.floating], limit: float = DARK_COUNTS) -> BoolArray:
    """Return where the mean of the four intensities is too small to tell a polarization."""
    return np.asarray(mean <= limit)


def _stated_bits(image: ImageFile) -> int | None:
    try:
        values = json.loads(image.description)
    except ValueError:
        return None
    if not isinstance(values, dict) or "bits" not in values:
        return None
    bits, most = values["bits"], image.planes.dtype.itemsize * 8
    if not isinstance(bits, int) or not 1 <= bits <= most:
        raise DataError(f"{image.path}: its description states {bits!r} bits; 1 to {most} are possible")
    return bits
