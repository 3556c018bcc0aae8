"""The files of followed objects: masks of frames, a table, COCO with track ids, MOTS, a film, a volume."""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from simmat.data.instances import region_from_mask
from simmat.data.sequence import FrameSequence
from simmat.drawing.display import display_channels, display_limits, display_style, show_channels
from simmat.drawing.overlay import object_colour, paint_regions
from simmat.errors import ConfigError, few_of
from simmat.inference.coco import coco_document, run_lengths
from simmat.io.files import atomic_path, atomic_write_json, write_rows
from simmat.io.images import frame_of, write_image
from simmat.io.images.planes import read_labels
from simmat.io.images.stacks import NpyStack, TiffStack, open_stack, stack_format
from simmat.plugin_specs import import_from_string
from simmat_plugin_sequences.film import write_film

FORMATS = ("coco", "mots", "overlay", "volume")
"""Files that can be written besides the masks and the table."""
_CLASS = 1000
"""In MOTS an id is the class times this, plus the number of the object, as by `regions = "panoptic"`.

Objects without a class get the first one that no other object has.
"""
_RATE = 10
"""Frames of a film in a second."""
_MAX_IMAGEJ_BYTES = 2**32

Plane = npt.NDArray[np.uint16]
"""(H, W) ids of objects, 0 for none."""


class Row(NamedTuple):
    """An object in a frame: its id, pixels and score."""

    frame: int
    number: int
    area: int
    score: float


