"""Write what was found in an image in the formats a user asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from simmat.errors import ConfigError, DataError, OutputError, unknown_name
from simmat.io.files.system import output_errors
from simmat.io.vectors import require_geo
from simmat.results.coco import ImageRecords, coco_document, object_records
from simmat.results.labels import write_geotiff, write_labels
from simmat.results.overlay import draw_result
from simmat.results.result import ImageResult
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


_WRITERS: dict[str, Callable[[ImageResult, Path], str]] = {
    "labels": write_labels,
    "coco": _write_coco,
    "geojson": write_geojson,
    "gpkg": write_geopackage,
    "geotiff": write_geotiff,
    "overlay": _write_overlay,
}
