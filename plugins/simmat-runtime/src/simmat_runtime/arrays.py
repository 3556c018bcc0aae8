"""Types of arrays, and what torch does to arrays and numpy does not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def resized(planes: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Resize planes (K, h, w) to (K, *size_hw), bilinear, without aligned corners."""
    down, across = (_weights(old, new) for old, new in zip(planes.shape[1:], size_hw, strict=True))
    return np.asarray(down @ planes @ across.T, np.float32)


def _weights(before: int, after: int) -> FloatArray:
    """Return the (after, before) weights of bilinear resizing."""
    scale = np.float32(before) / np.float32(after)
    place = (scale * (np.arange(after, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)).clip(0, before - 1)
    return (1 - np.abs(place[:, None] - np.arange(before, dtype=np.float32))).clip(0, None)


def sigmoid(x: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float32)


def softmax(x: FloatArray) -> FloatArray:
    """Return probabilities over the first axis."""
    powers = np.exp(x - x.max(0))
    return np.asarray(powers / powers.sum(0), np.float32)
