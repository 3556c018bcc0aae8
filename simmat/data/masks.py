"""Label images: one integer a pixel, read without any conversion of values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from simmat.errors import DataError
from simmat.imageio.tiff import read_tiff
from simmat.imageio.values import check_size

MASK_EXTENSIONS = (".png", ".tif", ".tiff", ".npy", ".bmp")
"""File endings a label image may have."""

JPEG_EXTENSIONS = (".jpg", ".jpeg")

LabelArray = npt.NDArray[np.int64]

_BITS, _PHOTOMETRIC, _ORIENTATION, _SAMPLE_FORMAT = 258, 262, 274, 339  # tags of TIFF 6.0
_MOST = 2**53  # whole numbers that a double tells apart
_WHITE_IS_ZERO, _UNSIGNED, _SIGNED = 0, 1, 2

_COLOUR = (
    "colours are not label numbers. Save one plane of integers: 0 for background, then 1, 2, 3 … "
    "for each object or class (8 or 16 bit PNG)"
)
_LOSSY = ("jpeg", "tiff_jpeg", "webp")
_JPEG = "JPEG changes label values; save the mask as PNG from the original"


def read_mask(path: Path) -> LabelArray:
    """Read a label image.

    Args:
        path: 1- to 32-bit PNG, TIFF or BMP of one plane, a palette image (its indices are the
            labels), or an (H, W) .npy of integers, booleans or whole floats.

    Returns:
        (H, W) int64; 1-bit images give 0 and 1.

    Raises:
        DataError: missing or damaged file, colours, fractions, JPEG, more than one page, a TIFF whose white is
            zero; it names the path.
    """
    suffix = path.suffix.lower()
    if suffix in JPEG_EXTENSIONS:
        raise DataError(f"{path}: {_JPEG}")
    if suffix not in MASK_EXTENSIONS:
        raise DataError(f"{path}: {suffix or 'no ending'} is no mask format; allowed: {', '.join(MASK_EXTENSIONS)}")
    if not path.is_file():
        raise DataError(f"{path}: no such mask file")
    values = _read_npy(path) if suffix == ".npy" else _read_picture(path)
    return _whole_numbers(path, values)


def _read_npy(path: Path) -> npt.NDArray[np.generic]:
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)  # a cut one raises before memory is taken
    except Exception as error:  # a damaged header is parsed as Python, and raises whatever comes
        raise DataError(f"{path}: cannot be read as .npy: {error}") from None
    if not isinstance(values, np.ndarray):
        raise DataError(f"{path}: an archive of arrays, not one array")
    if values.ndim == 2 and values.size:
        check_size(path, *values.shape)
    return values


def _read_picture(path: Path) -> npt.NDArray[np.generic]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.format in ("JPEG", "MPO"):
                    raise DataError(f"{path}: a JPEG under another name; {_JPEG}")
                if str(picture.info.get("compression")).lower() in _LOSSY:
                    raise DataError(f"{path}: compressed as JPEG or WebP within; {_JPEG}")
                if getattr(picture, "n_frames", 1) > 1:
                    raise DataError(f"{path}: {getattr(picture, 'n_frames', 1)} pages; a mask has one")
                if len(picture.getbands()) > 1:
                    raise DataError(f"{path}: the mask has planes {'+'.join(picture.getbands())}; {_COLOUR}")
                step = _stretch(picture)  # known only until the pixels are read
                kind = _tiff_kind(path, picture)
                values = np.asarray(picture) // step if step > 1 else np.asarray(picture)
                return values.view(kind) if kind is not None else values
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes Pillow raise whatever comes
        if path.suffix.lower() in (".tif", ".tiff"):
            return _read_tiff(path)
        raise DataError(f"{path}: cannot be read as a mask: {error}") from None


def _tiff_kind(path: Path, picture: Image.Image) -> type[np.generic] | None:
    """Return as what a TIFF's numbers must be read where Pillow takes them for another type of the same size.

    Raises:
        DataError: white is zero there, which Pillow turns round for some files and not for others; or the file is to be
            turned, which it does, too.
    """
    tags: Mapping[int, Any] = getattr(picture, "tag_v2", {})
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise DataError(
            f"{path}: white is zero in this TIFF (an inverting LUT of ImageJ), so it is not clear which label a number "
            "means; save it with black as zero"
        )
    if tags.get(_ORIENTATION, 1) != 1:
        raise DataError(
            f"{path}: this TIFF is to be turned or mirrored (Orientation {tags[_ORIENTATION]}), and its image is read "
            "as it is stored; save the mask as it lies over the stored image, without that tag"
        )
    bits, signed = tags.get(_BITS, (8,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    if bits == 8 and signed:
        return np.int8
    return np.uint32 if bits == 32 and tags.get(_SAMPLE_FORMAT, (1,))[0] == _UNSIGNED else None


def _stretch(picture: Image.Image) -> int:
    """The factor by which Pillow stretches packed grey of 2 or 4 bits to 0..255; labels must not be stretched."""
    tile = getattr(picture, "tile", None)
    arguments = tile[0][3] if tile else ""
    rawmode = arguments[0] if isinstance(arguments, tuple) else arguments
    return {"L;2": 85, "L;4": 17}.get(str(rawmode), 1)


def _read_tiff(path: Path) -> npt.NDArray[np.generic]:
    """Read what Pillow does not know, such as 64-bit integers."""
    try:
        planes = read_tiff(path).planes
        return planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, 2)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # tifffile raises whatever a damaged tag leads to
        raise DataError(f"{path}: cannot be read as a mask: {error}") from None


def _whole_numbers(path: Path, values: npt.NDArray[np.generic]) -> LabelArray:
    if values.ndim != 2:
        hint = f"; {_COLOUR}" if values.ndim == 3 else ""
        raise DataError(f"{path}: a mask is (H, W), got an array of shape {values.shape}{hint}")
    if values.size == 0:
        raise DataError(f"{path}: the mask has no pixel, its shape is {values.shape}")
    if values.dtype.kind == "f":
        numbers = values.astype(np.float64)
        if not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
            raise DataError(
                f"{path}: the mask holds fractions or NaN ({values.dtype}, {np.nanmin(numbers):g} to "
                f"{np.nanmax(numbers):g}), labels are whole numbers; threshold or round it yourself first"
            )
    elif values.dtype.kind not in "bui":
        raise DataError(f"{path}: a mask holds integers, got dtype {values.dtype}")
    low, high = values.min().item(), values.max().item()
    if not -_MOST <= low <= high <= _MOST:
        raise DataError(
            f"{path}: label values reach from {low:g} to {high:g}; labels are whole numbers up to {_MOST} (2^53)"
        )
    return values.astype(np.int64)
