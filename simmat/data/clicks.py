"""Simulate the clicks and boxes of a user."""

from __future__ import annotations

import numpy as np

from simmat.data.instances import EIGHT, Instance, distance_inside, region_from_mask
from simmat.errors import DataError
from simmat.types import BoolArray, FloatArray


def center_click(mask: BoolArray | Instance) -> tuple[float, float]:
    """Return the pixel of a region that is farthest from its outside.

    This is the maximum of the Euclidean distance transform with one background pixel padded around the image, so that
    the image's border counts as outside; the first in raster order among equals.

    Args:
        mask: (H, W) bool, not empty, or a region, for which only its box is computed.

    Returns:
        (x, y), the centre of that pixel.
    """
    return _center(_region(mask))


def random_click(mask: BoolArray | Instance, rng: np.random.Generator) -> tuple[float, float]:
    """Return the centre (x, y) of a random pixel of an (H, W) mask or a region."""
    region = _region(mask)
    inside = np.flatnonzero(region.crop)
    row, column = divmod(int(inside[rng.integers(len(inside))]), region.crop.shape[1])
    return float(column + region.window[1]), float(row + region.window[0])


def corrective_click(
    truth: BoolArray | Instance, prediction: BoolArray | Instance | None, ignore: BoolArray | None = None
) -> tuple[tuple[float, float], int] | None:
    """Return the next click that corrects a prediction: the centre of its largest error.

    Errors are the 8-connected components of the false negatives and of the false positives. The one with the most
    pixels is clicked at its centre, see `center_click`; a false negative comes before a false positive of equal size,
    and the first in raster order before others of its kind.

    Args:
        truth: (H, W) bool, or a region.
        prediction: (H, W) bool, a region, or None if it is empty; for regions only their boxes are computed.
        ignore: (H, W) bool, pixels that are neither right nor wrong.

    Returns:
        ((x, y), label), label 1 on a false negative and 0 on a false positive; None without an error.
    """
    right = region_from_mask(truth, None) if isinstance(truth, np.ndarray) else truth
    found = region_from_mask(prediction, None) if isinstance(prediction, np.ndarray) else prediction
    missing, extra = _largest_component(right, found, ignore), _largest_component(found, right, ignore)
    if missing is not None and (extra is None or missing.area >= extra.area):
        return _center(missing), 1
    return None if extra is None else (_center(extra), 0)


def tight_box(mask: BoolArray | Instance) -> FloatArray:
    """Return the (4,) float32 XYXY box of an (H, W) mask or a region; x1 and y1 are the last column and row + 1."""
    y0, x0, y1, x1 = _region(mask).window
    return np.asarray([x0, y0, x1, y1], dtype=np.float32)


def jitter_box(boxes: FloatArray, size_hw: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Move each side of boxes by up to 10 % of its length, at most 20 px (Kirillov et al. 2023, appendix A).

    Args:
        boxes: (..., 4) XYXY in pixels, inside the image, not empty.
        size_hw: of the image; the result stays inside.

    Returns:
        (..., 4) float32 XYXY.
    """
    corners = boxes.astype(np.float64)
    reach = np.minimum((corners[..., 2:] - corners[..., :2]) * 0.1, 20)
    moved = corners + rng.uniform(-1, 1, size=corners.shape) * np.concatenate([reach, reach], axis=-1)
    height, width = size_hw
    inside: FloatArray = np.clip(moved, 0, np.asarray([width, height, width, height])).astype(np.float32)
    return inside


def _center(region: Instance) -> tuple[float, float]:
    # No pixel outside the box is nearer than those just around it, so the crop is enough.
    distance = distance_inside(region.crop)
    row, column = divmod(int(np.argmax(distance)), distance.shape[1])
    return float(column + region.window[1]), float(row + region.window[0])


def _region(mask: BoolArray | Instance) -> Instance:
    if isinstance(mask, Instance):
        return mask
    region = region_from_mask(mask, None)
    if region is None:
        raise DataError("a click or a box needs a region with at least one pixel, got an empty mask")
    return region


def _largest_component(region: Instance | None, without: Instance | None, ignore: BoolArray | None) -> Instance | None:
    """Return the largest 8-connected component of a region without another one and (H, W) `ignore`; None if empty.

    It is the first in raster order among equals.
    """
    if region is None:
        return None
    from scipy import ndimage  # slow to import, and a prediction needs none

    left = region.crop.copy() if without is None else region.crop & ~without.within(region.window)
    if ignore is not None:
        left &= ~ignore[region.window.slices]
    around = region_from_mask(left, None, region.window[:2])
    if around is None:
        return None
    numbered, _ = ndimage.label(around.crop, structure=EIGHT)
    sizes = np.bincount(numbered.ravel())
    largest = int(np.argmax(sizes[1:])) + 1
    return region_from_mask(numbered == largest, None, around.window[:2])
