"""Look at an image file: what it shows, before any sensor reads it."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np

from simmat.io.frames import frame_paths, stack_endings
from simmat.io.images import read_image, window_size
from simmat.types import ImageFile, Window
from simmat_plugin_guess.facts import FileFacts

_WHOLE_PX = 2048
"""Side in pixels above which only the middle of a file is read, where its format allows that."""
_MAX_PLANES_COMPARED = 8
_PATCHES = 0.97
"""Share of neighbouring pixels that are equal in a label image."""
_MAX_LABELS = 1000
_COMMON_SEGMENTS = ("JFIF", "Exif", "ICC_PROFILE", "http", "Photoshop", "Adobe")


def file_facts(path: Path) -> FileFacts:
    """Look at an image file, or at the middle frame of a file of frames.

    Raises:
        DataError: it cannot be read.
    """
    if is_stack(path):
        frames = frame_paths(path, "z")
        path = frames[len(frames) // 2]
    image = read_image(path, window=middle_of(window_size(path)))
    planes = image.planes
    numbers = np.ma.masked_invalid(planes.reshape(len(planes), -1))
    pairs = combinations(range(min(len(planes), _MAX_PLANES_COMPARED)), 2)
    equal = [(a, b) for a, b in pairs if np.array_equal(planes[a], planes[b])]
    return FileFacts(
        path=path,
        format=image.format,
        planes=len(planes),
        dtype=str(planes.dtype),
        size_hw=planes.shape[1:],
        colour=image.colour,
        low=tuple(numbers.min(axis=1).filled(0).tolist()),
        high=tuple(numbers.max(axis=1).filled(0).tolist()),
        zeros=tuple((planes == 0).mean(axis=(1, 2)).tolist()),
        equal=tuple(equal),
        description=image.description,
        nodata=image.nodata,
        scales=image.scales,
        alpha=image.alpha,
        segments=_segments(path) if image.format == "jpeg" else (),
        is_label=_is_label(image),
    )


def middle_of(size_hw: tuple[int, int] | None) -> Window | None:
    """Return the part of a large image that is looked at; None for all of it, also where no part can be read."""
    if size_hw is None or max(size_hw) <= _WHOLE_PX:
        return None
    height, width = (min(side, _WHOLE_PX) for side in size_hw)
    y0 = (size_hw[0] - height) // 2
    x0 = (size_hw[1] - width) // 2
    return Window(y0, x0, y0 + height, x0 + width)


def _segments(path: Path) -> tuple[str, ...]:
    """Return the segments of a JPEG that cameras add, with the text with which each begins, such as "APP1 FLIR"."""
    from PIL.JpegImagePlugin import JpegImageFile

    found = set()
    with JpegImageFile(path) as picture:
        for segment, content in picture.applist:
            text = re.match(rb"[A-Za-z_-]{3,12}(?=[\0:])", content)
            name = text[0].decode() if text else ""
            if segment != "COM" and not name.startswith(_COMMON_SEGMENTS):
                found.add(f"{segment} {name}".strip())
    return tuple(sorted(found))


def _is_label(image: ImageFile) -> bool:
    """Return whether an image looks like a mask: one plane of few whole numbers, in large patches."""
    plane = image.planes[0]
    if len(image.planes) > 1 or image.format == "jpeg" or plane.dtype.kind not in "bui":
        return False
    if not 1 < np.unique(plane).size <= _MAX_LABELS or plane.shape[1] < 2:
        return False
    return float((plane[:, 1:] == plane[:, :-1]).mean()) >= _PATCHES


def is_stack(path: Path) -> bool:
    """Return whether a file is named like one that holds frames."""
    return path.name.lower().endswith(stack_endings())
