"""Where a camera says that it looks: tags of MicaSense and DJI, and what sensors state, as a start for the search.

XMP tags `Camera:…` are specified by Pix4D, `drone-dji:CalibratedHMatrix` by DJI's Mavic 3M Image Processing Guide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import ExifTags, Image

from simmat.io.xmp import read_xmp
from simmat.sensors.adapter import ModalityAdapter, PathsBySource
from simmat_plugin_align.features import Matrix

_MM_OF_UNIT = {2: 25.4, 3: 10.0, 4: 1.0}
"""Millimetres of the unit that the EXIF tag FocalPlaneResolutionUnit names: inch, cm, mm."""
_MAX_TILT = 0.5
"""Largest change of scale within half of an image that is believed."""


@dataclass(frozen=True)
class CameraStart:
    """What tags say of two cameras.

    Attributes:
        tags: which tags, for people.
        matrix: (3, 3), from pixels of the first camera to those of the second.
    """

    tags: str
    matrix: Matrix


@runtime_checkable
class StatesPlace(Protocol):
    """A sensor whose files may state where their image lies in that of a camera beside it."""

    def stated_place(
        self,
        files: PathsBySource,
        size_hw: tuple[int, int],
        other_hw: tuple[int, int],
    ) -> tuple[str, Matrix] | None:
        """Return it, or None if the files do not state it.

        Args:
            files: those of the image.
            size_hw: (height, width) of the image in pixels.
            other_hw: (height, width) of the image of the other camera.

        Returns:
            The names of the tags that state it, and the (3, 3) matrix from homogeneous xy pixels of this image to those
            of the other one; the centre of the top-left pixel is (0, 0).
        """


@dataclass(frozen=True)
class CameraFile:
    """A file of a camera.

    Attributes:
        sensor: the adapter that reads it.
        file: the file.
        size_hw: (height, width) of its image in pixels.
    """

    sensor: ModalityAdapter
    file: Path
    size_hw: tuple[int, int]

    def stated_place(self, other_hw: tuple[int, int]) -> CameraStart | None:
        """Return where the image lies in that of another camera, if the file states it."""
        if not isinstance(self.sensor, StatesPlace):
            return None
        files = {self.sensor.sources[0].name: self.file}
        found = self.sensor.stated_place(files, self.size_hw, other_hw)
        if found is None:
            return None
        return CameraStart(found[0], np.asarray(found[1], np.float64))


def camera_start(first: CameraFile, second: CameraFile) -> CameraStart | None:
    """Return what the files of two cameras say; None if they say nothing, or nothing that can be used."""
    for one, other in ((first, second), (second, first)):
        stated = one.stated_place(other.size_hw)
        if stated is None or not _is_plausible(stated.matrix, one.size_hw):
            continue
        matrix = stated.matrix
        if one is second:
            matrix = np.asarray(np.linalg.inv(matrix), np.float64)
        return CameraStart(stated.tags, matrix / matrix[2, 2])
    for tags, read in _KINDS.items():
        try:
            found = read(first.file, second.file)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            continue
        if found is not None and _is_plausible(found, first.size_hw):
            return CameraStart(tags, found / found[2, 2])
    return None


def _is_plausible(matrix: Matrix, first_hw: tuple[int, int]) -> bool:
    """Return whether a matrix maps the first image without a fold."""
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return False
    height, width = first_hw
    corners = [(x, y, 1.0) for x in (0, width - 1) for y in (0, height - 1)]
    depths = matrix[2] @ np.transpose(corners)
    middle = float(depths.mean())
    if middle == 0 or np.abs(depths / middle - 1).max() > _MAX_TILT:
        return False
    return bool(np.linalg.det(matrix / middle) > 0)


def _of_dji(first: Path, second: Path) -> Matrix | None:
    """Combine the matrices from the pixels of each camera to those of one ideal plane."""
    to_plane = []
    for file in (first, second):
        numbers = _numbers(read_xmp(file), "CalibratedHMatrix", 9)
        if numbers is None:
            return None
        to_plane.append(numbers.reshape(3, 3))
    if abs(np.linalg.det(to_plane[1])) < 1e-9:
        return None
    return np.asarray(np.linalg.inv(to_plane[1]) @ to_plane[0])


def _of_rig(first: Path, second: Path) -> Matrix | None:
    """Combine the lens and the rotation of each camera; a far scene has no parallax."""
    lenses = []
    rotations = []
    for file in (first, second):
        xmp = read_xmp(file)
        angles_deg = _numbers(xmp, "RigRelatives", 3)
        centre_mm = _numbers(xmp, "PrincipalPoint", 2)
        focal_mm = _numbers(xmp, "PerspectiveFocalLength", 1)
        pixels_per_mm = _pixels_per_mm(file)
        if angles_deg is None or centre_mm is None:
            return None
        if focal_mm is None or pixels_per_mm is None:
            return None
        lens = np.eye(3)
        lens[[0, 1], [0, 1]] = focal_mm[0] * pixels_per_mm
        # the middle of the first pixel is at 0, 0
        lens[:2, 2] = centre_mm * pixels_per_mm - 0.5
        lenses.append(lens)
        rotations.append(_rotation(angles_deg))
    if np.linalg.det(lenses[0]) == 0:
        return None
    turn = rotations[1].T @ rotations[0]
    return np.asarray(lenses[1] @ turn @ np.linalg.inv(lenses[0]))


def _rotation(angles_deg: Matrix) -> Matrix:
    """Return the rotation from a camera to the reference of its rig: about x, y and z in this order."""
    turn = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(angles_deg)):
        one, other = [number for number in range(3) if number != axis]
        about = np.eye(3)
        about[[one, other], [one, other]] = np.cos(angle)
        sine = np.sin(angle) if axis != 1 else -np.sin(angle)
        about[one, other], about[other, one] = -sine, sine
        turn = turn @ about
    return turn


_KINDS: Mapping[
    str,
    Callable[[Path, Path], Matrix | None],
] = {
    "CalibratedHMatrix": _of_dji,
    "RigRelatives": _of_rig,
}
"""Tags -> the function that reads them."""


def _numbers(xmp: Mapping[str, str], name: str, count: int) -> Matrix | None:
    """Return the numbers of a tag; None if it is missing or has another number of them."""
    if name not in xmp:
        return None
    numbers = np.asarray([float(part) for part in xmp[name].split(",")])
    if len(numbers) != count or not np.isfinite(numbers).all():
        return None
    return numbers


def _pixels_per_mm(file: Path) -> Matrix | None:
    """Return the pixels on a millimetre of the sensor along x and y; None if the file does not say."""
    with Image.open(file) as image:
        exif = image.getexif().get_ifd(ExifTags.IFD.Exif)
    tags = ExifTags.Base
    unit_mm = _MM_OF_UNIT.get(exif.get(tags.FocalPlaneResolutionUnit, 2))
    x = exif.get(tags.FocalPlaneXResolution)
    y = exif.get(tags.FocalPlaneYResolution)
    if unit_mm is None or not x or not y:
        return None
    return np.asarray([float(x), float(y)]) / unit_mm
