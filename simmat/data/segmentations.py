"""One segmentation of a COCO annotation, polygons or run lengths: what is wrong with it, and its mask.

pycocotools draws in C and trusts its input: a bad corner ends the process, and pixels that no run covers stay
whatever was in memory. So everything is checked before it draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from simmat.types import BoolArray, is_finite_number

_MOST_CHARACTERS = 7
"""A run length of the text form has 5 bits a character; so many hold any length below 2**32, and fit an int64."""


def segmentation_problem(segmentation: Any, size_hw: tuple[int, int]) -> str | None:
    """Say in words what is wrong with a segmentation of an image of that size, or None."""
    if isinstance(segmentation, dict):
        return _runs_problem(segmentation, size_hw)
    if not isinstance(segmentation, list):
        return f"its segmentation is a {type(segmentation).__name__}, not polygons or run lengths"
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "a polygon needs x,y of at least 3 corners"
        if not all(map(is_finite_number, polygon)):
            return "a polygon holds something that is no number"
        if min(polygon) < -max(size_hw) or max(polygon) > 2 * max(size_hw):
            return f"a polygon reaches from {min(polygon):g} to {max(polygon):g}, far out of an image of {size_hw} px"
    return None


def draw_segmentation(segmentation: Any, size_hw: tuple[int, int]) -> BoolArray:
    """Return a segmentation that `segmentation_problem` finds nothing wrong with as (H, W) bool."""
    if isinstance(segmentation, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size_hw))
    elif isinstance(segmentation["counts"], str):
        runs = {"size": list(size_hw), "counts": segmentation["counts"].encode()}
    else:
        runs = coco_mask.frPyObjects(dict(segmentation), *size_hw)
    return np.asarray(coco_mask.decode(runs), dtype=np.bool_)


def _runs_problem(runs: Mapping[str, Any], size_hw: tuple[int, int]) -> str | None:
    counts = runs.get("counts")
    if not isinstance(counts, str | list) or "size" not in runs:
        return "its run lengths need 'counts' and 'size'"
    if runs["size"] != list(size_hw):
        return f"its run lengths are of size {runs['size']}, the image is {list(size_hw)} (height, width)"
    if isinstance(counts, str):
        lengths = _lengths_of_text(counts)
        if lengths is None:
            return "its run lengths are no COCO text"
        counts = lengths.tolist()
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        return "its run lengths hold something that is no whole number"
    if sum(counts) != size_hw[0] * size_hw[1]:
        return f"its run lengths add up to {sum(counts)}, the image has {size_hw[0] * size_hw[1]} pixels"
    return None


def _lengths_of_text(text: str) -> npt.NDArray[np.int64] | None:
    """Return the run lengths of COCO's text form, as pycocotools reads it; None where it is none.

    A character is 48 + 5 bits of a number, lowest first, + 32 where more of it follow; the highest bit of the
    last is the sign. From the fourth on, a number is the difference to the length two before.
    """
    if not text.isascii():
        return None
    codes = np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    characters = ends - starts + 1
    if characters.max() > _MOST_CHARACTERS:
        return None
    place = 5 * (np.arange(codes.size) - np.repeat(starts, characters))
    numbers = np.add.reduceat((codes & 31) << place, starts)
    numbers -= np.where(codes[ends] & 16, np.int64(1) << (5 * characters), 0)
    lengths = numbers.copy()
    lengths[1::2] = np.cumsum(numbers[1::2])
    lengths[2::2] = np.cumsum(numbers[2::2])
    return lengths
