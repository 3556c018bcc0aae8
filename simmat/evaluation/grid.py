"""Mask logits above 0 on the grid where masks are compared, computed only where they can be."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from simmat.data.instances import Instance, region_from_mask
from simmat.evaluation.protocol import Protocol
from simmat.evaluation.targets import grid_hw
from simmat.nn.resize import restore_logits, upsample_logits
from simmat.types import BoolArray, FloatArray, Frame

_Weights = npt.NDArray[np.float64]

_TILE = 16
"""Side in logits of the pieces a mask is computed in, or 4 times as many grid pixels where those are more.

A piece under which all logits have one sign is not computed.
"""

_ROUNDING = 2.0**-20
"""Most that 32 bits change of a bilinear mean, twice over, as a part of the same mean of absolute values.

A product of two weights with a value, and three sums, round 5 times by 2**-24 each; two resizings 10 times.
"""

_WEIGHTS = 2.0**-23
"""Most by which a weight in 32 bits, of 0 to 1, may differ from ours."""

_UNDERFLOW = 2.0**-100
"""Logits nearer to 0 than this may be rounded to 0 on the way."""


class MaskGrid:
    """The grid where the masks of one image are compared, and how a decoder's logits come there.

    A bilinear resize is a mean of neighbours, so a grid pixel is above 0 only where a logit under it is. The sign of
    every pixel is that of the whole logits resized by torch: it is computed in 64 bits, and a mask with a pixel whose
    sign the 32 bits of torch could turn is resized as a whole.

    Attributes:
        resized_whole: masks that were, so far.
    """

    def __init__(self, frame: Frame, protocol: Protocol) -> None:
        self._frame = frame
        self._original = protocol.grid == "original"
        self._size_hw = grid_hw(frame, protocol)
        self.resized_whole = 0

    def masks(self, logits: Tensor) -> list[list[Instance | None]]:
        """Return where (K, M, h, w) logits of the S×S input are above 0 on the grid: K times M regions, None if empty.

        The cost is that of the h·w logits, and of the grid pixels near the masks' contours.
        """
        rows, columns = (self._weights(axis, logits.shape[2 + axis], logits.device) for axis in (0, 1))
        values: FloatArray = logits.detach().cpu().numpy()
        found: list[list[Instance | None]] = []
        for k, masks in enumerate(values):
            found.append([])
            for m, mask in enumerate(masks):
                try:
                    found[k].append(_positive(mask, rows, columns))
                except _UnsureError:
                    found[k].append(self._resized(logits[k : k + 1], m))
        return found

    def _resized(self, logits: Tensor, mask: int) -> Instance | None:
        self.resized_whole += 1
        if logits.is_contiguous():  # else torch may take a kernel for channels last, which rounds differently
            logits, mask = logits[:, mask : mask + 1], 0
        whole = restore_logits(logits, self._frame) if self._original else upsample_logits(logits, self._size_hw)
        return region_from_mask((whole[0, mask] > 0).cpu().numpy(), None)

    def _weights(self, axis: int, low: int, device: torch.device) -> _Axis:
        if not self._original:
            return _axis(low, ((self._size_hw[axis], self._size_hw[axis]),), device)
        size, scaled = self._frame.size, self._frame.scaled_hw[axis]
        original = self._size_hw[axis]
        return _axis(low, ((size, scaled), (original, original)), device)


class _Axis:
    """Resizing along rows or columns, as weights.

    Attributes:
        weights: (N, n) of n logits in each of N grid pixels.
        first: (N,) the first logit with a weight, rising.
        last: (N,) the last one, rising.
    """

    def __init__(self, weights: _Weights) -> None:
        self.weights = weights
        used = weights > 0
        self.first = used.argmax(axis=1)
        self.last = weights.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
        self._side = max(_TILE * len(weights) // weights.shape[1], 4 * _TILE)

    def reached(self, logits: npt.NDArray[np.intp]) -> tuple[int, int]:
        """Return the grid pixels, from the first up to but without the second, where some logits have a weight.

        Args:
            logits: their indices, rising, at least one.
        """
        return int(np.searchsorted(self.last, logits[0])), int(np.searchsorted(self.first, logits[-1], side="right"))

    def tiles(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Cut grid pixels into tiles: those of each, and the logits under them."""
        for begin in range(start, stop, self._side):
            end = min(begin + self._side, stop)
            yield slice(begin, end), slice(int(self.first[begin]), int(self.last[end - 1]) + 1)


class _UnsureError(Exception):
    """Rounding decides whether a pixel is above 0, or infinities do."""


def _positive(logits: FloatArray, rows: _Axis, columns: _Axis) -> Instance | None:
    """Return where (h, w) logits are above 0 on the grid.

    Raises:
        _UnsureError: rounding decides it somewhere, or a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise _UnsureError
    positive: BoolArray = logits > 0
    if not positive.any():
        return None
    y0, y1 = rows.reached(np.flatnonzero(positive.any(axis=1)))
    x0, x1 = columns.reached(np.flatnonzero(positive.any(axis=0)))
    if y0 >= y1 or x0 >= x1:  # all of it lies in the padding
        return None
    mask = np.zeros((y1 - y0, x1 - x0), dtype=np.bool_)
    tiles = list(columns.tiles(x0, x1))
    for y, under_y in rows.tiles(y0, y1):
        for x, under_x in tiles:
            if positive[under_y, under_x].any():
                tile = _positive_tile(logits[under_y, under_x], rows.weights[y, under_y], columns.weights[x, under_x])
                mask[y.start - y0 : y.stop - y0, x.start - x0 : x.stop - x0] = tile
    return region_from_mask(mask, None, (y0, x0))


def _positive_tile(logits: FloatArray, rows: _Weights, columns: _Weights) -> BoolArray | bool:
    """Return where (a, b) logits are above 0, resized by (A, a) and (B, b) weights: (A, B), or True throughout."""
    if logits.min() > _UNDERFLOW:
        return True
    values = rows @ logits @ columns.T  # (A, B)
    size = np.abs(logits)
    near = np.abs(values) <= 2 * _ROUNDING * size.max() + _UNDERFLOW
    if near.any():
        y, x = np.nonzero(near)
        sizes = ((rows[y] @ size) * columns[x]).sum(axis=1)
        # A weight of torch's may be 0 where ours is a rounding, so what lies under a pixel counts unweighted too.
        sizes += _WEIGHTS / _ROUNDING * (((rows[y] > 0) @ size) * (columns[x] > 0)).sum(axis=1)
        if ((np.abs(values[y, x]) <= _ROUNDING * sizes + _UNDERFLOW) & (sizes > 0)).any():
            raise _UnsureError
    above: BoolArray = values > 0
    return above


@lru_cache(maxsize=4)
def _axis(low: int, steps: tuple[tuple[int, int], ...], device: torch.device) -> _Axis:
    """Return the weights of resizing `low` logits step by step: to a size, of which the first so many are kept."""
    weights: _Weights = np.eye(low)
    for size, kept in steps:
        old = len(weights)
        step = upsample_logits(torch.eye(old, device=device)[None, None], (size, old))[0, 0, :kept]  # (kept, old)
        weights = sparse.csr_array(step.cpu().double().numpy()) @ weights
    return _Axis(weights)
