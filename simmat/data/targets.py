"""What a network is trained on, at its input: regions, and for a dense head classes and distances to borders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simmat.data.instances import Annotation, Instance, distance_inside, pixels_under_centres, region_from_mask
from simmat.types import BoolArray, FloatArray, Letterbox

if TYPE_CHECKING:
    from scipy import sparse

NO_TRUTH = -1
"""Class of a pixel without ground truth."""


def dense_targets(
    label: Annotation, letterbox: Letterbox, index_of: Mapping[int | None, int], background: int
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Draw the objects of a label at the input; where objects overlap, the smaller one is in front.

    Args:
        label: of the original image; what is too small to be prompted for is drawn, too.
        index_of: class of an object -> its index in the class map; other classes have no truth.
        background: index of pixels outside of objects; `NO_TRUTH` if unmarked objects may be there.

    Returns:
        (S, S) index of the class, `NO_TRUTH` in the padding and where the label says nothing; and (S, S) distance to
        the border of the object as a part of the largest one in it, 0 outside of objects.
    """
    rows, columns = map(pixels_under_centres, label.size_hw, letterbox.scaled_hw)
    whole = (*label.regions, *label.small)
    every = [region.picked(rows, columns) for region in whole]
    seen = _numbered(every, letterbox.scaled_hw, [region.area for region in whole])
    classes = np.full((letterbox.size, letterbox.size), background, np.int64)
    distance = np.zeros((letterbox.size, letterbox.size), np.float32)
    for number, region in enumerate(every, start=1):
        place = region.window.slices
        inside = seen[place] == number
        if inside.any():
            np.copyto(classes[place], index_of.get(region.class_id, NO_TRUTH), where=inside)
            far = distance_inside(inside)
            np.copyto(distance[place], far / far.max(), where=inside)
    classes[ignored_pixels(label, letterbox)] = NO_TRUTH
    return classes, distance


def class_map(label: Annotation) -> npt.NDArray[np.int64]:
    """Return the (H, W) label values of an image: 0 outside of objects, 1 where an object has no class."""
    every = (*label.regions, *label.small)
    values = (1 if region.class_id is None else region.class_id for region in every)
    return np.asarray([0, *values], np.int64)[_numbered(every, label.size_hw)]


def object_map(label: Annotation) -> npt.NDArray[np.int64]:
    """Return the (H, W) numbers of the objects from 1, in the order of `label.regions`; 0 outside of objects."""
    return _numbered(label.regions, label.size_hw).astype(np.int64)


def outside_objects(label: Annotation) -> BoolArray:
    """Return (H, W) True where no object is marked."""
    return np.asarray(_numbered((*label.regions, *label.small), label.size_hw) == 0)


def _numbered(
    every: Sequence[Instance], size_hw: tuple[int, int], areas: Sequence[int] | None = None
) -> npt.NDArray[np.int32]:
    """Return (H, W) 1, 2, 3 … in the order of regions; 0 outside. The one with the smaller area is in front."""
    numbers = np.zeros(size_hw, np.int32)
    areas = areas or [region.area for region in every]
    for index in sorted(range(len(every)), key=lambda index: -areas[index]):
        numbers[every[index].window.slices][every[index].crop] = index + 1
    return numbers


def ignored_pixels(label: Annotation, letterbox: Letterbox) -> BoolArray:
    """Return (S, S) True in the padding, and where the pixel of the original under a pixel's centre is ignored."""
    height, width = letterbox.scaled_hw
    ignore = np.ones((letterbox.size, letterbox.size), np.bool_)
    rows, columns = map(pixels_under_centres, label.size_hw, letterbox.scaled_hw)
    if label.ignore.any():
        ignore[:height, :width] = label.ignore.take(rows, axis=0).take(columns, axis=1)
    else:
        ignore[:height, :width] = False
    return ignore


def resized_region(region: Instance, letterbox: Letterbox) -> Instance:
    """Return the pixels of the input that a region of the original covers by more than half.

    How much it covers is what `simmat.data.pipeline.resize_planes` makes of its mask. A region thinner than a pixel
    keeps its strongest pixels, so that every prompt has a target.
    """
    rows, columns = map(_antialias_weights, letterbox.original_hw, letterbox.scaled_hw)
    y0, x0, y1, x1 = region.window
    part = rows[:, y0:y1] @ region.crop.astype(np.float32)  # (h, x1 - x0)
    reached = np.flatnonzero(part.any(axis=1))
    top = int(reached[0])
    bottom = int(reached[-1]) + 1
    covered = (columns[:, x0:x1] @ part[top:bottom].T).T  # (bottom - top, w)
    resized = region_from_mask(covered > min(0.5, covered.max() * 0.999), region.class_id, (top, 0))
    assert resized is not None
    return resized


@lru_cache(maxsize=8)
def _antialias_weights(full: int, scaled: int) -> sparse.csr_array:
    """Return (scaled, full): torch's antialiased bilinear weights of pixels of the original in those of the content."""
    from scipy import sparse  # slow to import, and a prediction needs none

    reach = max(full / scaled, 1.0)
    centres = (np.arange(scaled) + 0.5) * (full / scaled)
    first = np.maximum((centres - reach + 0.5).astype(np.int32), 0)  # scipy would look at each int64
    pixels = first[:, None] + np.arange(int(2 * reach) + 2, dtype=np.int32)  # (scaled, taps)
    weights = np.maximum(1 - np.abs(pixels + 0.5 - centres[:, None]) / reach, 0)
    weights[pixels >= full] = 0
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    ends = np.arange(0, weights.size + 1, weights.shape[1], dtype=np.int32)
    return sparse.csr_array((weights.ravel(), np.minimum(pixels, full - 1).ravel(), ends), shape=(scaled, full))
