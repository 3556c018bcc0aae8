"""Shrink images for comparisons and edge detection."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simmat.types import BoolArray, FloatArray, SensorImage

_CHANNELS = 3
"""Most channels that are used, evenly spread over all."""
_LONGEST = 256
"""Longest side of a shrunk image."""


class Shrunk(NamedTuple):
    """A shrunk image.

    Attributes:
        planes: (C, h, w) with mean 0 and standard deviation 1 over valid pixels; 0 elsewhere.
        valid: (C, h, w) bool.
        step: pixels of the image per pixel of the planes.
    """

    planes: FloatArray
    valid: BoolArray
    step: int


def shrink(image: SensorImage) -> Shrunk:
    """Average a few channels over squares of pixels, so that the longer side has at most `_LONGEST` pixels."""
    count = len(image.channels)
    picked = sorted({round(place * (count - 1) / max(_CHANNELS - 1, 1)) for place in range(_CHANNELS)})
    step = -(-max(image.size_hw) // _LONGEST)
    height, width = (max(side // step, 1) for side in image.size_hw)
    rows, columns = (min(step * side, whole) for side, whole in zip((height, width), image.size_hw, strict=True))
    data, valid = image.data[picked, :rows, :columns], image.valid[picked, :rows, :columns]
    shape = len(picked), height, rows // height, width, columns // width
    share = valid.reshape(shape).mean(axis=(2, 4), dtype=np.float32)  # (C, h, w)
    total = np.where(valid, data, 0).reshape(shape).mean(axis=(2, 4), dtype=np.float64)
    planes, good = total / np.maximum(share, 1e-9), share > 0.5
    for plane, known in zip(planes, good, strict=True):
        values = plane[known]
        spread = values.std() if values.size else 0
        plane -= values.mean() if values.size else 0
        plane /= spread if spread > 0 else 1
    return Shrunk(np.where(good, planes, 0).astype(np.float32), good, step)