@dataclass
class TrackFiles:
    """The folder of the results of a sequence.

    Attributes:
        frames: the sequence.
        out: the folder.
        min_score: an object below it, and one that is lost, is to be looked at.
        class_names: names of label values.
        written: files and folders that `write` made.
        unsure: number of a frame -> ids of the objects to look at there, of `write`.
    """

    frames: FrameSequence
    out: Path
    min_score: float
    class_names: Mapping[int, str]
    written: list[Path] = field(default_factory=list)
    unsure: dict[int, list[int]] = field(default_factory=dict)

    @property
    def labels(self) -> Path:
        """Folder of the masks."""
        return self.out / "labels"

    def mask_file(self, index: int) -> Path:
        """Return the file of the ids in a frame."""
        return self.labels / f"{self.frames.names[index]}.png"

    def write(
        self, rows: Sequence[Row], formats: Collection[str], *, smooth: int, given: Mapping[int, Container[int]]
    ) -> None:
        """Write all but the masks, which are there, from what was found in every frame.

        Args:
            rows: sorted by frame.
            formats: of `FORMATS`.
            smooth: slices on each side that the volume is smoothed by; 0 for none.
            given: frame, at least one -> objects whose mask was given there; it is not smoothed, nor to be looked at.
        """
        self.written = [self.labels, self._write_table(rows, given)]
        if "coco" in formats:
            self.written.append(self._write_coco({(row.frame, row.number): row for row in rows}))
        if "mots" in formats:
            named = {number // _CLASS for plane in self._planes() for number in np.unique(plane).tolist()}
            start = np.uint16(_CLASS * min(set(range(1, 65)) - named))  # a class of its own, of 64 in 16 bits
            for index, plane in enumerate(self._planes()):
                values = np.where((plane > 0) & (plane < _CLASS), plane + start, plane)
                write_image(self.out / "mots" / self.mask_file(index).name, values[None])
            self.written.append(self.out / "mots")
        if "overlay" in formats:
            self.written.append(write_film(self.out / "overlay", self._pictures(rows), len(self.frames), _RATE))
        if "volume" in formats:
            self.written.append(self._write_volume(self._smoothed(smooth, given)))

    def _plane(self, index: int) -> Plane:
        plane: Plane = read_labels(self.mask_file(index)).planes[0]
        return plane

    def _planes(self) -> Iterator[Plane]:
        return map(self._plane, range(len(self.frames)))

    def _smoothed(self, count: int, kept: Collection[int]) -> Iterator[Plane]:
        """Yield planes in which each pixel has the id that most of it and `count` planes on each side have there.

        Of equally many its own id stays. Planes whose number is in `kept` do not change.
        """
        near: dict[int, Plane] = {}
        for index in range(len(self.frames)):
            around = range(max(index - count, 0), min(index + count + 1, len(self.frames)))
            near = {one: near[one] if one in near else self._plane(one) for one in around}
            chosen = near[index].copy()
            if count and index not in kept:
                stack = np.stack(list(near.values()))  # (n, H, W)
                most = (stack == chosen).sum(0)
                for number in np.unique(stack).tolist():
                    votes = (stack == number).sum(0)
                    chosen[votes > most] = number
                    most = np.maximum(most, votes)
            yield chosen

    def _write_table(self, rows: Sequence[Row], given: Mapping[int, Container[int]]) -> Path:
        """Write a row for each object of each frame, and note which ones to look at.

        Before the first frame with masks, objects are followed backward, and lost after the next frame.
        """
        lines = [("frame", "name", "object", "pixels", "score", "look")]
        areas = {(frame, number): area for frame, number, area, _ in rows}
        for frame, number, area, score in rows:
            before = frame - 1 if frame >= min(given) else frame + 1
            look = score < self.min_score if area else areas.get((before, number), 0) > 0
            look = look and number not in given.get(frame, ())
            if look:
                self.unsure.setdefault(frame, []).append(number)
            name = self.frames.names[frame]
            lines.append((str(frame), name, str(number), str(area), f"{score:.3f}", "yes" if look else ""))
        write_rows(self.out / "frames.csv", lines)
        return self.out / "frames.csv"

    def _write_coco(self, rows: Mapping[tuple[int, int], Row]) -> Path:
        """Write COCO json; an annotation's track_id is the id of the object."""
        images = []
        for index, plane in enumerate(self._planes()):
            records: list[dict[str, Any]] = []
            for number in np.unique(plane[plane > 0]).tolist():
                region = region_from_mask(plane == number, None)
                assert region is not None  # it has a pixel
                records.append(
                    {
                        "class": number // _CLASS or None,
                        "box_xyxy": region.box_xyxy,
                        "area": region.area,
                        "score": rows[index, number].score if (index, number) in rows else 1.0,  # painted since
                        "segmentation": run_lengths(region, plane.shape),
                        "track_id": number,
                    }
                )
            images.append((self._file_name(index), plane.shape, records))
        document = coco_document(images, self.class_names)
        atomic_write_json(self.out / "coco.json", {"info": {"description": "Objects followed by simmat"}, **document})
        return self.out / "coco.json"

    def _file_name(self, index: int) -> str:
        path = next(iter(self.frames.files[index].values()))
        return path.name if frame_of(path) is None else self.frames.names[index]

    def _pictures(self, rows: Sequence[Row]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield each frame (H, W, 3) with its objects in their colours, all with the limits of the first frame."""
        ids = np.array(sorted({0, *(row.number for row in rows)}))
        colours = [object_colour(place) for place in range(len(ids) - 1)]
        limits = None
        for image, plane in zip(self.frames, self._planes(), strict=True):
            shown = display_channels(image.channels)
            if len(shown) == 1 and limits is None:
                only = shown[0]
                limits = display_limits(image.data[only], image.valid[only], display_style(image.channels[only]))
            yield paint_regions(show_channels(image, shown, limits), np.searchsorted(ids, plane), colours, fill=0.35)

    def _write_volume(self, planes: Iterator[Plane]) -> Path:
        """Write the masks of all slices as one file: NIfTI on the grid of a volume, else TIFF."""
        frame = frame_of(next(iter(self.frames.files[0].values())))
        kind = None if frame is None else stack_format(frame.file)
        if frame is not None and kind is not None and kind.write_labels:
            file = self.out / "volume.nii.gz"
            import_from_string(kind.write_labels)(file, planes, open_stack(frame.file, frame.axis), frame.axis)
            return file
        import tifffile

        first = next(planes)
        shape, spacing = (len(self.frames), *first.shape), self.frames.spacing
        about: dict[str, Any] = {"axes": "ZYX"}
        resolution = None
        if spacing is not None:
            about |= {"spacing": spacing[0], "unit": "mm"}
            resolution = (1 / spacing[2], 1 / spacing[1])
        with atomic_path(self.out / "volume.tif") as temporary:
            imagej = 2 * math.prod(shape) < _MAX_IMAGEJ_BYTES
            tifffile.imwrite(
                temporary,
                chain([first], planes),
                shape=shape,
                dtype=np.uint16,
                imagej=imagej,
                bigtiff=not imagej,
                photometric="minisblack",
                resolution=resolution,
                metadata=about,
            )
        return self.out / "volume.tif"

    @property
    def volumes_mm3(self) -> dict[int, float]:
        """Object id -> mm³ in a stack whose spacing is known; empty otherwise."""
        spacing = self.frames.spacing
        if spacing is None:
            return {}
        voxels = np.zeros(2**16, np.int64)
        for plane in self._planes():
            voxels += np.bincount(plane.ravel(), minlength=2**16)
        voxels[0] = 0
        return {number: int(voxels[number]) * math.prod(spacing) for number in np.flatnonzero(voxels).tolist()}

    def summary(self) -> str:
        """Return the frames to look at, as ranges of names: "0012 to 0015, 0040"."""
        names, numbers = self.frames.names, sorted(self.unsure)
        first = [number for number in numbers if number - 1 not in self.unsure]
        last = [number for number in numbers if number + 1 not in self.unsure]
        ranges = [names[a] if a == b else f"{names[a]} to {names[b]}" for a, b in zip(first, last, strict=True)]
        return few_of(ranges, 20)


def default_formats(frames: FrameSequence) -> tuple[str, ...]:
    """Return the files that are written unless others are asked for: a volume of what is one, too."""
    frame = frame_of(next(iter(frames.files[0].values())))
    stack = None if frame is None else open_stack(frame.file, frame.axis)
    is_volume = frame is not None and (bool(frame.axis) or isinstance(stack, TiffStack | NpyStack))
    return ("coco", "overlay", "volume") if is_volume else ("coco", "overlay")


def check_formats(names: Sequence[str]) -> None:
    """Raise ConfigError for a format that is none."""
    if unknown := [name for name in names if name not in FORMATS]:
        raise ConfigError(
            f"--format {unknown[0]}: unknown; allowed are {', '.join(FORMATS)} (masks are always written)"
        )
