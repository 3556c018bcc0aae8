"""Masks in the run-length code of Label Studio's brush."""

from __future__ import annotations

from typing import Any

import numpy as np

from simmat.errors import DataError
from simmat.types import BoolArray

MAX_PIXELS = 2**30 - 1
"""Pixels of an image that the code can count."""
_SIZE_BITS, _RUN_BITS = 16, 27
"""Bits of the length of a run, and of a run as it is written."""
_SEEN = 127
"""Opacity of pixels that belong to the mask, at least; at the edge of a stroke there are others."""


def encode_brush(mask: BoolArray) -> list[int]:
    """Return the code of a mask (H, W): that of an RGBA image whose values are 255 in the mask, else 0.

    The code is a stream of bits, the highest bit of each byte first: 32 bits for the number of values, 5 for the bits
    of a value less 1, four times 4 for the bits of a length less 1, then chunks. A chunk has 1 bit, set for a run of
    one value; 2 bits, which choose one of the four; the number of its values less 1; then the value of a run, or else
    all values.

    Raises:
        DataError: the mask has more than `MAX_PIXELS`.
    """
    flat = mask.ravel()
    if flat.size > MAX_PIXELS:
        raise DataError(
            f"an image of {flat.size} pixels is too large for Label Studio's brush; write --polygons"
        )
    longest = 2**_SIZE_BITS // 4
    starts = np.union1d(
        np.flatnonzero(np.diff(flat)) + 1, np.arange(0, flat.size, longest)
    )
    lengths = 4 * np.diff(starts, append=flat.size)
    runs = (
        (1 << (_RUN_BITS - 1)) | ((lengths - 1) << 8) | np.where(flat[starts], 255, 0)
    )
    head = ((4 * flat.size) << 21) | ((8 - 1) << 16) | 0xFFFF
    code: list[int] = np.packbits(
        np.concatenate([_bits(np.asarray([head]), 53), _bits(runs, _RUN_BITS)])
    ).tolist()
    return code


def _bits(numbers: Any, count: int) -> Any:
    """Return the bits of N numbers, the highest first, as (N * count,)."""
    return ((numbers[:, None] >> np.arange(count)[::-1]) & 1).astype(np.uint8).ravel()


def decode_brush(code: object, size_hw: tuple[int, int], where: str) -> BoolArray:
    """Return the mask (H, W) of a code, see `encode_brush`: what is opaque.

    Raises:
        DataError: it is damaged, or of an image of another size.
    """
    height, width = size_hw
    try:
        data = bytes(code if isinstance(code, list) else [-1])
    except (TypeError, ValueError):
        raise DataError(f"{where}: its rle is not a list of bytes") from None
    place = 0

    def read(bits: int) -> int:
        nonlocal place
        end = place + bits
        if end > 8 * len(data):
            raise DataError(f"{where}: its rle ends too early")
        value = int.from_bytes(data[place // 8 : -(-end // 8)], "big") >> (-end % 8)
        place = end
        return value & ((1 << bits) - 1)

    count, bits = read(32), read(5) + 1
    if (count, bits) != (4 * height * width, 8):
        raise DataError(
            f"{where}: its rle has {count} values of {bits} bits, but an image of {width}x{height} has 4 values "
            "of 8 bits per pixel"
        )
    sizes = [read(4) + 1 for _ in range(4)]
    values, at = np.zeros(count, np.uint8), 0
    while at < count:
        is_run, length = read(1), read(sizes[read(2)]) + 1
        if at + length > count:
            raise DataError(f"{where}: its rle has more values than it states")
        chunk = (
            read(8)
            if is_run
            else np.frombuffer(read(8 * length).to_bytes(length, "big"), np.uint8)
        )
        values[at : at + length] = chunk
        at += length
    return values.reshape(height, width, 4)[..., 3] >= _SEEN
