"""The files of followed objects, from masks that are in memory."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from simmat_plugin_sequences.track_formats import smoothed_planes
from simmat_plugin_sequences.tracks import Plane, Tracks

from simmat.data.sequence import FrameSequence

PLANES = np.random.default_rng(0).integers(0, 4, (7, 9, 11)).astype(np.uint16)
PLANES[PLANES == 3] = 2003


class InMemory(Tracks):
    def plane(self, frame: int) -> Plane:
        return cast(Plane, PLANES[frame])


def most_frequent(own: int, near: list[int]) -> int:
    """What the docs say of one pixel: most votes, else its own id, else the lowest."""
    most = max(near.count(one) for one in near)
    winners = [one for one in sorted(set(near)) if near.count(one) == most]
    return own if own in winners else winners[0]


def test_a_smoothed_pixel_has_the_id_of_most_planes_near_it() -> None:
    """Of objects everywhere and anywhere; each is looked for in its own part of the planes."""
    frames = cast(FrameSequence, range(len(PLANES)))
    tracks = InMemory(frames, Path(), (), {3: (1,)}, {}, smooth=2)
    found = np.stack(list(smoothed_planes(tracks)))
    wanted = PLANES.copy()
    for frame, y, x in np.ndindex(PLANES.shape):
        if frame != 3:
            near = PLANES[max(frame - 2, 0) : frame + 3, y, x].tolist()
            wanted[frame, y, x] = most_frequent(int(PLANES[frame, y, x]), near)
    np.testing.assert_array_equal(found, wanted)
