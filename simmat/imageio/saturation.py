"""From which number on a pixel is full: it received that much light or more, and nothing can be computed from it."""

from __future__ import annotations

import json

import numpy as np

from simmat.errors import DataError
from simmat.files import parse_json
from simmat.imageio.values import ImageFile

_LARGEST_16_BITS = 65535.0
_SHIFTED_12_BITS = 65520.0  # 4095 in the upper 12 of 16 bits


def largest_count(image: ImageFile) -> float:
    """Return the largest number that a file's pixels can have.

    A TIFF's ImageDescription may state the bits of the counts as json `{"bits": 12}`, also of counts stored as floats;
    else it is that of the file's type, infinite for floats.

    Raises:
        DataError: the stated bits are no number of bits of the file's type.
    """
    dtype = image.planes.dtype
    if (bits := stated_bits(image)) is not None:
        return float(2**bits - 1)
    if dtype.kind == "f":
        return float("inf")
    return 1.0 if dtype.kind == "b" else float(np.iinfo(dtype).max)


def full_scale(largest: float) -> float:
    """Return the count from which on a pixel is full.

    Args:
        largest: see `largest_count`. In 16 bits it is never reached by a 12-bit count shifted up, which cameras write
            too, so that 65520 is full as well.
    """
    return _SHIFTED_12_BITS if largest == _LARGEST_16_BITS else largest


def describe_bits(bits: int) -> str:
    """Return the text that `largest_count` reads back, for `write_image(description=)`."""
    return json.dumps({"bits": bits})


def stated_bits(image: ImageFile) -> int | None:
    """Return the bits of its counts that a TIFF's ImageDescription states; None where it states none.

    Raises:
        DataError: they are no number of bits of the file's type.
    """
    try:
        values = parse_json(image.description)
    except ValueError:
        return None
    if not isinstance(values, dict) or "bits" not in values:
        return None
    bits, most = values["bits"], image.planes.dtype.itemsize * 8
    if not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= most:
        raise DataError(f"{image.path}: its description states {bits!r} bits; 1 to {most} are possible")
    return bits
