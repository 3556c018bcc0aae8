"""The objects that were followed through a sequence: their masks on disk, their scores, and which to look at."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.data.sequence import FrameSequence
from simmat.errors import few_of
from simmat.io.files import write_rows
from simmat.io.frames import NpyStack, TiffStack, open_stack
from simmat.io.images import read_labels
from simmat.io.paths import frame_of
from simmat.plugin_specs import ResultFormat
from simmat.plugins.registry import Registry

Plane = npt.NDArray[np.uint16]
"""(H, W) ids of objects, 0 for none."""


class TrackRow(NamedTuple):
    """An object in a frame: its id, pixels and score."""

    frame: int
    number: int
    area: int
    score: float


@dataclass(frozen=True)
class Tracks:
    """The objects of a sequence in every frame.

    Attributes:
        frames: the sequence.
        labels: folder of the masks, a PNG of ids for each frame.
        rows: the objects of each frame, sorted by frame.
        given: frame -> objects whose mask was given there; at least one frame.
        class_names: names of label values.
        smooth: number of slices on each side by which the volume is smoothed; 0 for none.
    """

    frames: FrameSequence
    labels: Path
    rows: Sequence[TrackRow]
    given: Mapping[int, Container[int]]
    class_names: Mapping[int, str]
    smooth: int = 0

    def plane(self, frame: int) -> Plane:
        """Read the ids in a frame."""
        plane: Plane = read_labels(mask_file(self.labels, self.frames, frame)).planes[0]
        return plane

    def planes(self) -> Iterator[Plane]:
        """Read the ids of one frame after the other."""
        return map(self.plane, range(len(self.frames)))

    def unsure(self, min_score: float) -> dict[int, list[int]]:
        """Return frame -> the objects to check there: objects below a score, and lost objects.

        Before the first frame with masks, objects are followed backward, and lost after the next frame.
        """
        areas = {(row.frame, row.number): row.area for row in self.rows}
        first = min(self.given)
        found: dict[int, list[int]] = {}
        for row in self.rows:
            if row.number in self.given.get(row.frame, ()):
                continue
            if row.area:
                is_unsure = row.score < min_score
            else:
                before = row.frame - 1 if row.frame >= first else row.frame + 1
                is_unsure = areas.get((before, row.number), 0) > 0
            if is_unsure:
                found.setdefault(row.frame, []).append(row.number)
        return found

    @property
    def volumes_mm3(self) -> dict[int, float]:
        """Object id -> mm³ in a stack whose spacing is known; empty otherwise."""
        spacing = self.frames.spacing
        if spacing is None:
            return {}
        voxels = np.zeros(2**16, np.int64)
        for plane in self.planes():
            voxels += np.bincount(plane.ravel(), minlength=2**16)
        voxels[0] = 0
        return {
            number: int(voxels[number]) * math.prod(spacing)
            for number in np.flatnonzero(voxels).tolist()
        }


def named_formats(names: Iterable[str], registry: Registry) -> tuple[ResultFormat, ...]:
    """Return formats of sequences; UnknownNameError for one that no installed package brings."""
    return tuple(registry.get("sequence format", name) for name in sorted(set(names)))


def default_formats(
    frames: FrameSequence, registry: Registry
) -> tuple[ResultFormat, ...]:
    """Return the formats that are written unless others are named: of a stack a volume, too."""
    places = {"sequences"}
    if is_volume(frames) or _is_array(frames):
        places.add("stacks")
    every: list[ResultFormat] = registry.all("sequence format")
    return tuple(one for one in every if not places.isdisjoint(one.auto))


def is_volume(frames: FrameSequence) -> bool:
    """Return whether the frames are the slices of a volume."""
    frame = frame_of(next(iter(frames.files[0].values())))
    return frame is not None and bool(frame.axis)


def _is_array(frames: FrameSequence) -> bool:
    """Return whether the frames are those of an array in one file."""
    frame = frame_of(next(iter(frames.files[0].values())))
    if frame is None:
        return False
    return isinstance(open_stack(frame.file, frame.axis), TiffStack | NpyStack)


def mask_file(labels: Path, frames: FrameSequence, frame: int) -> Path:
    """Return the file of the ids in a frame, in the folder `labels`."""
    return labels / f"{frames.names[frame]}.png"


def write_table(
    file: Path, tracks: Tracks, unsure: Mapping[int, Container[int]]
) -> None:
    """Write a row for each object of each frame: its pixels, its score, and whether to look at it."""
    lines = [("frame", "name", "object", "pixels", "score", "look")]
    for row in tracks.rows:
        look = "yes" if row.number in unsure.get(row.frame, ()) else ""
        name = tracks.frames.names[row.frame]
        lines.append(
            (
                str(row.frame),
                name,
                str(row.number),
                str(row.area),
                f"{row.score:.3f}",
                look,
            )
        )
    write_rows(file, lines)


def ranges_of(frames: FrameSequence, numbers: Container[int]) -> str:
    """Return the names of frames as ranges: "0012 to 0015, 0040"."""
    ranges = []
    first = ""
    for number, name in enumerate(frames.names):
        if number not in numbers:
            continue
        if number - 1 not in numbers:
            first = name
        if number + 1 in numbers:
            continue
        if name == first:
            ranges.append(name)
        else:
            ranges.append(f"{first} to {name}")
    return few_of(ranges, 20)
