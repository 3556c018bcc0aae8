"""Georeferences of GeoTIFF files, through rasterio, which is imported on use.

The core does not depend on rasterio; sensors with georeferenced files do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from simmat.errors import DataError
from simmat.io.files import atomic_path
from simmat.io.images.limits import damaged
from simmat.io.images.tiff import file_state, opened
from simmat.types import BoolArray, Georeference, Window

_GEO_KEYS = 34735  # GeoKeyDirectoryTag, OGC GeoTIFF 1.1: present with a coordinate system


def read_georeference(path: Path, window: Window | None = None) -> Georeference | None:
    """Return the georeference of an image file, or of its part in a window.

    It is None if the file is not a TIFF, or states no coordinate system and affine grid, or rasterio is not installed.

    Raises:
        DataError: the file is damaged.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    if window is None:
        return _read_georeference(path)
    place = _remembered(path, file_state(path))
    return None if place is None else place.shifted(window.y0, window.x0)


@lru_cache(maxsize=4)
def _remembered(path: Path, _state: tuple[int, ...]) -> Georeference | None:
    """Read it once for all windows of a file."""
    return _read_georeference(path)


def _read_georeference(path: Path) -> Georeference | None:
    with damaged(path, "tiff"), opened(path) as tiff:  # rasterio takes long to import, and most TIFFs have no place
        if _GEO_KEYS not in tiff.pages[0].aspage().tags:
            return None
    if find_spec("rasterio") is None:
        return None
    try:
        with quiet(), open_geotiff(path) as file:
            return georeference_of(file)
    except DataError:
        raise
    except Exception as error:  # GDAL's own errors are of no public class
        raise DataError(f"{path}: its georeference cannot be read ({error})") from error


def open_geotiff(path: Path) -> Any:
    """Open a GeoTIFF with rasterio, and no other file, now or when it is read.

    GDAL would open what stands beside it (.aux.xml, .msk, .ovr, .tfw) in any of its formats, and by a VRT or a URL any
    file or server. Call `quiet` around it.

    Raises:
        DataError: the file names another file as its overview.
    """
    import rasterio

    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"):
        file = rasterio.open(path.absolute(), driver="GTiff")  # a relative one may start as an address of GDAL
    if elsewhere := file.tags(ns="OVERVIEWS").get("OVERVIEW_FILE"):
        raise DataError(f"{path}: names another file, {elsewhere!r}, as its overview; write it with overviews inside")
    return file


def georeference_of(file: Any) -> Georeference | None:
    """Return the georeference of an open rasterio dataset; None without coordinate system or affine grid."""
    if file.crs is None or file.transform.is_identity or not np.isfinite(file.transform).all():
        return None
    code = file.crs.to_epsg()
    a, b, c, d, e, f = tuple(file.transform)[:6]
    return Georeference(f"EPSG:{code}" if code else file.crs.to_wkt(), (a, b, c, d, e, f))


def placed(georeference: Georeference | None) -> dict[str, Any]:
    """Return the arguments of `rasterio.open` that write a georeference."""
    if georeference is None:
        return {}
    import rasterio

    return {
        "crs": rasterio.crs.CRS.from_user_input(georeference.crs),
        "transform": rasterio.Affine(*georeference.transform),
    }


def write_mask(mask: BoolArray, georeference: Georeference, path: Path) -> Path:
    """Write a mask as a georeferenced GeoTIFF of one 8-bit band, 1 inside and 0 outside.

    It is for `ModalityAdapter.save_mask`.

    Args:
        mask: (H, W).
        georeference: georeference of its pixels.
        path: without ending.

    Returns:
        `path`.tif.

    Raises:
        OutputError: the file cannot be written.
    """
    import rasterio

    target = path.with_name(f"{path.name}.tif")
    height, width = mask.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "compress": "deflate", "count": 1, "height": height, "width": width}
    with (
        atomic_path(target) as temporary,
        quiet(),
        rasterio.open(temporary, "w", **profile, **placed(georeference)) as file,
    ):
        file.write(mask[None].astype(np.uint8))
        file.set_band_description(1, "mask")
    return target


@contextmanager
def quiet() -> Iterator[None]:
    """Silence two of rasterio's warnings.

    Files without a georeference are normal here, and where a nodata value hides an alpha band from GDAL's mask, the
    reader looks at both.
    """
    from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        yield
