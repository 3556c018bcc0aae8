"""What a network is trained on, at its input: regions, and for a dense head classes and distances to borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import sparse

from simmat.data.instances import Instance, Label, distance_inside
from simmat.types import BoolArray, FloatArray, Frame, Window

NO_TRUTH = -1
"""Class of a pixel without ground truth."""


class DenseClasses(Protocol):
    """The classes of a dense head, see `simmat.model_spec.DenseSpec`."""

    @property
    def background(self) -> bool:
        """Whether index 0 of the class map is the background."""

    @property
    def index_of(self) -> Mapping[int | None, int]:
        """Class of an object -> its index in the class map."""


class DenseTargets(NamedTuple):
    """Truth at the S×S input.

    Attributes:
        classes: (S, S) int64, index of the class; `NO_TRUTH` in the padding and where the label says nothing.
        distance: (S, S) float32, of the distance to the border of its object as a part of the largest one in it; 0
            outside of objects.
    """

    classes: npt.NDArray[np.int64]
    distance: FloatArray


def dense_targets(label: Label, frame: Frame, index_of: Mapping[int | None, int], background: int) -> DenseTargets:
    """Draw the objects of a label at the input; where objects overlap, the smaller one is in front.

    Args:
        label: of the original image; what is too small to be prompted for is drawn, too.
        index_of: class of an object -> its index in the class map; other classes have no truth.
        background: index of what is not an object; `NO_TRUTH` where unmarked objects may be there.
    """
    height, width = frame.scaled_hw
    rows, columns = _nearest(label.size_hw[0], height), _nearest(label.size_hw[1], width)
    whole = (*label.regions, *label.small)
    every = [_picked(region, rows, columns) for region in whole]
    seen = _numbered(every, [region.area for region in whole], (height, width))
    classes = np.full((frame.size, frame.size), NO_TRUTH, np.int64)
    content = classes[:height, :width]
    content[:] = background
    distance = np.zeros((frame.size, frame.size), np.float32)
    for number, region in enumerate(every, start=1):
        y0, x0, y1, x1 = region.window
        inside = seen[y0:y1, x0:x1] == number
        if inside.any():
            np.copyto(content[y0:y1, x0:x1], index_of.get(region.class_id, NO_TRUTH), where=inside)
            far = distance_inside(inside)
            np.copyto(distance[y0:y1, x0:x1], far / far.max(), where=inside)
    if label.ignore.any():
        np.copyto(content, NO_TRUTH, where=label.ignore.take(rows, axis=0).take(columns, axis=1))
    return DenseTargets(classes, distance)


def class_map(label: Label) -> npt.NDArray[np.int64]:
    """Return the (H, W) label values of an image: 0 outside of objects, 1 where an object has no class."""
    values = (1 if region.class_id is None else region.class_id for region in (*label.regions, *label.small))
    return np.asarray([0, *values], np.int64)[_numbers_of(label)]


def outside_objects(label: Label) -> BoolArray:
    """Return (H, W) True where no object is marked."""
    return np.asarray(_numbers_of(label) == 0)


def _picked(region: Instance, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Instance:
    """Return what is left of a region at some rows and columns of the image, both ascending; it may be empty."""
    top, left, bottom, right = region.window
    (y0, y1), (x0, x1) = rows.searchsorted((top, bottom)).tolist(), columns.searchsorted((left, right)).tolist()
    crop = region.crop.take(rows[y0:y1] - top, axis=0).take(columns[x0:x1] - left, axis=1)
    return Instance(region.class_id, Window(y0, x0, y1, x1), crop)


def _numbers_of(label: Label) -> npt.NDArray[np.int32]:
    every = (*label.regions, *label.small)
    return _numbered(every, [region.area for region in every], label.size_hw)


def _numbered(every: Sequence[Instance], areas: Sequence[int], size_hw: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Return (H, W) 1, 2, 3 … in the order of regions; 0 outside. The one with the smaller area is in front."""
    numbers = np.zeros(size_hw, np.int32)
    for index in sorted(range(len(every)), key=lambda index: -areas[index]):
        y0, x0, y1, x1 = every[index].window
        numbers[y0:y1, x0:x1][every[index].crop] = index + 1
    return numbers


def _nearest(size: int, scaled: int) -> npt.NDArray[np.int64]:
    """Return the pixel of the original under the centre of each pixel of the content."""
    places = ((np.arange(scaled) + 0.5) * (size / scaled)).astype(np.int64)
    return np.minimum(places, size - 1)


class Coverage:
    """How much of each pixel of the input a region covers: what `simmat.nn.resize.resize_planes` makes of its mask.

    The antialiased bilinear weights are those of torch, up to rounding.
    """

    def __init__(self, frame: Frame) -> None:
        self._axes = [_Weights(*lengths) for lengths in zip(frame.original_hw, frame.scaled_hw, strict=True)]

    def __call__(self, regions: Sequence[Instance]) -> list[tuple[FloatArray, tuple[int, int]]]:
        """Return, for each region, (h, w) coverage in 0..1 and the (y, x) of its first pixel; it is 0 elsewhere."""
        tops, rows = self._axes[0].resize([region.crop for region in regions], [region.window[0] for region in regions])
        lefts, columns = self._axes[1].resize([crop.T for crop in rows], [region.window[1] for region in regions])
        return [(crop.T, (top, left)) for crop, top, left in zip(columns, tops, lefts, strict=True)]

    def window(self, window: Window) -> FloatArray:
        """Return (h, w) coverage of the whole content by all pixels of a window, up to rounding."""
        rows, columns = (axis.share(*window[number::2]) for number, axis in enumerate(self._axes))
        return np.outer(rows, columns)


class _Weights:
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
