"""The files of followed objects besides the masks and the table: COCO with track ids, MOTS, a film, a volume.

Each function writes its file or folder to `out`, and returns its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.data.instances import Instance, regions_by_value
from simmat.data.sequence import FrameSequence
from simmat.drawing.display import (
    display_channels,
    display_limits,
    display_style,
    show_channels,
)
from simmat.drawing.overlay import object_colour, paint_regions
from simmat.inference import coco_document, run_lengths, write_table
from simmat.io.files import atomic_path, atomic_write_json
from simmat.io.frames import open_stack, stack_format
from simmat.io.images import write_image
from simmat.io.paths import frame_of
from simmat.measurement import measurer, rectangular_pixels
from simmat.plugins.registry import import_from_string
from simmat_plugin_sequences.film import write_film
from simmat_plugin_sequences.tracks import Plane, Tracks, mask_file

_CLASS = 1000
"""In MOTS an id is the class times this, plus the number of the object, as by `regions = "panoptic"`.

Objects without a class get the first one that no other object has.
"""
_CLASSES = range(1, 65)
"""Those whose ids have 16 bits in MOTS."""
_RATE = 10
"""Frames of a film in a second."""
_MAX_IMAGEJ_BYTES = 2**32


def write_coco(tracks: Tracks, out: Path) -> str:
    """Write COCO json; an annotation's track_id is the id of the object."""
    scores = {(row.frame, row.number): row.score for row in tracks.rows}
    images = []
    for frame, plane in enumerate(tracks.planes()):
        records: list[dict[str, Any]] = []
        for number, window, crop in regions_by_value(
            plane.astype(np.int64), zero=False
        ):
            region = Instance(None, window, crop)
            records.append(
                {
                    "class": number // _CLASS or None,
                    "box_xyxy": region.box_xyxy,
                    "area": region.area,
                    # without one, a person has painted it since
                    "score": scores.get((frame, number), 1.0),
                    "segmentation": run_lengths(region, plane.shape),
                    "track_id": number,
                }
            )
        images.append((_file_name(tracks.frames, frame), plane.shape, records))
    document = coco_document(images, tracks.class_names)
    name = "coco.json"
    atomic_write_json(
        out / name, {"info": {"description": "Objects followed by simmat"}, **document}
    )
    return name


def _file_name(frames: FrameSequence, frame: int) -> str:
    """Return the name of a frame's file, or of the frame in a file of several."""
    path = next(iter(frames.files[frame].values()))
    return path.name if frame_of(path) is None else frames.names[frame]


def write_csv(tracks: Tracks, out: Path) -> str:
    """Write a row of measurements for each object in each frame in which it has a pixel."""
    name = "objects.csv"
    write_table(out / name, _rows(tracks))
    return name


def _rows(tracks: Tracks) -> Iterator[dict[str, Any]]:
    """Yield the rows of one frame after the other, objects by their ids."""
    scores = {(row.frame, row.number): row.score for row in tracks.rows}
    spacing = tracks.frames.spacing
    for frame, plane in enumerate(tracks.planes()):
        image = tracks.frames[frame]
        areas, _ = measurer().pixel_areas(image)
        if areas is None and spacing is not None:
            areas = rectangular_pixels(1000 * spacing[1], 1000 * spacing[2])
        objects = []
        for number, window, crop in regions_by_value(
            plane.astype(np.int64), zero=False
        ):
            objects.append(Instance(None, window, crop, number))
        measurements = measurer().measure(image, objects, areas)
        for index, one in enumerate(objects):
            row = {
                "image": tracks.frames.names[frame],
                "label": one.object_id,
                "class": None,
                "class_name": None,
                # without one, a person has painted it since
                "score": scores.get((frame, one.object_id or 0), 1.0),
            }
            yield row | measurements.row(index)


