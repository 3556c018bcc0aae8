"""Resize regions to the input of a network, at the cost of their boxes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from simmat.data.instances import Instance
from simmat.types import FloatArray, Frame


class Coverage:
    """How much of each pixel of the input a region covers: what `simmat.nn.resize.resize_planes` makes of its mask.

    The antialiased bilinear weights are those of torch, up to rounding.
    """

    def __init__(self, frame: Frame) -> None:
        self._axes = [_Axis(*lengths) for lengths in zip(frame.original_hw, frame.scaled_hw, strict=True)]

    def __call__(self, region: Instance) -> tuple[FloatArray, tuple[int, int]]:
        """Return (h, w) coverage in 0..1 and the (y, x) of its first pixel; it is 0 everywhere else."""
        y0, x0, y1, x1 = region.box
        top, rows = self._axes[0].weights(y0, y1)
        left, columns = self._axes[1].weights(x0, x1)
        covered: FloatArray = (columns @ (rows @ region.crop.astype(np.float32)).T).T
        return covered, (top, left)


class _Axis:
    """The weights of `full` pixels of the original in `scaled` pixels of the content, a few in each."""

    def __init__(self, full: int, scaled: int) -> None:
        scale = full / scaled
        reach = max(scale, 1.0)
        centres = (np.arange(scaled) + 0.5) * scale
        first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
        self._pixels = first[:, None] + np.arange(int(2 * reach) + 2)  # (scaled, taps)
        weights = np.maximum(1 - np.abs(self._pixels + 0.5 - centres[:, None]) / reach, 0)
        weights[self._pixels >= full] = 0
        self._weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def weights(self, start: int, stop: int) -> tuple[int, sparse.csr_array]:
        """Return the first pixel that `start` to `stop` reach, and their (n, stop - start) weights in n from it on."""
        begin = int(np.searchsorted(self._pixels[:, -1], start))
        end = int(np.searchsorted(self._pixels[:, 0], stop))
        inner = self._pixels[begin:end] - start  # (n, taps)
        outside = (inner < 0) | (inner >= stop - start)
        values = np.where(outside, np.float32(0), self._weights[begin:end])
        places: npt.NDArray[np.int32] = np.where(outside, 0, inner).astype(np.int32)
        ends = np.arange(0, places.size + 1, places.shape[1], dtype=np.int32)
        return begin, sparse.csr_array((values.ravel(), places.ravel(), ends), shape=(end - begin, stop - start))
