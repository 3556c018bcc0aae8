"""Resize regions to the input of a network, at the cost of their boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from simmat.data.instances import Instance
from simmat.types import FloatArray, Frame, Window


class Coverage:
    """How much of each pixel of the input a region covers: what `simmat.nn.resize.resize_planes` makes of its mask.

    The antialiased bilinear weights are those of torch, up to rounding.
    """

    def __init__(self, frame: Frame) -> None:
        self._axes = [_Axis(*lengths) for lengths in zip(frame.original_hw, frame.scaled_hw, strict=True)]

    def __call__(self, regions: Sequence[Instance]) -> list[tuple[FloatArray, tuple[int, int]]]:
        """Return, for each region, (h, w) coverage in 0..1 and the (y, x) of its first pixel; it is 0 elsewhere."""
        tops, rows = self._axes[0].resize([region.crop for region in regions], [region.window[0] for region in regions])
        lefts, columns = self._axes[1].resize([crop.T for crop in rows], [region.window[1] for region in regions])
        return [(crop.T, (top, left)) for crop, top, left in zip(columns, tops, lefts, strict=True)]

    def window(self, window: Window) -> FloatArray:
        """Return (h, w) coverage of the whole content by all pixels of a window, up to rounding."""
        rows, columns = (axis.share(*window[number::2]) for number, axis in enumerate(self._axes))
        return np.outer(rows, columns)


class _Axis:
    """The weights of `full` pixels of the original in `scaled` pixels of the content, a few in each."""

    def __init__(self, full: int, scaled: int) -> None:
        scale = full / scaled
        reach = max(scale, 1.0)
        centres = (np.arange(scaled) + 0.5) * scale
        first = np.maximum((centres - reach + 0.5).astype(np.int32), 0)  # scipy would look at each int64
        self._pixels = first[:, None] + np.arange(int(2 * reach) + 2, dtype=np.int32)  # (scaled, taps)
        weights = np.maximum(1 - np.abs(self._pixels + 0.5 - centres[:, None]) / reach, 0)
        weights[self._pixels >= full] = 0
        self._weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def share(self, start: int, stop: int) -> FloatArray:
        """Return (scaled,), how much of each pixel of the content the pixels from `start` to `stop` cover."""
        inside = (self._pixels >= start) & (self._pixels < stop)
        covered: FloatArray = (self._weights * inside).sum(axis=1)
        return covered

    def resize(
        self, crops: Sequence[npt.NDArray[np.generic]], starts: Sequence[int]
    ) -> tuple[list[int], list[FloatArray]]:
        """Resize (L, W) crops along their first axis, all in one product: making a sparse array costs more than it.

        Args:
            starts: the pixel of the original where each begins; it is 0 outside of its crop.

        Returns:
            For each crop the first pixel that it reaches, and its (n, W) values from there on.
        """
        taps = self._weights.shape[1]
        stacked = np.zeros(
            (taps + sum(len(crop) + taps for crop in crops), max(crop.shape[1] for crop in crops)), np.float32
        )
        firsts, ends, weights, places = [], [], [], []
        top = taps  # zeros between the crops, as many as a pixel can reach beyond one
        for crop, start in zip(crops, starts, strict=True):
            stacked[top : top + len(crop), : crop.shape[1]] = crop
            first = int(self._pixels[:, -1].searchsorted(start))
            end = int(self._pixels[:, 0].searchsorted(start + len(crop)))
            weights.append(self._weights[first:end])
            places.append(self._pixels[first:end] + np.int32(top - start))
            firsts.append(first)
            ends.append(end)
            top += len(crop) + taps
        values, indices = np.concatenate(weights).ravel(), np.concatenate(places).ravel()
        row_ends = np.arange(0, values.size + 1, taps, dtype=np.int32)
        matrix = sparse.csr_array((values, indices, row_ends), shape=(values.size // taps, len(stacked)))
        found = iter(np.split(matrix @ stacked, np.cumsum(np.subtract(ends, firsts))[:-1]))
        return firsts, [rows[:, : crop.shape[1]] for rows, crop in zip(found, crops, strict=True)]
