"""Masks in json, for page and journal: run lengths inside a box."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, FailFast, Field

from simmat.data.instances import Instance, region_from_mask
from simmat.documents import Document, FromLists, as_tuples
from simmat.errors import DataError

MAX_PX = 2**28
"""Most pixels in the box of a mask, which is decoded as a whole."""

Edge = Annotated[int, Field(ge=0, lt=2**31)]


class MaskDocument(Document):
    """The pixels of one object.

    Attributes:
        box: (x0, y0, x1, y1), outer edges in pixels of the image.
        runs: lengths of runs of pixels in the box, row by row; runs outside and inside the object alternate, and the
            first is outside and may be 0.
    """

    box: FromLists[tuple[Edge, Edge, Edge, Edge]]
    runs: Annotated[tuple[Edge, ...], FailFast(), Field(max_length=2**22), BeforeValidator(as_tuples)]


def encode_mask(region: Instance) -> dict[str, list[int]]:
    """Return a region as the values of a `MaskDocument`."""
    y0, x0, y1, x1 = region.window
    flat = region.crop.ravel()  # (h * w,)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=len(flat)).tolist()
    return {"box": [x0, y0, x1, y1], "runs": [0, *runs] if flat[0] else runs}


def decode_mask(mask: MaskDocument, size_hw: tuple[int, int]) -> Instance:
    """Return a mask as a region in its tightest box.

    Args:
        size_hw: (height, width) of the image in pixels.

    Raises:
        DataError: the box is not in the image, the runs do not fill it, or no pixel belongs to the object.
    """
    (x0, y0, x1, y1), (height, width) = mask.box, size_hw
    if not (x0 < x1 <= width and y0 < y1 <= height):
        raise DataError(
            f"the mask's box {[x0, y0, x1, y1]} is not in the image of {width}x{height} pixels; it is x0, y0, x1, y1"
        )
    total = (x1 - x0) * (y1 - y0)
    if total > MAX_PX:
        raise DataError(f"the mask's box has {total} pixels, at most {MAX_PX} are allowed; mark the object in parts")
    if sum(mask.runs) != total:
        raise DataError(f"the mask's runs add up to {sum(mask.runs)} pixels, its box has {total}")
    inside = np.arange(len(mask.runs)) % 2 == 1
    crop = np.repeat(inside, np.asarray(mask.runs, np.int64)).reshape(y1 - y0, x1 - x0)
    found = region_from_mask(crop, None, (y0, x0))
    if found is None:
        raise DataError("the mask is empty; remove the object instead")
    return found


def subtract(region: Instance, others: Iterable[Instance]) -> Instance | None:
    """Return the pixels of a region that are in none of the others; None if there are none."""
    y0, x0, y1, x1 = region.window
    crop = region.crop
    for other in others:
        top, left, bottom, right = other.window
        if top < y1 and y0 < bottom and left < x1 and x0 < right:
            crop = crop & ~other.within(region.window)
    rest = region_from_mask(crop, None, (y0, x0))
    return None if rest is None else replace(region, window=rest.window, crop=rest.crop)


def is_known(region: Instance, labelled: Iterable[Instance]) -> bool:
    """Return whether a found object mostly overlaps one of the labelled objects."""
    return any(2 * overlap_px(region, other) > min(region.area, other.area) for other in labelled)


def overlap_px(one: Instance, other: Instance) -> int:
    """Return the number of pixels that two regions have in common."""
    if (shared := one.window.intersection(other.window)) is None:
        return 0
    return int(np.count_nonzero(one.within(shared) & other.within(shared)))
