"""Georeferences of GeoTIFF files, through rasterio, which is imported on use.

The core does not depend on rasterio; sensors with georeferenced files do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError, OutputError
from simmat.io.files import atomic_path
from simmat.io.images.limits import damaged
from simmat.io.images.tiff import file_state, opened
from simmat.types import BoolArray, Georeference, Window

COG_TILE = 512
"""Side of the tiles of a written GeoTIFF in pixels."""
_EQUATOR_M, _ECCENTRICITY = 6378137.0, 0.0818191908426215  # of WGS 84, NIMA TR8350.2
_STEP = 8.0  # pixels; less would be lost in the digits of degrees
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
    check_overviews(file, str(path))
    return file


def check_overviews(file: Any, origin: str) -> None:
    """Raise DataError for an open rasterio dataset that names another file as its overview, which GDAL would open."""
    if elsewhere := file.tags(ns="OVERVIEWS").get("OVERVIEW_FILE"):
        raise DataError(f"{origin}: names another file, {elsewhere!r}, as its overview; write it with overviews inside")


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
    import rasterio
    from rasterio.shutil import copy

    height, width = size_hw
    profile = {"driver": "GTiff", "count": 1, "height": height, "width": width, "dtype": np.dtype(dtype).name}
    tiled = {"tiled": True, "blockxsize": COG_TILE, "blockysize": COG_TILE, "compress": "deflate", "nodata": nodata}
    plain = path.with_name(f"{path.name}.plain.tif")
    try:
        with quiet(), rasterio.Env(GDAL_CACHEMAX=64):  # MB; by default 5 % of the memory
            with rasterio.open(plain, "w", **profile, **tiled, BIGTIFF="IF_SAFER", **placed(georeference)) as file:
                file.set_band_description(1, description)
                file.update_tags(1, **tags or {})
                for y0, band in bands:
                    file.write(band.astype(dtype), 1, window=rasterio.windows.Window(0, y0, width, len(band)))
            _check_whole(plain)
            options = {"compress": "deflate", "blocksize": COG_TILE, "BIGTIFF": "IF_SAFER"}
            copy(plain, path, driver="COG", overview_resampling="nearest", **options)
        _check_whole(path)
    finally:
        plain.unlink(missing_ok=True)


def _check_whole(path: Path) -> None:
    """Check that a TIFF holds all its tiles: GDAL reports no error where the disk is full when it closes a file."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page.aspage() for page in tiff.pages]
            starts, sizes = (
                np.concatenate([np.asarray(getattr(page, name)) for page in pages])
                for name in ("dataoffsets", "databytecounts")
            )
        whole = bool((sizes > 0).all() and (starts + sizes).max() <= path.stat().st_size)
    except (tifffile.TiffFileError, LookupError, ValueError):
        whole = False
    if not whole:
        raise OutputError(f"cannot write {path}: the file is cut short; check that the disk has room")


PixelAreas = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Maps (N, 2) xy in pixels to the (N,) area of a pixel there, in m²."""

_MOST_STRETCHED = 0.01
"""How much an area may differ in a map and on the earth, to be that of the map, as other map programs give it."""


def pixel_areas(georeference: Georeference, size_hw: tuple[int, int]) -> PixelAreas | None:
    """Return the areas of an image's pixels; None if its coordinate system is not one of the earth.

    They are those of the map, where it is true to area within 1 % in the middle of the image, as UTM is. For degrees,
    and for maps that stretch areas, as Web Mercator does, they are those on the ellipsoid of WGS 84.
    """
    import rasterio
    from rasterio.crs import CRS
    from rasterio.warp import transform

    crs = CRS.from_user_input(georeference.crs)

    def on_ellipsoid(points_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        steps = np.array([[-_STEP, 0], [_STEP, 0], [0, -_STEP], [0, _STEP], [0, 0]], np.float64)
        places = georeference.to_map(points_xy[:, None] + steps).reshape(-1, 2)  # (N * 5, 2)
        degrees = np.stack(transform(crs, "EPSG:4326", places[:, 0], places[:, 1]), axis=1)
        left, right, above, below, here = np.radians(degrees).reshape(-1, 5, 2).transpose(1, 0, 2)
        (along_x, along_y) = (right - left) / (2 * _STEP), (below - above) / (2 * _STEP)  # (N, 2) of a pixel
        squared = 1 - _ECCENTRICITY**2 * np.sin(here[:, 1]) ** 2
        metres_squared = _EQUATOR_M**2 * (1 - _ECCENTRICITY**2) / squared**2 * np.cos(here[:, 1])
        return np.asarray(np.abs(along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0]) * metres_squared)

    with rasterio.Env():
        try:
            middle = float(on_ellipsoid(np.array([[size_hw[1] / 2, size_hw[0] / 2]]))[0])
        except Exception:  # GDAL's own errors are of no public class
            return None
    if not (math.isfinite(middle) and middle > 0):
        return None
    a, b, _, d, e, _ = georeference.transform
    in_map = abs(a * e - b * d) * crs.linear_units_factor[1] ** 2 if crs.is_projected else math.inf
    if abs(in_map / middle - 1) <= _MOST_STRETCHED:
        return lambda points_xy: np.full(len(points_xy), in_map)
    return on_ellipsoid


def write_mask(mask: BoolArray, georeference: Georeference, path: Path) -> Path:
    """Write a mask as a cloud optimized GeoTIFF of one 8-bit band, 1 inside and 0 outside.

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
    target = path.with_name(f"{path.name}.tif")
    size_hw = int(mask.shape[0]), int(mask.shape[1])
    with atomic_path(target) as temporary:
        write_cog(temporary, [(0, mask)], size_hw, np.uint8, georeference, description="mask")
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
