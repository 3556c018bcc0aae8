"""Write what was found in an image in the formats a user asks for; label images are written here, as PNG or TIFF."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, OutputError, unknown_name
from simmat.io.files.system import output_errors
from simmat.io.images import write_image
from simmat.io.images.georeference import write_cog
from simmat.io.vectors import require_geo
from simmat.results.coco import MOST_PIXELS, ImageRecords, coco_document, object_records
from simmat.results.overlay import draw_result
from simmat.results.result import BAND_ROWS, ImageResult, label_bands, label_type
from simmat.results.vectors import authority_code, write_geojson, write_geopackage
from simmat.types import Georeference

FORMATS = ("labels", "coco", "geojson", "gpkg", "geotiff", "overlay")
AUTO = "auto"
"""Stands for the formats that suit an image, see `formats_of_image`."""

_LIBRARIES = {"geojson": ("rasterio", "shapely"), "gpkg": ("pyogrio", "rasterio", "shapely"), "geotiff": ("rasterio",)}


def formats_of_image(
    formats: Sequence[str], *, kind: str, georeference: Georeference | None, size_hw: tuple[int, int]
) -> tuple[str, ...]:
    """Return the formats of a result, with "auto" replaced by those that suit the image.

    They are a picture, COCO for objects, and labels; where the image has a place on a map, a GeoTIFF instead of labels,
    and for objects a GeoPackage, if its libraries are installed.
    """
    if AUTO not in formats:
        return tuple(formats)
    chosen = ["labels" if georeference is None else "geotiff", "overlay"]
    if kind == "objects":
        chosen += ["coco"] if math.prod(size_hw) < MOST_PIXELS else []
        chosen += ["gpkg"] if georeference is not None and all(map(find_spec, _LIBRARIES["gpkg"])) else []
    return tuple(name for name in FORMATS if name in chosen or name in formats)


def possible_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Return all formats that "auto" may stand for, with the others."""
    automatic = ("labels", "coco", "gpkg", "geotiff", "overlay") if AUTO in formats else ()
    return tuple(name for name in FORMATS if name in automatic or name in formats)


def check_formats(formats: Sequence[str], *, kind: str) -> None:
    """Check before any work that formats exist, suit "objects" or "classes", and that their libraries are installed."""
    for name in formats:
        if name not in (*FORMATS, AUTO):
            raise unknown_name("format", name, (*FORMATS, AUTO))
    if not formats:
        raise ConfigError(f"no format is named; allowed: {', '.join((*FORMATS, AUTO))}")
    if kind == "classes" and "coco" in formats:
        raise ConfigError("format coco holds objects, not class maps; use labels, geojson, gpkg or geotiff")
    for name in formats:
        require_geo(f"format {name}", *_LIBRARIES.get(name, ()))


def check_place(
    formats: Sequence[str], georeference: Georeference | None, origin: str, size_hw: tuple[int, int] = (1, 1)
) -> None:
    """Raise DataError, before any work, if the formats cannot state where an image is, or count its pixels."""
    if "coco" in formats and math.prod(size_hw) >= MOST_PIXELS:
        raise DataError(
            f"{origin}: {size_hw[1]}x{size_hw[0]} are more pixels than COCO's run lengths can count (2^32); use "
            "--format gpkg or geotiff"
        )
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
    """Write `NAME_objects.tif` or `NAME_classes.tif`, a cloud optimized GeoTIFF; return the file's name."""
    name, of_objects = f"{result.name}_{result.kind}.tif", result.objects is not None
    names = {} if of_objects else {f"class_{value}": text for value, text in sorted(result.class_names.items())}
    write_cog(
        folder / name,
        label_bands(result),
        result.size_hw,
        label_type(result),
        result.georeference,
        description=result.kind,
        nodata=0 if of_objects else result.nodata,
        tags=names,
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


_WRITERS: dict[str, Callable[[ImageResult, Path], str]] = {
    "labels": write_labels,
    "coco": _write_coco,
    "geojson": write_geojson,
    "gpkg": write_geopackage,
    "geotiff": write_geotiff,
    "overlay": _write_overlay,
}
