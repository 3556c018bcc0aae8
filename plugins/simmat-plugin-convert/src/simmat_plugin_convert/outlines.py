"""Outlines of masks along the edges of their pixels, as polygons without holes.

Coordinates are x, y in pixels, the corner of the first pixel at 0, 0. A polygon's hole is joined to its outline by a
line that runs there and back, so that filling by the even-odd rule at pixel centres gives the mask again, to the pixel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from simmat.data.instances import Instance
from simmat.types import BoolArray

Ring = npt.NDArray[np.int64]
"""(N, 2) x and y of the corners, the first one not repeated."""


def part_polygons(instance: Instance) -> list[Ring]:
    """Return one polygon for each part of a region; pixels that touch at a corner alone are of two parts."""
    numbered, count = ndimage.label(instance.crop)
    y0, x0, _, _ = instance.box
    corner = np.asarray([x0, y0])
    return [joined(_rings(numbered == number)) + corner for number in range(1, count + 1)]


def one_polygon(instance: Instance) -> Ring:
    """Return one polygon for all parts of a region."""
    return joined(part_polygons(instance))


def joined(rings: Sequence[Ring]) -> Ring:
    """Join rings to one by lines that run there and back between the nearest corners."""
    path = rings[0]
    for ring in rings[1:]:
        apart = np.abs(path[:, None] - ring[None]).sum(axis=2)  # (N, M)
        here, there = np.unravel_index(apart.argmin(), apart.shape)
        loop = np.concatenate([ring[there:], ring[: there + 1]])  # ends where it begins
        path = np.concatenate([path[: here + 1], loop, path[here:]])
    return path


def _rings(mask: BoolArray) -> list[Ring]:
    """Return the outer ring of a 4-connected (h, w) mask, then those of its holes."""
    padded = np.pad(mask, 1).astype(np.int8)
    across, down = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]  # (h + 1, w), (h, w + 1)
    follows: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for value, step in ((1, 1), (-1, 0)):  # the mask lies on the right of each edge
        for y, x in np.argwhere(across == value).tolist():
            follows[x + 1 - step, y].append((x + step, y))
        for y, x in np.argwhere(down == value).tolist():
            follows[x, y + step].append((x, y + 1 - step))
    rings = []
    while follows:
        start = min(follows, key=lambda corner: (corner[1], corner[0]))
        ring, here, came = [start], start, (1, 0)
        while True:
            ways = follows[here]
            turn = (-came[1], came[0])  # to the right, so that pixels which touch at a corner stay apart
            place = next((n for n, way in enumerate(ways) if (way[0] - here[0], way[1] - here[1]) == turn), 0)
            to = ways.pop(place)
            if not ways:
                del follows[here]
            went = (to[0] - here[0], to[1] - here[1])
            if went == came and len(ring) > 1:
                ring.pop()  # no corner
            came, here = went, to
            if here == start:
                break
            ring.append(here)
        rings.append(np.asarray(ring, np.int64))
    return rings
