"""Outlines of what was found as GeoJSON and GeoPackage, in the coordinates of the image's map."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.results.polygons import class_outlines, object_outlines
from simmat.results.result import ImageResult
from simmat.types import Georeference

AT_ONCE = 5000
"""Outlines that are held at once."""

PIXELS = (
    "Coordinates are pixels of the image, which has no coordinate reference system: x to the right and y down, 0,0 is "
    "the outer corner of the top-left pixel."
)

_FIELDS = {
    "objects": ("id", "class", "class_name", "score", "class_probability", "area_px", "point"),
    "classes": ("id", "class", "class_name", "area_px"),
}
_NUMBERS = {"id": int, "class": int, "area_px": int, "score": float, "class_probability": float}
_LONGITUDE_LATITUDE = ("EPSG:4326", "OGC:CRS84")


def authority_code(georeference: Georeference, origin: str) -> str:
    """Return a coordinate system as "EPSG:32632", which is all that GeoJSON can state."""
    from rasterio.crs import CRS

    code = CRS.from_user_input(georeference.crs).to_authority()
    if code is None:
        raise DataError(
            f"{origin}: GeoJSON can name only coordinate systems with a code such as EPSG:32632, and that of the image "
            "has none; use --format gpkg"
        )
    return ":".join(code)


def write_geojson(result: ImageResult, folder: Path) -> str:
    """Write `NAME.geojson`; return the file's name.

    A coordinate system other than EPSG:4326 is named by the "crs" member of GeoJSON 2008, which map programs read. It
    is null where the image has none, as that edition says; some programs take longitude and latitude even so.
    """
    name = f"{result.name}.geojson"
    head: dict[str, Any] = {"type": "FeatureCollection", "name": result.name}
    if result.georeference is None:
        head |= {"description": PIXELS, "crs": None}
    elif (code := authority_code(result.georeference, result.file_name)) not in _LONGITUDE_LATITUDE:
        authority, _, number = code.partition(":")
        head["crs"] = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{authority}::{number}"}}
    with (folder / name).open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
        comma = "\n"
        for outlines, rows in _chunks(result):
            for outline, row in zip(outlines, rows, strict=True):
                feature = {"type": "Feature", "properties": row, "geometry": outline.__geo_interface__}
                file.write(comma + json.dumps(feature, ensure_ascii=False, allow_nan=False))
                comma = ",\n"
        file.write("\n]}\n")
    return name


def write_geopackage(result: ImageResult, folder: Path) -> str:
    """Write `NAME.gpkg` with a layer "objects" or "classes"; return the file's name."""
    import shapely
    from pyogrio import raw

    name, place = f"{result.name}.gpkg", result.georeference
    about = {"IDENTIFIER": f"{result.name} {result.kind}", "DESCRIPTION": PIXELS if place is None else ""}
    options: dict[str, Any] = {"layer_options": about}
    fields = _FIELDS[result.kind]
    for outlines, rows in _chunks(result):
        columns = [_column(field, [row[field] for row in rows]) for field in fields]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            raw.write(
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


def _chunks(result: ImageResult) -> Iterator[tuple[npt.NDArray[np.object_], list[dict[str, Any]]]]:
    """Yield outlines in the coordinates of the map with their properties, at least once, `AT_ONCE` at a time."""
    import shapely

    features = enumerate(_features(result), start=1)
    chunk = list(islice(features, AT_ONCE))
    while True:
        outlines = np.empty(len(chunk), object)
        outlines[:] = [outline for _, (outline, _) in chunk]
        if result.georeference is not None:
            outlines = shapely.transform(outlines, result.georeference.to_map)
        rows = [{"id": number} | row for number, (_, row) in chunk]
        yield shapely.orient_polygons(outlines), rows  # the exterior counter-clockwise, by RFC 7946
        if not (chunk := list(islice(features, AT_ONCE))):
            return


def _features(result: ImageResult) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield outlines in pixels with their properties: objects by falling score, or the regions of a class map."""
    if result.objects is None:
        for value, outline in class_outlines(result):
            yield outline, {"class": value, "class_name": result.class_name(value), "area_px": round(outline.area)}
    outlines = object_outlines(found.instance for found in result.ranked)
    for found, outline in zip(result.ranked, outlines, strict=True):
        instance, chance = found.instance, found.class_probability
        yield (
            outline,
            {
                "class": instance.class_id,
                "class_name": result.class_name(instance.class_id),
                "score": round(float(found.score), 6),
                "class_probability": None if chance is None else round(float(chance), 6),
                "area_px": instance.area,
                "point": ",".join(f"{value:.10g}" for value in found.point_xy),
            },
        )


def _column(field: str, values: Sequence[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the values of a field, and True for each that is None."""
    empty = np.asarray([value is None for value in values], np.bool_)
    if field not in _NUMBERS:
        return np.asarray(values, object), empty
    return np.asarray([0 if value is None else value for value in values], _NUMBERS[field]), empty
