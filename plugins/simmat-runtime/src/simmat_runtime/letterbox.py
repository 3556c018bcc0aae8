"""The position of an image in the network's square input."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


def resized(planes: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Resize planes (K, h, w) to (K, *size_hw), bilinear, without aligned corners."""
    down, across = (
        _weights(old, new) for old, new in zip(planes.shape[1:], size_hw, strict=True)
    )
    return np.asarray(down @ planes @ across.T, np.float32)


def _weights(before: int, after: int) -> FloatArray:
    """Return the (after, before) weights of bilinear resizing."""
    scale = np.float32(before) / np.float32(after)
    place = (
        scale * (np.arange(after, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    ).clip(0, before - 1)
    return (1 - np.abs(place[:, None] - np.arange(before, dtype=np.float32))).clip(
        0, None
    )


def shrunk(planes: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Resize planes (K, h, w) to (K, *size_hw), bilinear, over all pixels that fall into one that is larger."""
    down, across = (
        _wide_weights(old, new)
        for old, new in zip(planes.shape[1:], size_hw, strict=True)
    )
    return np.asarray(down @ planes @ across.T, np.float32)


def _wide_weights(before: int, after: int) -> FloatArray:
    """Return the (after, before) weights of bilinear resizing with antialiasing."""
    scale = before / after
    centers = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before) + 0.5 - centers[:, None])
    weights = (1 - distance / max(scale, 1)).clip(0, None)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def averaged(planes: FloatArray, size_hw: tuple[int, int]) -> FloatArray:
    """Return the means of planes (K, h, w) in (K, *size_hw) cells, as torch's `adaptive_avg_pool2d`."""
    down, across = (
        _cell_weights(old, new)
        for old, new in zip(planes.shape[1:], size_hw, strict=True)
    )
    return np.asarray(down @ planes @ across.T, np.float32)


def _cell_weights(before: int, after: int) -> FloatArray:
    """Return the (after, before) weights of the mean in each cell."""
    cells = np.arange(after)[:, None]
    starts = cells * before // after
    ends = -(-(cells + 1) * before // after)
    places = np.arange(before)
    inside = (places >= starts) & (places < ends)
    return np.asarray(inside / (ends - starts), np.float32)


def sigmoid(x: FloatArray) -> FloatArray:
    """Return 1 / (1 + exp(-x))."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)), np.float32)


def softmax(x: FloatArray) -> FloatArray:
    """Return probabilities over the first axis."""
    powers = np.exp(x - x.max(0))
    return np.asarray(powers / powers.sum(0), np.float32)


@dataclass(frozen=True)
class Letterbox:
    """The position of an image in the S×S input, as in the exported graphs.

    Attributes:
        original_hw: (height, width) of the image in pixels.
        size: S.
        aspect: "pad" scales the longer side to S and pads right and bottom; "stretch" scales both sides to S.
    """

    original_hw: tuple[int, int]
    size: int
    aspect: str = "pad"

    @property
    def scaled_hw(self) -> tuple[int, int]:
        """(height, width) of the content within the input, in input pixels."""
        if self.aspect == "stretch":
            return self.size, self.size
        height, width = self.original_hw
        scale = self.size / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)

    def points_to_input(self, points_xy: FloatArray) -> FloatArray:
        """Map (..., 2) xy of the image to the input; (0, 0) is a pixel's centre in both."""
        points = (np.asarray(points_xy, np.float64) + 0.5) * self._scale_xy() - 0.5
        return points.astype(np.float32)

    def points_to_original(self, points_xy: FloatArray) -> FloatArray:
        """Map (..., 2) xy of the input back to the image."""
        points = (np.asarray(points_xy, np.float64) + 0.5) / self._scale_xy() - 0.5
        return points.astype(np.float32)

    def box_to_input(self, box: FloatArray) -> FloatArray:
        """Map (4,) XYXY of outer edges to the input."""
        return (np.asarray(box, np.float64) * np.tile(self._scale_xy(), 2)).astype(
            np.float32
        )

    def _scale_xy(self) -> npt.NDArray[np.float64]:
        (height, width), (scaled_height, scaled_width) = (
            self.original_hw,
            self.scaled_hw,
        )
        return np.asarray([scaled_width / width, scaled_height / height])
