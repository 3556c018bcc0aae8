"""Instance ids or label values as PNG, and as TIFF that is written band by band."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import OutputError
from simmat.io.images import write_image
from simmat.results.result import BAND_ROWS, ImageResult, label_bands, label_type

LARGEST_PNG = 8192
"""Longest side of a PNG in pixels; what is larger becomes a TIFF, of which a viewer reads only a part."""


def write_labels(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.png` or `NAME_classes.png`, .tif where a PNG does not do; return the file's name.

    Instance ids run from 1 by falling score; of objects that overlap the one of higher score is in front.
    """
    dtype = label_type(result)
    if dtype in (np.uint8, np.uint16) and max(result.size_hw) <= LARGEST_PNG:
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


def write_geotiff(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.tif` or `NAME_classes.tif` with coordinate system and nodata; return the file's name."""
    import rasterio

    from simmat.io.images.georeference import placed

    dtype = label_type(result)
    name = f"{result.name}_{result.kind}.tif"
    height, width = result.size_hw
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": dtype.name}
    tiled = {"tiled": True, "blockxsize": BAND_ROWS, "blockysize": BAND_ROWS, "compress": "deflate"}
    nodata = result.nodata if result.objects is None else 0
    with (
        rasterio.Env(GDAL_CACHEMAX=64),  # MB; by default 5 % of the memory
        rasterio.open(
            folder / name, "w", **profile, **tiled, BIGTIFF="IF_SAFER", nodata=nodata, **placed(result.georeference)
        ) as file,
    ):
        file.set_band_description(1, result.kind)
        if result.objects is None:
            file.update_tags(1, **{f"class_{value}": text for value, text in sorted(result.class_names.items())})
        for y0, band in label_bands(result):
            file.write(band.astype(dtype), 1, window=rasterio.windows.Window(0, y0, width, len(band)))
    _check_whole(folder / name)
    return name


def _check_whole(path: Path) -> None:
    """Check that a TIFF holds all its tiles: GDAL reports no error where the disk is full when it closes a file."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0].aspage()
            starts, sizes = np.asarray(page.dataoffsets), np.asarray(page.databytecounts)
        whole = bool((sizes > 0).all() and (starts + sizes).max() <= path.stat().st_size)
    except (tifffile.TiffFileError, LookupError, ValueError):
        whole = False
    if not whole:
        raise OutputError(f"cannot write {path}: the file is cut short; check that the disk has room")


def _tiles(result: ImageResult, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of a TIFF row by row; those at the right and bottom are filled up with 0."""
    for _, band in label_bands(result):
        for x0 in range(0, band.shape[1], BAND_ROWS):
            part = band[:, x0 : x0 + BAND_ROWS]
            tile = np.zeros((BAND_ROWS, BAND_ROWS), dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
