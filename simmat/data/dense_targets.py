"""What a dense head is trained on: the class of every pixel of an image, and how far it is from its object's border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

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
