"""Instance ids and class maps as label images, PNG or TIFF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.inference.result import BAND_ROWS, ImageResult, label_bands, label_type
from simmat.io.images import write_image

MAX_PNG_SIDE = 8192
"""Longest side of a PNG in pixels; what is larger becomes a TIFF, of which a viewer reads only a part."""


def write_labels(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.png` or `NAME_classes.png`, .tif where a PNG does not do; return the file's name.

    Instance ids run from 1 by falling score; of objects that overlap the one of higher score is in front.
    """
    dtype = label_type(result)
    if dtype in (np.uint8, np.uint16) and max(result.size_hw) <= MAX_PNG_SIDE:
        plane = np.concatenate([band.astype(dtype) for _, band in label_bands(result)])
        name = f"{result.name}_{result.kind}.png"
        write_image(folder / name, plane[None])
        return name
    import tifffile

    name = f"{result.name}_{result.kind}.tif"
    tifffile.imwrite(
        folder / name,
        _tiles(result, dtype),
        shape=result.size_hw,
        dtype=dtype,
        tile=(BAND_ROWS, BAND_ROWS),
        photometric="minisblack",
        compression="zlib",
        metadata=None,  # with `software`: no date and version, so equal results give equal bytes
        software=False,
    )
    return name


def _tiles(result: ImageResult, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of a TIFF row by row; those at the right and bottom are filled up with 0."""
    for _, band in label_bands(result):
        for x0 in range(0, band.shape[1], BAND_ROWS):
            part = band[:, x0 : x0 + BAND_ROWS]
            tile = np.zeros((BAND_ROWS, BAND_ROWS), dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
