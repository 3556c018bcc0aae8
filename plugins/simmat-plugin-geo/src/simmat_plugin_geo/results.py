"""Write what was found as GeoJSON, GeoPackage and GeoTIFF, in the coordinates of the image's map."""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely
from rasterio import Affine, features
from rasterio.crs import CRS
from shapely.geometry import shape

from simmat.data.instances import Instance
from simmat.errors import DataError, OutputError
from simmat.inference import ImageResult, PromptResult, label_bands, label_type
from simmat.measurement import WHOLE_NUMBERS
from simmat.types import ImageReader
from simmat_plugin_geo.cog import write_cog


def object_outline(instance: Instance) -> Any:
    """Return the MultiPolygon of an object; pixels that touch at a corner alone are of two polygons."""
    y0, x0, _, _ = instance.window
    return shapely.multipolygons(
        [outline for _, outline in _outlines(instance.crop, instance.crop, y0, x0)]
    )


def class_outlines(result: ImageResult) -> Iterator[tuple[int, Any]]:
    """Yield value and Polygon of each region of connected pixels of one class, in any order.

    Pixels that touch at a corner alone are not connected. The map is read in bands of rows. Regions that reach into
    more than one band are kept as parts and joined at the end, so memory grows with these outlines, not with the map.
    """
    ignored = sorted(result.ignored_values)
    parts: defaultdict[int, list[Any]] = defaultdict(list)
    for y0, band in label_bands(result):
        y1 = y0 + len(band)
        if (band > np.iinfo(np.int32).max).any():
            raise DataError(
                "the class map has label values above 2^31, for which no polygons can be written; use --format labels"
            )
        for value, outline in _outlines(band, ~np.isin(band, ignored), y0, 0):
            _, top, _, bottom = outline.bounds
            if 0 < top == y0 or bottom == y1 < result.size_hw[0]:
                parts[value].append(outline)
            else:
                yield value, outline
    for value, outlines in parts.items():
        # no corners at bands
        for outline in shapely.get_parts(
            shapely.simplify(shapely.union_all(outlines), 0)
        ):
            yield value, outline


def _outlines(
    values: npt.NDArray[Any], mask: npt.NDArray[np.bool_], y0: int, x0: int
) -> Iterator[tuple[int, Any]]:
    """Yield value and Polygon of the regions of a part of an image whose first pixel is at row y0 and column x0."""
    if mask.any():
        kept = (
            values if values.dtype in (np.uint8, np.uint16) else values.astype(np.int32)
        )
        for outline, value in features.shapes(
            kept, mask, connectivity=4, transform=Affine.translation(x0, y0)
        ):
            yield int(value), shape(outline)


CHUNK = 5000
"""Outlines that are held at once."""

PIXELS = (
    "Coordinates are pixels of the image, which has no coordinate reference system: x to the right and y down, 0,0 is "
    "the outer corner of the top-left pixel."
)

_FIELDS = {
    "objects": (
        "id",
        "class",
        "class_name",
        "score",
        "class_probability",
        "area_px",
        "area_m2",
        "point",
    ),
    "classes": ("id", "class", "class_name", "area_px", "area_m2"),
}
_TEXTS = ("class_name", "point")
_NUMBERS = {
    "id": int,
    "class": int,
    "area_px": int,
    **dict.fromkeys(WHOLE_NUMBERS, int),
}
"""Columns of whole numbers; those of other columns are float."""
_LONGITUDE_LATITUDE = (["EPSG", "4326"], ["OGC", "CRS84"])


def check_crs(image: ImageReader) -> None:
    """Raise DataError for a coordinate system without a code such as EPSG:32632: GeoJSON can state no other."""
    place = image.georeference
    if place is not None and CRS.from_user_input(place.crs).to_authority() is None:
        raise DataError(
            f"{image.origin}: GeoJSON can name only coordinate systems with a code such as EPSG:32632, but the "
            "image's has no code; use --format gpkg"
        )


