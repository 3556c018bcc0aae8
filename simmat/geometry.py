"""From the pixels of the original image to the square input of a foundation model, and back.

Numbers only; the tensor work is in `simmat.nn.resize`. With `aspect="keep"` this is the geometry of
segment-anything: the longest side becomes S, the content lies top-left, the rest is padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from simmat.types import FloatArray

Aspect = Literal["keep", "squash"]


@dataclass(frozen=True, slots=True)
class Frame:
    """How one image lies in the S×S input.

    Attributes:
        original_hw: (height, width) of the original image in pixels.
        size: S.
        aspect: "keep" scales the longest side to S and pads right and bottom; "squash" scales each side to S.
    """

    original_hw: tuple[int, int]
    size: int
    aspect: Aspect = "keep"

    @property
    def scaled_hw(self) -> tuple[int, int]:
        """(height, width) of the content within the input, in input pixels."""
        if self.aspect == "squash":
            return self.size, self.size
        height, width = self.original_hw
        scale = self.size / max(height, width)
        return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)

    def points_to_input(self, coords_xy: FloatArray) -> FloatArray:
        """Map (..., 2) xy pixels of the original to xy pixels of the input, where (0, 0) is a pixel's centre.

        Centres go to where the centre of their pixel lies. `SamPredictor` multiplies alone, which puts a point off by
        half a pixel less half a scaled one: little at 1024, but enough to miss a small object in a small input.
        """
        points = (np.asarray(coords_xy, dtype=np.float64) + 0.5) * self._scale_xy() - 0.5
        return points.astype(np.float32)

    def points_to_original(self, coords_xy: FloatArray) -> FloatArray:
        """Map (..., 2) xy pixels of the input back to the original."""
        points = (np.asarray(coords_xy, dtype=np.float64) + 0.5) / self._scale_xy() - 0.5
        return points.astype(np.float32)

    def boxes_to_input(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Map (..., 4) XYXY boxes of the original to the input; corners are pixel edges, so they scale."""
        return (np.asarray(boxes_xyxy, dtype=np.float64) * np.tile(self._scale_xy(), 2)).astype(np.float32)

    def _scale_xy(self) -> FloatArray:
        (height, width), (scaled_height, scaled_width) = self.original_hw, self.scaled_hw
        return np.asarray([scaled_width / width, scaled_height / height])