def write_mots(tracks: Tracks, out: Path) -> str:
    """Write a PNG of MOTS for each frame."""
    classes: set[int] = set()
    for plane in tracks.planes():
        for number in np.unique(plane).tolist():
            classes.add(number // _CLASS)
    free = next(value for value in _CLASSES if value not in classes)
    start = np.uint16(_CLASS * free)
    folder = out / "mots"
    for frame, plane in enumerate(tracks.planes()):
        is_without_class = (plane > 0) & (plane < _CLASS)
        values = np.where(is_without_class, plane + start, plane)
        write_image(mask_file(folder, tracks.frames, frame), values[None])
    return folder.name


def write_overlay(tracks: Tracks, out: Path) -> str:
    """Write a film of the frames with their objects."""
    return write_film(
        out / "overlay", _pictures(tracks), len(tracks.frames), _RATE
    ).name


def _pictures(tracks: Tracks) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield each frame (H, W, 3) with its objects in their colours, all with the limits of the first frame."""
    ids = np.array(sorted({0, *(row.number for row in tracks.rows)}))
    colours = [object_colour(place) for place in range(len(ids) - 1)]
    limits = None
    for image, plane in zip(tracks.frames, tracks.planes(), strict=True):
        shown = display_channels(image.channels)
        if len(shown) == 1 and limits is None:
            only = shown[0]
            limits = display_limits(
                image.data[only], image.valid[only], display_style(image.channels[only])
            )
        picture = show_channels(image, shown, limits)
        yield paint_regions(picture, np.searchsorted(ids, plane), colours, fill=0.35)


def write_volume(tracks: Tracks, out: Path) -> str:
    """Write the masks of all slices as one file: NIfTI on the grid of a volume, else TIFF."""
    planes = smoothed_planes(tracks)
    frame = frame_of(next(iter(tracks.frames.files[0].values())))
    if frame is not None:
        kind = stack_format(frame.file)
        if kind is not None and kind.write_labels:
            file = out / "volume.nii.gz"
            import_from_string(kind.write_labels)(
                file, planes, open_stack(frame.file, frame.axis), frame.axis
            )
            return file.name
    file = out / "volume.tif"
    _write_tiff(file, planes, len(tracks.frames), tracks.frames.spacing)
    return file.name


def smoothed_planes(tracks: Tracks) -> Iterator[Plane]:
    """Yield planes in which each pixel has the id that most of it and `smooth` planes on each side have there.

    Of equally many its own id stays. Planes with a given mask do not change.
    """
    near: dict[int, Plane] = {}
    count = len(tracks.frames)
    for frame in range(count):
        around = range(
            max(frame - tracks.smooth, 0), min(frame + tracks.smooth + 1, count)
        )
        near = {one: near[one] if one in near else tracks.plane(one) for one in around}
        if tracks.smooth and frame not in tracks.given:
            yield _most_frequent(near[frame], np.stack(list(near.values())))
        else:
            yield near[frame]


def _most_frequent(own: Plane, stack: npt.NDArray[np.uint16]) -> Plane:
    """Return at each pixel the id that most planes (n, H, W) have there; of equally many that of `own` stays."""
    from scipy import ndimage

    chosen = own.copy()
    most = (stack == own).sum(0)
    whole = (slice(None), slice(None), slice(None))
    # a part of the planes with all pixels of a number, of 0 all of them
    for number, place in enumerate([whole, *ndimage.find_objects(stack)]):
        if place is None:  # no plane has the number
            continue
        part = place[1:]
        votes = (stack[:, *part] == number).sum(0)
        has_more = votes > most[part]
        chosen[part][has_more] = number
        most[part] = np.maximum(most[part], votes)
    return chosen


def _write_tiff(
    file: Path, planes: Iterator[Plane], count: int, spacing: Sequence[float] | None
) -> None:
    """Write planes as the pages of a TIFF, as ImageJ reads it where it is not too large for that.

    Args:
        file: the TIFF.
        planes: `count` of (H, W), at least one.
        count: how many there are.
        spacing: mm from plane to plane, row to row and column to column; None if it is not known.
    """
    import tifffile

    first = next(planes)
    shape = count, *first.shape
    is_imagej = 2 * math.prod(shape) < _MAX_IMAGEJ_BYTES
    metadata: dict[str, Any] = {"axes": "ZYX"}
    resolution = None
    if spacing is not None:
        metadata |= {"spacing": spacing[0], "unit": "mm"}
        resolution = (1 / spacing[2], 1 / spacing[1])
    with atomic_path(file) as temporary:
        tifffile.imwrite(
            temporary,
            chain([first], planes),
            shape=shape,
            dtype=np.uint16,
            imagej=is_imagej,
            bigtiff=not is_imagej,
            photometric="minisblack",
            resolution=resolution,
            metadata=metadata,
        )
