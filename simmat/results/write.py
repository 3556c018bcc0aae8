"""Write what was found in an image in the formats a user asks for; label images are written here, as PNG or TIFF."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, OutputError, unknown_name
from simmat.io.files.system import output_errors
from simmat.io.images import write_image
from simmat.io.vectors import require_geo
from simmat.results.coco import ImageRecords, coco_document, object_records
from simmat.results.overlay import draw_result
from simmat.results.result import BAND_ROWS, ImageResult, label_bands, label_type
from simmat.results.vectors import authority_code, write_geojson, write_geopackage
from simmat.types import Georeference

FORMATS = ("labels", "coco", "geojson", "gpkg", "geotiff", "overlay")

_LIBRARIES = {"geojson": ("rasterio", "shapely"), "gpkg": ("pyogrio", "rasterio", "shapely"), "geotiff": ("rasterio",)}


def check_formats(formats: Sequence[str], *, kind: str) -> None:
    """Check before any work that formats exist, suit "objects" or "classes", and that their libraries are installed."""
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
    if not formats:
        raise ConfigError(f"no format is named; allowed: {', '.join(FORMATS)}")
    if kind == "classes" and "coco" in formats:
        raise ConfigError("format coco holds objects, not class maps; use labels, geojson, gpkg or geotiff")
    for name in formats:
        require_geo(f"format {name}", *_LIBRARIES.get(name, ()))


def check_place(formats: Sequence[str], georeference: Georeference | None, origin: str) -> None:
    """Raise DataError, before any work, if the formats cannot state where an image is."""
    if "geotiff" in formats and georeference is None:
        raise DataError(
            f"{origin}: has no coordinate reference system, so no GeoTIFF can be written; use --format labels, "
            "or give the image a georeference (gdal_edit)"
        )
    if "geojson" in formats and georeference is not None:
        authority_code(georeference, origin)


def write_result(result: ImageResult, formats: Sequence[str], folder: Path) -> list[str]:
    """Write what was found in an image; return the names of the files, in the order of `FORMATS`.

    `folder` exists, such as one of `staged_files`, from which files are moved when all are whole.
    """
    check_formats(formats, kind=result.kind)
    check_place(formats, result.georeference, result.file_name)
    chosen = [name for name in FORMATS if name in formats]
    with output_errors(folder), _gdal_errors(folder):
        return list(dict.fromkeys(_WRITERS[name](result, folder) for name in chosen))


@contextmanager
def _gdal_errors(folder: Path) -> Iterator[None]:
    """Turn errors of rasterio and pyogrio, which write through GDAL, into an OutputError."""
    try:
        yield
    except Exception as error:  # some of their classes are not public
        if type(error).__module__.partition(".")[0] not in ("rasterio", "pyogrio"):
            raise
        raise OutputError(
            f"cannot write to {folder}: {error}; check that the disk has room and that you may write there"
        ) from error


def _write_coco(result: ImageResult, folder: Path) -> str:
    records = ImageRecords(result.file_name, result.size_hw, object_records(result))
    text = json.dumps(coco_document([records], result.class_names), ensure_ascii=False, allow_nan=False)
    name = f"{result.name}_coco.json"
    (folder / name).write_text(text + "\n", encoding="utf-8")
    return name


def _write_overlay(result: ImageResult, folder: Path) -> str:
    name = f"{result.name}_overlay.png"
    draw_result(result).save(folder / name, compress_level=1)  # 10 % larger than by default, in a quarter of the time
    return name


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


_WRITERS: dict[str, Callable[[ImageResult, Path], str]] = {
    "labels": write_labels,
    "coco": _write_coco,
    "geojson": write_geojson,
    "gpkg": write_geopackage,
    "geotiff": write_geotiff,
    "overlay": _write_overlay,
}
