"""Outlines of what was found as GeoJSON and GeoPackage, in the coordinates of the image's map."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.inference.geotiff import gdal_errors
from simmat.inference.result import ImageResult, label_bands
from simmat.types import Georeference

if TYPE_CHECKING:
    from simmat.data.instances import Instance
    from simmat.predictor.reading import ImageReader

AT_ONCE = 5000
"""Outlines that are held at once."""

PIXELS = (
    "Coordinates are pixels of the image, which has no coordinate reference system: x to the right and y down, 0,0 is "
    "the outer corner of the top-left pixel."
)

_FIELDS = {
    "objects": ("id", "class", "class_name", "score", "class_probability", "area_px", "area_m2", "point"),
    "classes": ("id", "class", "class_name", "area_px", "area_m2"),
}
_NUMBERS = {"id": int, "class": int, "area_px": int, "area_m2": float, "score": float, "class_probability": float}
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


def check_crs(image: ImageReader) -> None:
    """Raise DataError for an image whose coordinate system has no code, see `authority_code`."""
    if image.georeference is not None:
        authority_code(image.georeference, image.origin)


def write_geojson(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.geojson` or `NAME_classes.geojson`; return the file's name.

    A coordinate system other than EPSG:4326 is named by the "crs" member of GeoJSON 2008, which map programs read. It
    is null where the image has none, as that edition says; some programs take longitude and latitude even so.
    """
    name = f"{result.name}_{result.kind}.geojson"
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
        with warnings.catch_warnings(), gdal_errors(folder):
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
        middles = shapely.get_coordinates(shapely.centroid(outlines)) if chunk else np.zeros((0, 2))
        areas = result.areas_m2(middles, [row["area_px"] for _, (_, row) in chunk])
        if result.georeference is not None:
            outlines = shapely.transform(outlines, result.georeference.to_map)
        rows = [{"id": number} | row | {"area_m2": area} for (number, (_, row)), area in zip(chunk, areas, strict=True)]
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
        point = ",".join(f"{value:.10g}" for value in found.point_xy)
        yield outline, {**result.record(found), "area_px": found.instance.area, "point": point}


def _column(field: str, values: Sequence[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the values of a field, and True for each that is None."""
    empty = np.asarray([value is None for value in values], np.bool_)
    if field not in _NUMBERS:
        return np.asarray(values, object), empty
    return np.asarray([0 if value is None else value for value in values], _NUMBERS[field]), empty


_SHEET_WIDTH = 4096
"""Columns of objects that are outlined at once, fewer than 2^16."""


def object_outlines(instances: Iterable[Instance]) -> Iterator[Any]:
    """Yield the shapely MultiPolygon of each object; pixels that touch at a corner alone are of two polygons."""
    row: list[Instance] = []
    width = 0
    for instance in instances:
        if row and width + instance.crop.shape[1] > _SHEET_WIDTH:
            yield from _outlined(row)
            row, width = [], 0
        row.append(instance)
        width += instance.crop.shape[1]
    yield from _outlined(row)


def _outlined(instances: Sequence[Instance]) -> list[Any]:
    """Return the outlines of objects, with their crops laid side by side: one call for all is several times faster."""
    import shapely
    from rasterio import features

    lefts = np.cumsum([0, *(instance.crop.shape[1] for instance in instances)]).tolist()
    sheet = np.zeros((max((len(instance.crop) for instance in instances), default=0), lefts[-1]), np.uint16)
    for number, instance in enumerate(instances, start=1):
        sheet[: len(instance.crop), lefts[number - 1] : lefts[number]][instance.crop] = number
    polygons: list[list[Any]] = [[] for _ in instances]
    for outline, value in features.shapes(sheet, mask=sheet > 0, connectivity=4) if sheet.size else ():
        index = int(value) - 1
        y0, x0, _, _ = instances[index].window
        move = np.asarray([x0 - lefts[index], y0])
        shell, *holes = (np.asarray(ring) + move for ring in outline["coordinates"])
        polygons[index].append(shapely.Polygon(shell, holes))
    return [shapely.multipolygons(found) for found in polygons]


def class_outlines(result: ImageResult) -> Iterator[tuple[int, Any]]:
    """Yield value and shapely Polygon of each region of connected pixels of one class, in any order.

    Pixels that touch at a corner alone are not connected. The map is read in bands of rows. Regions that reach into
    more than one band are kept as parts and joined at the end, so memory grows with these outlines, not with the map.
    """
    import shapely
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unseen = sorted(result.unseen)
    height, width = result.size_hw
    parts: list[tuple[int, Any]] = []
    pairs: list[npt.NDArray[np.int64]] = []
    above = np.full(width, -1)  # the part at each pixel of the last row of the band above
    for y0, band in label_bands(result):
        y1 = y0 + len(band)
        top, bottom = np.full(width, -1), np.full(width, -1)
        for value, outline in _band_outlines(band, y0, unseen):
            _, first, _, last = shapely.bounds(outline).tolist()
            at_top, at_bottom = first == y0 > 0, last == y1 < height
            if not at_top and not at_bottom:
                yield value, outline
                continue
            if at_top:
                _mark(top, outline, y0, len(parts))
            if at_bottom:
                _mark(bottom, outline, y1, len(parts))
            parts.append((value, outline))
        values = np.asarray([value for value, _ in parts], np.int64)
        touching = (above >= 0) & (top >= 0)
        touching[touching] = values[above[touching]] == values[top[touching]]
        pairs.append(np.unique(np.stack([above[touching], top[touching]], axis=1), axis=0))
        above = bottom
    links = np.concatenate(pairs).astype(np.int32)  # (L, 2) parts that share an edge; older scipy takes no wider type
    graph = coo_array((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(len(parts), len(parts)))
    count, groups = connected_components(graph, directed=False)
    order = np.argsort(groups, kind="stable")
    for members in np.split(order, np.searchsorted(groups[order], np.arange(1, count))) if parts else []:
        value = parts[members[0]][0]
        joined = shapely.union_all([parts[index][1] for index in members])
        for outline in shapely.get_parts(shapely.simplify(joined, 0)):  # no corners where bands met
            yield value, outline


def _band_outlines(band: npt.NDArray[Any], y0: int, unseen: list[int]) -> Iterator[tuple[int, Any]]:
    """Yield (value, Polygon) of the regions of a band that starts at row y0."""
    from rasterio import features, transform
    from shapely.geometry import shape

    seen = ~np.isin(band, unseen)
    if not seen.any():
        return
    values = band if band.dtype in (np.uint8, np.uint16) else band.astype(np.int32)
    if (values != band).any():
        raise DataError("the class map has label values above 2^31, which have no polygons; use --format labels")
    place = transform.Affine.translation(0, y0)
    for outline, value in features.shapes(values, mask=seen, connectivity=4, transform=place):
        yield int(value), shape(outline)


def _mark(row: npt.NDArray[np.int64], outline: Any, y: int, number: int) -> None:
    """Write a number to the (W,) pixels of a row along which an outline runs at height y."""
    import shapely

    corners, rings = shapely.get_coordinates(shapely.get_rings(outline), return_index=True)
    along = (corners[:-1, 1] == y) & (corners[1:, 1] == y) & (rings[:-1] == rings[1:])
    for one, other in zip(corners[:-1][along, 0].tolist(), corners[1:][along, 0].tolist(), strict=True):
        row[int(min(one, other)) : int(max(one, other))] = number
