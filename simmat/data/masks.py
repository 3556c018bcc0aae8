"""Label images: one integer a pixel, read without any conversion of values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.imageio.read import read_labels

MASK_EXTENSIONS = (".png", ".tif", ".tiff", ".npy", ".bmp")
"""File endings a label image may have."""

JPEG_EXTENSIONS = (".jpg", ".jpeg")

LabelArray = npt.NDArray[np.int64]

_MOST = 2**53  # whole numbers that a double tells apart


def read_mask(path: Path) -> LabelArray:
    """Read a label image.

    Args:
        path: 1- to 32-bit PNG, TIFF or BMP of one plane, a palette image (its indices are the
            labels), or an (H, W) .npy of integers, booleans or whole floats.

    Returns:
        (H, W) int64; 1-bit images give 0 and 1.

    Raises:
        DataError: missing or damaged file, colours, fractions, a format or compression that changes values, more than
            one page, a TIFF whose white is zero; it names the path.
    """
    suffix = path.suffix.lower()
    if suffix not in (*MASK_EXTENSIONS, *JPEG_EXTENSIONS):
        raise DataError(f"{path}: {suffix or 'no ending'} is no mask format; allowed: {', '.join(MASK_EXTENSIONS)}")
    planes = read_labels(path).planes
    if len(planes) != 1:
        raise DataError(
            f"{path}: the mask has {len(planes)} planes; colours are not label numbers. Save one plane of integers: "
            "0 for background, then 1, 2, 3 … for each object or class (8 or 16 bit PNG)"
        )
    return _whole_numbers(path, planes[0])


def _whole_numbers(path: Path, values: npt.NDArray[np.generic]) -> LabelArray:
    if values.dtype.kind == "f":
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
            raise DataError(
                f"{path}: the mask holds fractions or NaN ({values.dtype}, {np.nanmin(numbers):g} to "
                f"{np.nanmax(numbers):g}), labels are whole numbers; threshold or round it yourself first"
            )
    low, high = values.min().item(), values.max().item()
    if not -_MOST <= low <= high <= _MOST:
        raise DataError(
            f"{path}: label values reach from {low:g} to {high:g}; labels are whole numbers up to {_MOST} (2^53)"
        )
    return values.astype(np.int64)
