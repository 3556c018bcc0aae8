"""How large an image may be when decoded: one limit for every reader, so that a small file cannot fill the memory."""

from __future__ import annotations

import os
from pathlib import Path

from simmat.errors import ConfigError, DataError

LIMIT_VARIABLE = "SIMMAT_MAX_IMAGE_GIB"
"""Environment variable that replaces `DEFAULT_GIB`; `simmat --max-image-gib` sets it."""
DEFAULT_GIB = 2.0
"""GiB of one decoded image: an RGB image of 178,956,970 pixels."""
MAX_PLANES = 4096
"""Planes of one image; every plane has descriptions that cost time, however few its pixels."""
_FLOAT32 = 4


def decoded_limit() -> int:
    """Return how many bytes one decoded image may have.

    Raises:
        ConfigError: `SIMMAT_MAX_IMAGE_GIB` is not a positive number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        gib = float(text) if text else DEFAULT_GIB
        if not 0 < gib < 2**32:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{LIMIT_VARIABLE} must be a positive number of GiB such as 8, got {text!r}") from None
    return int(gib * 2**30)


def check_size(path: Path, height: int, width: int, planes: int = 1, *, itemsize: int = _FLOAT32) -> None:
    """Refuse an image without pixels, and one that is too large, before its pixels are decoded.

    Args:
        path: the file, for the message.
        height: H in pixels.
        width: W in pixels.
        planes: P, over all pages.
        itemsize: bytes of a decoded value; images become float32, so less than 4 counts as 4.

    Raises:
        DataError: a length is 0, P is more than `MAX_PLANES`, or (P, H, W) takes more than `decoded_limit()` bytes.
    """
    if height < 1 or width < 1 or planes < 1:
        raise DataError(f"{path}: holds no pixels, its size is {width}x{height} in {planes} planes")
    if planes > MAX_PLANES:
        raise DataError(f"{path}: claims {planes} planes, at most {MAX_PLANES} are read; the file may be damaged")
    size, limit = height * width * planes * max(itemsize, _FLOAT32), decoded_limit()
    if size > limit:
        raise DataError(
            f"{path}: claims {planes} x {height} x {width} values (planes, height, width), {size / 2**30:.3g} GiB "
            f"decoded, more than the limit of {limit / 2**30:.3g} GiB; the file may be damaged. If it is right, cut it "
            f"into tiles, or raise the limit: simmat --max-image-gib {-(-size >> 30) if size < 2**60 else 'N'} … "
            f"(or {LIMIT_VARIABLE})"
        )
