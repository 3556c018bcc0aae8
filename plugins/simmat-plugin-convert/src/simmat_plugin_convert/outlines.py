"""Outlines of masks along pixel edges, as polygons without holes.

Coordinates are x, y in pixels; the corner of the first pixel is (0, 0). A hole is joined to the outline by a line that
runs there and back, so filling by the even-odd rule at pixel centres restores the mask exactly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from simmat.data.instances import Instance
from simmat.types import BoolArray

Ring = npt.NDArray[np.int64]
"""(N, 2) x and y of the corners, the first one not repeated."""


def part_polygons(instance: Instance) -> list[Ring]:
    """Return one polygon per 4-connected part of a region."""
    numbered, _ = ndimage.label(instance.crop)
    y0, x0, _, _ = instance.window
    corner = np.asarray([x0, y0])
    return [
        joined(_rings(numbered[rows, columns] == number))
        + corner
        + [columns.start, rows.start]
        for number, (rows, columns) in enumerate(
            ndimage.find_objects(numbered), start=1
        )
    ]


def one_polygon(instance: Instance) -> Ring:
    """Return one polygon for all parts of a region."""
    return joined(part_polygons(instance))


def joined(rings: Sequence[Ring]) -> Ring:
    """Join rings to one, by lines there and back from the first corner of each to the nearest earlier corner."""
    corners = np.concatenate(rings)
    ends = np.cumsum([len(ring) for ring in rings]).tolist()
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    starts = [0, *ends[:-1]]
    tree = cKDTree(corners) if len(rings) > 1 else None
    leaves: dict[int, list[int]] = defaultdict(list)  # corner -> rings joined to it
    for number in range(1, len(rings)):
        assert tree is not None
        count, before = 8, np.zeros(0, np.intp)
        while not len(before):
            near = tree.query(corners[starts[number]], min(count, len(corners)))[1]
            before = near[owner[near] < number]
            count *= 4
        leaves[int(before[0])].append(number)
    path: list[int] = []
    # stack of corners; ~corner is a return along a joining line
    ahead = list(reversed(range(ends[0])))
    while ahead:
        corner = ahead.pop()
        if corner < 0:
            path.append(~corner)
            continue
        path.append(corner)
        for number in leaves.get(corner, ()):
            ahead += [
                ~corner,
                ~starts[number],
                *reversed(range(starts[number], ends[number])),
            ]
    return corners[path]


def _rings(mask: BoolArray) -> list[Ring]:
    """Return the outer ring of a 4-connected (h, w) mask, then those of its holes."""
    padded = np.pad(mask, 1).astype(np.int8)
    # (h + 1, w), (h, w + 1)
    across, down = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    follows: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for value, step in ((1, 1), (-1, 0)):  # the mask lies on the right of each edge
        for y, x in np.argwhere(across == value).tolist():
            follows[x + 1 - step, y].append((x + step, y))
        for y, x in np.argwhere(down == value).tolist():
            follows[x, y + step].append((x, y + 1 - step))
    rings = []
    starts = sorted(follows, key=lambda corner: (corner[1], corner[0]), reverse=True)
    while starts:
        start = starts[-1]
        if start not in follows:  # all rings through this corner are found
            starts.pop()
            continue
        ring, here, came = [start], start, (1, 0)
        while True:
            ways = follows[here]
            # prefer right turns, so that pixels that touch at a corner stay separate
            turn = (-came[1], came[0])
            place = next(
                (
                    n
                    for n, way in enumerate(ways)
                    if (way[0] - here[0], way[1] - here[1]) == turn
                ),
                0,
            )
            to = ways.pop(place)
            if not ways:
                del follows[here]
            went = (to[0] - here[0], to[1] - here[1])
            if went == came and len(ring) > 1:
                ring.pop()  # straight on: not a corner
            came, here = went, to
            if here == start:
                break
            ring.append(here)
        rings.append(np.asarray(ring, np.int64))
    return rings
