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
    region = _region(mask)
    # No pixel outside the box is nearer than those just around it, so the crop is enough.
    distance = distance_inside(region.crop)
    row, column = divmod(int(np.argmax(distance)), distance.shape[1])
    return float(column + region.window.x0), float(row + region.window.y0)


def random_click(mask: BoolArray | Instance, rng: np.random.Generator) -> tuple[float, float]:
    """Return the centre (x, y) of a random pixel of an (H, W) mask or a region."""
    region = _region(mask)
    return region.pixel_xy(int(rng.integers(region.area)))


def corrective_click(
    truth: Instance, prediction: Instance | None, ignore: BoolArray
) -> tuple[tuple[float, float], int] | None:
    """Return the next click that corrects a prediction: the centre of its largest error.

    Errors are the 8-connected components of the false negatives and of the false positives. The one with the most
    pixels is clicked at its centre, see `center_click`; a false negative comes before a false positive of equal size,
    and the first in raster order before others of its kind.

    Args:
        prediction: None if it is empty.
        ignore: (H, W) bool, pixels that are neither right nor wrong.

    Returns:
        ((x, y), label), label 1 on a false negative and 0 on a false positive; None without an error.
    """
    missing = _largest_component(truth, prediction, ignore)
    extra = _largest_component(prediction, truth, ignore)
    if missing is not None and (extra is None or missing.area >= extra.area):
        return center_click(missing), 1
    if extra is not None:
        return center_click(extra), 0
    return None


def tight_box(mask: BoolArray | Instance) -> FloatArray:
    """Return the (4,) float32 XYXY box of an (H, W) mask or a region; x1 and y1 are the last column and row + 1."""
    return np.asarray(_region(mask).box_xyxy, dtype=np.float32)


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


def _region(mask: BoolArray | Instance) -> Instance:
    if isinstance(mask, Instance):
        return mask
    region = region_from_mask(mask, None)
    if region is None:
        raise DataError("a click or a box needs a region with at least one pixel, got an empty mask")
    return region


def _largest_component(region: Instance | None, without: Instance | None, ignore: BoolArray) -> Instance | None:
    """Return the largest 8-connected component of a region without another one and (H, W) `ignore`; None if empty.

    It is the first in raster order among equals.
    """
    if region is None:
        return None
    from scipy import ndimage  # slow to import, and a prediction needs none

    left = region.crop & ~ignore[region.window.slices]
    if without is not None:
        left &= ~without.within(region.window)
    around = region_from_mask(left, None, region.window[:2])
    if around is None:
        return None
    numbered, _ = ndimage.label(around.crop, structure=EIGHT)
    sizes = np.bincount(numbered.ravel())
    largest = int(np.argmax(sizes[1:])) + 1
    return region_from_mask(numbered == largest, None, around.window[:2])
