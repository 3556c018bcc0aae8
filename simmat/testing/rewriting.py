"""Other planes in a file that goes on saying what it said: unit, bands, place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.imageio import write_image

_TIFF = (".tif", ".tiff")
_NODATA = 42113  # GDAL_NODATA
_KEPT = (33550, 33922, 34264, 34735, 34736, 34737, 42112)  # OGC GeoTIFF 1.1, GDAL_METADATA


def can_be_rewritten(path: Path) -> bool:
    """True for the formats that keep numbers as they are."""
    return path.suffix.lower() in (*_TIFF, ".png", ".npy")


def rewrite(path: Path, planes: npt.NDArray[Any], *, nodata: float | None = None) -> None:
    """Write other planes over those of a file.

    Args:
        path: the file.
        planes: (P, H, W) of its type.
        nodata: of a TIFF: the number that it calls missing from now on; None leaves what it says.
    """
    if path.suffix.lower() not in _TIFF:
        write_image(path, planes)
        return
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0].aspage()
        kept = [tag for tag in map(page.tags.get, _KEPT if nodata is not None else (*_KEPT, _NODATA)) if tag]
        tags: list[tuple[int, Any, int | None, Any, bool]] = [
            (tag.code, tag.dtype, tag.count, tag.value, True) for tag in kept
        ]
        photometric, interleaved, description = page.photometric, page.axes == "YXS", page.description
    if nodata is not None:
        tags.append((_NODATA, "s", 0, f"{nodata:.17g}", True))
    several = len(planes) > 1
    tifffile.imwrite(
        path,
        np.moveaxis(planes, 0, 2) if interleaved else planes if several else planes[0],
        photometric=photometric,
        planarconfig=("contig" if interleaved else "separate") if several else None,
        description=description or None,
        metadata=None,
        extratags=tags,
    )
