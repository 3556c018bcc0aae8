"""The size of a pixel that a TIFF states in a unit of length, as microscopes write it."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from simmat.errors import DataError
from simmat.io.limits import decoding_errors
from simmat.io.paths import frame_of
from simmat.io.pixel_size import UM_OF_UNIT, ome_length_um
from simmat.io.tiff import TIFF_ENDINGS, open_tifffile


def stated_pixel_size(path: Path) -> tuple[float, float] | None:
    """Return (height, width) of a pixel in µm, as OME or ImageJ wrote it to a TIFF; None if no unit is certain.

    The resolution in dots per inch or cm is not used: most programs write a default there.
    """
    frame = frame_of(path)
    file = path if frame is None else frame.file
    if file.suffix.lower() not in TIFF_ENDINGS or not file.is_file():
        return None
    with (
        suppress(DataError),
        decoding_errors(file, "tiff"),
        open_tifffile(file) as tiff,
    ):
        page = tiff.pages[0].aspage()
        text = str(page.description or "")
        if text.startswith("ImageJ="):
            is_stated = {"XResolution", "YResolution"} <= {
                tag.name for tag in page.tags
            }
            return _of_imagej(text, page.resolution) if is_stated else None
        if "<OME" in text[:1000]:
            return _of_ome(text)
    return None


def _of_ome(text: str) -> tuple[float, float] | None:
    """Return the size in OME-XML."""
    with suppress(ElementTree.ParseError, ValueError):
        for element in ElementTree.fromstring(text).iter():
            if element.tag.rpartition("}")[2] == "Pixels":
                height = ome_length_um(element, "PhysicalSizeY")
                width = ome_length_um(element, "PhysicalSizeX")
                return _positive(height, width)
    return None


def _of_imagej(
    text: str, resolution: tuple[float, float]
) -> tuple[float, float] | None:
    """Return the size of ImageJ, which writes its unit to the description and pixels per unit as the resolution."""
    found = re.search(r"^unit=(.+)$", text, re.MULTILINE)
    if found is None:
        return None
    factor = UM_OF_UNIT.get(found[1].strip(), math.nan)
    x, y = resolution
    if not (x > 0 and y > 0):
        return None
    return _positive(factor / y, factor / x)


def _positive(height: float | None, width: float | None) -> tuple[float, float] | None:
    if height is None or width is None:
        return None
    if not (0 < height < math.inf and 0 < width < math.inf):
        return None
    return height, width
