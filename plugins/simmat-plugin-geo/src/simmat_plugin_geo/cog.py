"""Write planes of labels and masks as cloud optimized GeoTIFF."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
import tifffile
from rasterio.shutil import copy

from simmat.errors import OutputError
from simmat.types import Georeference
from simmat_plugin_geo.georeference import profile_of, quiet

TILE_PX = 512
"""Side of the tiles in pixels."""


def write_cog(
    path: Path,
    bands: Iterable[tuple[int, npt.NDArray[Any]]],
    size_hw: tuple[int, int],
    dtype: npt.DTypeLike,
    georeference: Georeference | None,
    *,
    description: str,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a plane of labels as a cloud optimized GeoTIFF: deflated tiles, and overviews where it has several.

    A GeoTIFF is written beside it first, and removed: the other is made of a whole one.

    Args:
        path: the file, in a folder that exists.
        bands: first row and (h, W) values of one band of rows after the other.
        tags: metadata of the band.

    Raises:
        OutputError: the file is cut short, as on a full disk.
        Exception: what rasterio raises where it cannot write.
    """
    height, width = size_hw
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": height,
        "width": width,
        "dtype": np.dtype(dtype).name,
    }
    tiled = {
        "tiled": True,
        "blockxsize": TILE_PX,
        "blockysize": TILE_PX,
        "compress": "deflate",
        "nodata": nodata,
    }
    plain = path.with_name(f"{path.name}.plain.tif")
    try:
        # MB; by default 5 % of the memory
        with quiet(), rasterio.Env(GDAL_CACHEMAX=64):
            with rasterio.open(
                plain,
                "w",
                **profile,
                **tiled,
                BIGTIFF="IF_SAFER",
                **profile_of(georeference),
            ) as file:
                file.set_band_description(1, description)
                file.update_tags(1, **tags or {})
                for y0, band in bands:
                    file.write(
                        band.astype(dtype),
                        1,
                        window=rasterio.windows.Window(0, y0, width, len(band)),
                    )
            _check_whole(plain)
            options = {
                "compress": "deflate",
                "blocksize": TILE_PX,
                "BIGTIFF": "IF_SAFER",
            }
            copy(plain, path, driver="COG", overview_resampling="nearest", **options)
        _check_whole(path)
    finally:
        plain.unlink(missing_ok=True)


def _check_whole(path: Path) -> None:
    """Check that a TIFF holds all its tiles: GDAL reports no error where the disk is full when it closes a file."""
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page.aspage() for page in tiff.pages]
            ends = [
                np.add(page.dataoffsets, page.databytecounts).max() for page in pages
            ]
            whole = max(ends) <= path.stat().st_size and all(
                min(page.databytecounts) > 0 for page in pages
            )
    except (tifffile.TiffFileError, LookupError, ValueError):
        whole = False
    if not whole:
        raise OutputError(
            f"cannot write {path}: the file is cut short; check that the disk has room"
        )
