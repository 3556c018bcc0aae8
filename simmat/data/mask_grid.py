"""Bring mask logits to the grid where masks are compared, computing only the pixels near contours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simmat.data.instances import Instance, region_from_mask
from simmat.nn.resize import restore_logits, upsample_logits
from simmat.types import BoolArray, FloatArray, Frame

_Weights = npt.NDArray[np.float64]

_TILE = 16
"""Side of a tile in logits, or 4 times as many grid pixels where those are more.

A tile is not computed where all logits under it have one sign.
"""

_ROUNDING = 2.0**-20
"""Twice the largest rounding error of a bilinear mean in 32 bits, relative to the same mean of absolute values.

A product of two weights with a value, and three sums, round 5 times by 2**-24 each; two resizings 10 times.
"""

_WEIGHTS = 2.0**-23
"""Largest rounding error of a weight in 32 bits, between 0 and 1."""

_UNDERFLOW = 2.0**-100
"""Smaller logits may become 0 in 32 bits."""


class MaskGrid:
    """The grid where the masks of one image are compared, and how a decoder's logits get there.

    A bilinear resize is a mean of neighbours, so a grid pixel is above 0 only where a logit under it is. Every pixel
    gets the sign that torch would give it by resizing all logits: it is computed in 64 bits, and where rounding in 32
    bits could change the sign of a pixel, its mask is resized as a whole by torch.

    Attributes:
        resized_whole: how many masks were resized as a whole.
    """

    def __init__(self, frame: Frame, size_hw: tuple[int, int] | None = None) -> None:
        """Make the grid of the original image, or one of another size over the whole S×S input."""
        self._frame = frame
        self._original = size_hw is None
        self._size_hw = frame.original_hw if size_hw is None else size_hw
        self.resized_whole = 0

    def masks(self, logits: Tensor) -> list[list[Instance | None]]:
        """Return where (K, M, h, w) logits of the S×S input are above 0 on the grid: K times M regions, None if empty.

        The cost is that of the h·w logits and of the grid pixels near the masks' contours.
        """
        rows, columns = (self._axis(axis, logits.shape[2 + axis], logits.device) for axis in (0, 1))
        values: FloatArray = logits.detach().cpu().numpy()
        found: list[list[Instance | None]] = []
        for k, masks in enumerate(values):
            found.append([])
            for m, mask in enumerate(masks):
                try:
                    found[k].append(_positive(mask, rows, columns))
                except _UncertainSign:
                    found[k].append(self._resized(logits[k : k + 1], m))
        return found

    def _resized(self, logits: Tensor, mask: int) -> Instance | None:
        self.resized_whole += 1
        if logits.is_contiguous():  # else torch may use a kernel for channels last, which rounds differently
            logits, mask = logits[:, mask : mask + 1], 0
        whole = restore_logits(logits, self._frame) if self._original else upsample_logits(logits, self._size_hw)
        return region_from_mask((whole[0, mask] > 0).cpu().numpy(), None)

    def _axis(self, axis: int, low: int, device: torch.device) -> _Axis:
        side = self._size_hw[axis]
        if not self._original:
            return _resizing(low, ((side, side),), device)
        return _resizing(low, ((self._frame.size, self._frame.scaled_hw[axis]), (side, side)), device)


class _Axis:
    """Resizing along rows or columns, as weights.

    Attributes:
        weights: (N, n), of n logits in each of N grid pixels.
        first: (N,) the first logit of each pixel with a weight, ascending.
        last: (N,) the last one, ascending.
    """

    def __init__(self, weights: _Weights) -> None:
        self.weights = weights
        used = weights > 0
        self.first = used.argmax(axis=1)
        self.last = weights.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
        self._side = max(_TILE * len(weights) // weights.shape[1], 4 * _TILE)

    def reached(self, logits: npt.NDArray[np.intp]) -> tuple[int, int]:
        """Return the (start, stop) of the grid pixels in which logits have a weight."""
        return int(np.searchsorted(self.last, logits[0])), int(np.searchsorted(self.first, logits[-1], side="right"))

    def tiles(self, start: int, stop: int) -> Iterator[tuple[slice, slice]]:
        """Cut grid pixels into tiles; yield the pixels of each and the logits under them."""
        for begin in range(start, stop, self._side):
            end = min(begin + self._side, stop)
            yield slice(begin, end), slice(int(self.first[begin]), int(self.last[end - 1]) + 1)


class _UncertainSign(Exception):
    """Rounding decides whether a pixel is above 0, or a logit is not finite."""


def _positive(logits: FloatArray, rows: _Axis, columns: _Axis) -> Instance | None:
    """Return where (h, w) logits are above 0 on the grid; raise _UncertainSign where rounding decides it."""
    if not np.isfinite(logits).all():
        raise _UncertainSign
    positive: BoolArray = logits > 0
    if not positive.any():
        return None
    y0, y1 = rows.reached(np.flatnonzero(positive.any(axis=1)))
    x0, x1 = columns.reached(np.flatnonzero(positive.any(axis=0)))
    if y0 >= y1 or x0 >= x1:  # all of it is in the padding
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
    """Return where (a, b) logits are above 0, resized by (A, a) and (B, b) weights: (A, B), or True for all."""
    if logits.min() > _UNDERFLOW:
        return True
    values = rows @ logits @ columns.T  # (A, B)
    size = np.abs(logits)
    near = np.abs(values) <= 2 * _ROUNDING * size.max() + _UNDERFLOW
    if near.any():
        y, x = np.nonzero(near)
        sizes = ((rows[y] @ size) * columns[x]).sum(axis=1)
        # torch may round a weight of ours to 0, so the logits under a pixel count unweighted too
        sizes += _WEIGHTS / _ROUNDING * (((rows[y] > 0) @ size) * (columns[x] > 0)).sum(axis=1)
        if ((np.abs(values[y, x]) <= _ROUNDING * sizes + _UNDERFLOW) & (sizes > 0)).any():
            raise _UncertainSign
    above: BoolArray = values > 0
    return above


@lru_cache(maxsize=4)
def _resizing(low: int, steps: tuple[tuple[int, int], ...], device: torch.device) -> _Axis:
    """Return the weights of resizing `low` logits in steps (size, kept): resize to `size`, keep the first `kept`."""
    from scipy import sparse

    weights: _Weights = np.eye(low)
    for size, kept in steps:
        old = len(weights)
        step = upsample_logits(torch.eye(old, device=device)[None, None], (size, old))[0, 0, :kept]  # (kept, old)
        weights = sparse.csr_array(step.cpu().double().numpy()) @ weights
    return _Axis(weights)
