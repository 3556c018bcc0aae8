"""Limits of an image before its pixels are decoded, and errors of decoders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simmat.errors import ConfigError, DataError, SimMATError, what_is_wrong
from simmat.types import Window

LIMIT_VARIABLE = "SIMMAT_MAX_IMAGE_GIB"
"""Environment variable that replaces `DEFAULT_GIB`; `simmat --max-image-gib` sets it."""
DEFAULT_GIB = 2.0
"""GiB of one decoded image: an RGB image of 178,956,970 pixels."""
MAX_PLANES = 4096
"""Planes of one image; every plane has metadata that takes time, even with few pixels."""
_FLOAT32 = 4


def decoded_limit() -> int:
    """Return how many bytes a decoded image may have; raise ConfigError if the variable is not a positive number."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        gib = float(text) if text else DEFAULT_GIB
        if not 0 < gib < 2**32:
            raise ValueError
    except ValueError:
        raise ConfigError(
            f"{LIMIT_VARIABLE} must be a positive number of GiB such as 8, got {text!r}"
        ) from None
    return int(gib * 2**30)


def check_size(
    path: Path, height: int, width: int, planes: int = 1, *, itemsize: int = _FLOAT32
) -> None:
    """Refuse an image without pixels, and one that is too large, before its pixels are decoded.

    Args:
        planes: P, over all pages.
        itemsize: bytes of a decoded value; images become float32, so at least 4 are counted.

    Raises:
        DataError: a length is 0, P is more than `MAX_PLANES`, or (P, H, W) takes more than `decoded_limit()` bytes.
    """
    if height < 1 or width < 1 or planes < 1:
        raise DataError(
            f"{path}: holds no pixels, its size is {width}x{height} in {planes} planes"
        )
    if planes > MAX_PLANES:
        raise DataError(
            f"{path}: claims {planes} planes, at most {MAX_PLANES} are read; the file may be damaged"
        )
    size = height * width * planes * max(itemsize, _FLOAT32)
    limit = decoded_limit()
    if size > limit:
        raise DataError(
            f"{path}: claims {planes} x {height} x {width} values (planes, height, width), {size / 2**30:.3g} GiB "
            f"decoded, more than the limit of {limit / 2**30:.3g} GiB; the file may be damaged. If it is right, cut it "
            f"into tiles, or raise the limit: simmat --max-image-gib {-(-size >> 30) if size < 2**60 else 'N'} … "
            f"(or {LIMIT_VARIABLE})"
        )


def check_window(path: Path, window: Window, size_hw: tuple[int, int]) -> None:
    """Refuse a window without pixels, and one that reaches beyond its image."""
    (y0, x0, y1, x1), (height, width) = window, size_hw
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise DataError(
            f"{path}: is {width}x{height} (width x height), so it holds no window of rows {y0} to {y1} and columns "
            f"{x0} to {x1}; choose one inside of it"
        )


@contextmanager
def decoding_errors(path: Path, kind: str) -> Iterator[None]:
    """Raise DataError with the path instead of any error that a library raises about a damaged file."""
    try:
        yield
    except SimMATError:
        raise
    # its size was checked: a length within is wrong, or the machine is small
    except MemoryError as error:
        raise DataError(f"{path}: damaged, or larger than the free memory") from error
    # damaged files raise all kinds of errors in the libraries (zlib.error, TokenError, …)
    except Exception as error:
        raise DataError(
            f"{path}: damaged or cut short, it cannot be read as {kind.upper()} ({what_is_wrong(error)})"
        ) from error