def write_geojson(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.geojson` or `NAME_classes.geojson`; return the file's name.

    A coordinate system other than EPSG:4326 is named by the "crs" member of GeoJSON 2008, which map programs read. It
    is null where the image has none, as that edition says; some programs take longitude and latitude even so.
    """
    name = f"{result.name}_{result.kind}.geojson"
    head: dict[str, Any] = {"type": "FeatureCollection", "name": result.name}
    if result.georeference is None:
        head |= {"description": PIXELS, "crs": None}
    elif (
        code := [*(CRS.from_user_input(result.georeference.crs).to_authority() or ())]
    ) not in _LONGITUDE_LATITUDE:
        head["crs"] = {
            "type": "name",
            "properties": {"name": f"urn:ogc:def:crs:{code[0]}::{code[1]}"},
        }
    with (folder / name).open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
        comma = "\n"
        for outlines, rows in _chunks(result):
            for outline, row in zip(outlines, rows, strict=True):
                feature = {
                    "type": "Feature",
                    "properties": row,
                    "geometry": outline.__geo_interface__,
                }
                file.write(
                    comma + json.dumps(feature, ensure_ascii=False, allow_nan=False)
                )
                comma = ",\n"
        file.write("\n]}\n")
    return name


def write_geopackage(result: ImageResult, folder: Path) -> str:
    """Write `NAME.gpkg` with a layer "objects" or "classes"; return the file's name."""
    name, place = f"{result.name}.gpkg", result.georeference
    about = {
        "IDENTIFIER": f"{result.name} {result.kind}",
        "DESCRIPTION": PIXELS if place is None else "",
    }
    options: dict[str, Any] = {"layer_options": about}
    fields = list(_FIELDS[result.kind])
    if result.measurements is not None:
        fields += [name for name in result.measurements.columns if name not in fields]
    for outlines, rows in _chunks(result):
        columns = [_column(field, [row[field] for row in rows]) for field in fields]
        with _gdal_errors(folder), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            pyogrio.raw.write(
                folder / name,
                shapely.to_wkb(outlines),
                [values for values, _ in columns],
                fields,
                [empty for _, empty in columns],
                layer=result.kind,
                driver="GPKG",
                geometry_type="Polygon" if result.objects is None else "MultiPolygon",
                crs=None if place is None else place.crs,
                **options,
            )
        options = {"append": True}
    return name


def write_geotiff(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.tif` or `NAME_classes.tif`, a cloud optimized GeoTIFF; return the file's name."""
    name, of_objects = f"{result.name}_{result.kind}.tif", result.objects is not None
    with _gdal_errors(folder):
        write_cog(
            folder / name,
            label_bands(result),
            result.size_hw,
            label_type(result),
            result.georeference,
            description=result.kind,
            nodata=0 if of_objects else result.nodata,
            tags={}
            if of_objects
            else {
                f"class_{value}": text
                for value, text in sorted(result.class_names.items())
            },
        )
    return name


def write_mask(result: PromptResult, folder: Path) -> str:
    """Write `NAME_mask.tif`, a cloud optimized GeoTIFF of one 8-bit band, 1 on the object; return the file's name."""
    name = f"{result.name}_mask.tif"
    height, width = result.mask.shape
    bands = [(0, result.mask)]
    with _gdal_errors(folder):
        write_cog(
            folder / name,
            bands,
            (height, width),
            np.uint8,
            result.georeference,
            description="mask",
        )
    return name


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


def _chunks(
    result: ImageResult,
) -> Iterator[tuple[npt.NDArray[np.object_], list[dict[str, Any]]]]:
    """Yield outlines in the coordinates of the map with their properties, at least once, `CHUNK` at a time."""
    found = _features(result)
    first_id, chunk = 1, list(islice(found, CHUNK))
    while True:
        outlines = np.empty(len(chunk), object)
        outlines[:] = [outline for outline, _ in chunk]
        middles = (
            shapely.get_coordinates(shapely.centroid(outlines))
            if chunk
            else np.zeros((0, 2))
        )
        areas = result.areas_m2(middles, [row["area_px"] for _, row in chunk])
        if result.georeference is not None:
            outlines = shapely.transform(outlines, result.georeference.to_map)
        rows = [
            {"id": number} | row | {"area_m2": area}
            for number, ((_, row), area) in enumerate(
                zip(chunk, areas, strict=True), start=first_id
            )
        ]
        # the exterior counter-clockwise, by RFC 7946
        yield shapely.orient_polygons(outlines), rows
        first_id += CHUNK
        if not (chunk := list(islice(found, CHUNK))):
            return


def _features(result: ImageResult) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield outlines in pixels with their properties: objects by falling score, or the regions of a class map."""
    if result.objects is None:
        for value, outline in class_outlines(result):
            yield (
                outline,
                {
                    "class": value,
                    "class_name": result.class_name(value),
                    "area_px": round(outline.area),
                },
            )
    for index, found in enumerate(result.ranked):
        point = ",".join(f"{value:.10g}" for value in found.point_xy)
        row = {**result.record(found), "area_px": found.instance.area, "point": point}
        if result.measurements is not None:
            row |= result.measurements.row(index)
        yield object_outline(found.instance), row


def _column(
    field: str, values: Sequence[Any]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the values of a field, and True for each that is None."""
    empty = np.asarray([value is None for value in values], np.bool_)
    if field in _TEXTS:
        return np.asarray(values, object), empty
    numbers = [0 if value is None else value for value in values]
    return np.asarray(numbers, _NUMBERS.get(field, float)), empty
