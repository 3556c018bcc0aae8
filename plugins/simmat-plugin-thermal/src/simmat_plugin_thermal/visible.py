"""Where FLIR's thermal image lies in the picture of the camera's visible lens, as the file states it.

The layout of the records is documented by ExifTool, Image::ExifTool::FLIR.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.reading import read_bytes
from simmat_plugin_thermal.radiometric import (
    MAX_BYTES,
    flir_content,
    flir_records,
    jpeg_segments,
)

TAGS = "Real2IR, OffsetX, OffsetY"
_PICTURE, _PLACE = 14, 42
"""Types of records: the picture of the visible lens, and where the thermal image lies in it."""


@dataclass(frozen=True)
class PlaceInPicture:
    """What FLIR states.

    Attributes:
        ratio: width of the visible picture to that of the thermal view.
        offset_xy: of its centre, in pixels of the picture.
        picture_width: of the picture in the file, in pixels.
    """

    ratio: float
    offset_xy: tuple[int, int]
    picture_width: int

    def matrix(
        self, thermal_hw: tuple[int, int], picture_hw: tuple[int, int]
    ) -> npt.NDArray[np.float64]:
        """Return the (3, 3) matrix from pixels of the thermal image to those of the picture, in any size."""
        scale = picture_hw[1] / self.ratio / thermal_hw[1]
        matrix = np.diag([scale, scale, 1.0])
        for axis in range(2):
            middle = (picture_hw[1 - axis] - 1) / 2
            own_middle = (thermal_hw[1 - axis] - 1) / 2
            offset = self.offset_xy[axis] * picture_hw[1] / self.picture_width
            matrix[axis, 2] = middle + offset - scale * own_middle
        return matrix


def place_in_picture(file: Path) -> PlaceInPicture | None:
    """Return what a radiometric JPEG states; None if it states nothing, or nothing that can be used."""
    try:
        content = read_bytes(file, "JPEG", limit=MAX_BYTES)
        records = flir_content(list(jpeg_segments(content)))
        if not records:
            return None
        found = flir_records(file, records)
        ratio, x, y = struct.unpack_from("<f2h", found[_PLACE])
        (width,) = struct.unpack_from("<H", found[_PICTURE], 2)
    except (DataError, KeyError, struct.error):
        return None
    if not 0.1 < ratio < 10 or width == 0:
        return None
    return PlaceInPicture(ratio, (x, y), width)
