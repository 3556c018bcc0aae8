"""The image files that labels name: where they are, and how large."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import ExifTags, Image

from simmat.data.samples import SPLITS, split_meant
from simmat.errors import DataError
from simmat.io.images import image_size
from simmat.sensors.adapter import ModalityAdapter, load_sample

_SAME_SIZE = ("raster", "gray", "rgb")
"""Sensors whose images have the size in the header of the file."""


def size_of(adapter: ModalityAdapter, files: Mapping[str, Path]) -> tuple[int, int]:
    """Return (height, width) of an image, which is decoded only if the header of its file does not give it.

    Raises:
        SimMATError: the image cannot be read.
    """
    size_hw = adapter.window_size(files)
    if size_hw is not None:
        return size_hw
    if adapter.name in _SAME_SIZE:
        return image_size(next(iter(files.values())))
    return load_sample(adapter, files).size_hw


def check_upright(files: Mapping[str, Path]) -> None:
    """Check that the reference image has no EXIF rotation: LabelMe, CVAT and Ultralytics apply it, SimMAT does not.

    Raises:
        DataError: it has one, so the labels would be misplaced.
    """
    path = next(iter(files.values()))
    try:
        with Image.open(path) as picture:
            # looking for one would decode the image
            has_none = picture.format == "PNG" and "exif" not in picture.info
            turn = (
                1 if has_none else picture.getexif().get(ExifTags.Base.Orientation, 1)
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return  # not an image file that these tools can open
    if turn != 1:
        raise DataError(
            f"{path}: its EXIF orientation is {turn}, by which LabelMe, CVAT and Ultralytics rotate the image, but "
            "SimMAT reads it as stored; save the image upright, without this tag, and label the new file"
        )


def find_image(
    root: Path, names: Sequence[str], adapter: ModalityAdapter
) -> dict[str, Path] | str:
    """Return source -> file for the first of the relative paths that exists, or a description of the problem.

    Args:
        root: folder that must contain the file.
        names: relative paths, with "/" between folders.
        adapter: the sensor; only its first source is looked for.
    """
    for name in names:
        if (clean := path_inside(name)) is None:
            return f"{name!r} is outside of {root}; move the file into the folder"
        path = root / clean
        if os.path.isfile(path):  # False also for a name that is too long
            source = adapter.sources[0]
            if not clean.lower().endswith(source.extensions):
                return (
                    f"{name!r} is not an image of {adapter.name!r} ({', '.join(source.extensions)}); name its sensor "
                    "with --modality"
                )
            return {source.name: path}
    return f"{names[0]!r}: no such image in {root}"


def path_inside(name: str) -> str | None:
    """Return a relative path in its shortest form, with "/" between folders; None if it leads out of its folder."""
    clean = posixpath.normpath(name.replace("\\", "/"))
    outside = (
        posixpath.isabs(clean)
        or clean == ".."
        or clean.startswith("../")
        or ":" in clean[:2]
        or "\0" in clean
    )
    return None if outside else clean


def stem_of(path: str) -> str:
    """Return a relative path without its ending."""
    return posixpath.splitext(path)[0]


def split_of_name(text: str) -> str:
    """Return the split for the word of a format ("valid", "Train"), or ""."""
    return text if text in SPLITS else split_meant(text) or ""
