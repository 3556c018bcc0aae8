"""Read features in map coordinates: GeoPackage, GeoJSON and shapefile, through pyogrio and shapely, imported on use."""

from __future__ import annotations

import json
import mmap
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, did_you_mean, shortened
from simmat.io.files import require_file

NEEDED = ("pyogrio", "rasterio", "shapely")
"""Packages of the extra "geo"."""

_STARTS = {".geojson": b"{", ".gpkg": b"SQLite format 3\0", ".shp": b"\0\0\x27\x0a", ".fgb": b"fgb\3fgb"}
"""Ending -> first bytes. GDAL would open files of any other format too, some of which name further files."""
_PERHAPS_ADDRESS = re.compile(rb"http|\\u00[4-7]", re.IGNORECASE)
"""What json with the address of a server contains, perhaps with letters as escapes."""
_PLAIN_TABLE = re.compile(
    r"\s*CREATE\s+(TABLE|VIEW|(UNIQUE\s+)?INDEX|TRIGGER|VIRTUAL\s+TABLE\s+(\"rtree_[^\"]*\"|rtree_\w+)\s+USING\s+rtree)\b",
    re.IGNORECASE,
)
"""What makes a table of SQLite that holds its own rows, a view, or a spatial index."""
_BESIDE = (".dbf", ".shx", ".prj", ".cpg")
"""Endings of the files of a shapefile that decide what it says."""
_MOST_DEGREES = (540.0, 90.01)
"""Largest longitude and latitude: some files count across the date line, and rounding may pass the pole."""
_SURFACES = (3, 6)  # shapely's numbers of Polygon and MultiPolygon


@dataclass(frozen=True)
class Polygons:
    """The polygons of a file.

    Attributes:
        shapes: (N,) polygons and multipolygons of shapely, in the order of the file.
        crs: coordinate reference system as "EPSG:n" or WKT; None if the file states none.
        values: values of an attribute as text, None where a polygon has none; without an attribute N times None.
    """

    shapes: npt.NDArray[np.object_]
    crs: str | None
    values: tuple[str | None, ...]


def require_geo(what: str, *packages: str) -> None:
    """Raise ConfigError if packages of the extra "geo" are missing; `what` needs them."""
    if lacking := [name for name in packages if find_spec(name) is None]:
        raise ConfigError(f"{what} needs {', '.join(lacking)}, not installed here: pip install 'simmat[geo]'")


def files_of(path: str) -> tuple[Path, ...]:
    """Return the files that belong to one name: of a shapefile the .shp and what lies beside it, else the file."""
    main = Path(path)
    if main.suffix.lower() != ".shp":
        return (main,)
    beside = (main.with_suffix(ending) for known in _BESIDE for ending in (known, known.upper()))
    return (main, *(file for file in beside if file.exists()))


def read_polygons(path: Path, attribute: str | None = None) -> Polygons:
    """Read the polygons of a file of one layer, and one of their attributes.

    Empty geometries are left out.

    Raises:
        ConfigError: the packages are not installed, or there is no such attribute; the message lists those there are.
        DataError: the file cannot be read, has several layers, or holds points or lines; or its degrees are none.
    """
    import shapely

    layer = one_layer(path, "polygons")
    if attribute is not None:
        _check_attribute(path, layer, attribute)
    found = read_features(path, layer, None if attribute is None else [attribute])
    if found.crs == "EPSG:4326" and len(found.shapes):
        _check_degrees(path, shapely.total_bounds(found.shapes).tolist())
    kinds = shapely.get_type_id(found.shapes)
    if not np.isin(kinds, _SURFACES).all():
        odd = found.shapes[~np.isin(kinds, _SURFACES)][0]
        raise DataError(f"{path}: holds a {odd.geom_type}; masks are polygons. Leave other geometries out")
    values: list[Any] = [None] * len(kinds) if attribute is None else found.fields[attribute].tolist()
    return Polygons(found.shapes, found.crs, tuple(map(_text, values)))


def read_attribute(path: Path, attribute: str) -> tuple[str | None, ...]:
    """Return the values of an attribute without the polygons, as `read_polygons` does; the order may differ."""
    import pyogrio

    layer = one_layer(path, "polygons")
    _check_attribute(path, layer, attribute)
    with _gdal_errors(path):
        columns = pyogrio.raw.read(path.absolute(), layer=layer, columns=[attribute], read_geometry=False)[3]
    return tuple(map(_text, columns[0].tolist()))


def read_crs(path: Path) -> str | None:
    """Return the coordinate system of a file of polygons, without reading them; None if it states none."""
    crs: str | None = _info(path, one_layer(path, "polygons"))["crs"]
    return crs


@dataclass(frozen=True)
class Features:
    """The features of a layer whose geometries are not empty.

    Attributes:
        shapes: (N,) geometries of shapely.
        numbers: (N,) place of each in the file, from 0.
        fields: name -> (N,) values.
    """

    shapes: npt.NDArray[np.object_]
    numbers: npt.NDArray[np.int64]
    fields: dict[str, npt.NDArray[Any]]
    crs: str | None


def read_features(path: Path, layer: str, fields: Sequence[str] | None) -> Features:
    """Read the geometries of a layer, and some fields; None reads no field."""
    import pyogrio
    import shapely

    with _gdal_errors(path):
        meta, _, binary, columns = pyogrio.raw.read(
            path.absolute(), layer=layer, columns=list(fields or ()), force_2d=True
        )
        shapes = shapely.from_wkb(binary)
    kept = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)))
    values = dict(zip(meta["fields"].tolist(), (column[kept] for column in columns), strict=True))
    return Features(shapes[kept], kept, values, meta["crs"])


def field_names(path: Path, layer: str) -> list[str]:
    """Return the names of the fields of a layer."""
    return list(_info(path, layer)["fields"])


def one_layer(path: Path, what: str) -> str:
    """Return the name of the one layer with geometries of a file that should hold `what`, after checking its content.

    Raises:
        ConfigError: the packages are not installed.
        DataError: the file is of another format, is damaged, names a server, or has another number of layers.
    """
    require_geo(f"{path}: reading {what}", *NEEDED)
    import pyogrio

    for file in files_of(str(path)):
        require_file(file, what)
    _check_content(path)
    with _gdal_errors(path):
        layers = [str(name) for name, kind in pyogrio.list_layers(path.absolute()) if kind is not None]
    if len(layers) != 1:
        found = ", ".join(map(repr, layers)) or "none"
        raise DataError(f"{path}: expected one layer of {what}, found {found}; save one layer in a file")
    return layers[0]


def _info(path: Path, layer: str) -> Any:
    import pyogrio

    with _gdal_errors(path):
        return pyogrio.read_info(path.absolute(), layer=layer)


@contextmanager
def _gdal_errors(path: Path) -> Iterator[None]:
    """Turn what GDAL raises about a file into a DataError."""
    try:
        yield
    except Exception as error:  # GDAL's own errors are of no common class
        raise DataError(f"{path}: damaged, its features cannot be read ({error})") from error


def _check_content(path: Path) -> None:
    """Raise DataError for a file that GDAL would open in another format, elsewhere, or by asking a server."""
    start = _STARTS.get(path.suffix.lower())
    if start is None:
        raise DataError(f"{path}: features are read from {', '.join(_STARTS)}; save them in one of these formats")
    if ";" in path.name or any(mark in str(path.absolute()) for mark in "!\t\r\n"):
        # pyogrio reads the path as an address, and would open another file than the one looked at here
        raise DataError(f"{str(path)!r}: GDAL reads ! and ; and line breaks otherwise; rename the file or folder")
    try:
        with path.open("rb") as stream:
            head = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n" if start == b"{" else b"")
            if not head.startswith(start):
                raise DataError(f"{path}: named {path.suffix}, but its content is not; save it again")
            if start == b"{":
                _check_json(path, stream)
        if path.suffix.lower() == ".gpkg":
            _check_tables(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error


def _check_tables(path: Path) -> None:
    """Raise DataError for a GeoPackage with a virtual table of a kind that may read other files."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.text_factory = partial(str, encoding="utf-8", errors="replace")
            made = [sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    except sqlite3.Error as error:
        raise DataError(f"{path}: damaged, its tables cannot be listed ({error})") from error
    if odd := next((sql for sql in made if _PLAIN_TABLE.match(sql) is None), None):
        raise DataError(f"{path}: a table may read other files ({shortened(odd, 80)}); save the features again")


def _check_json(path: Path, stream: BinaryIO) -> None:
    """Raise DataError for GeoJSON with a coordinate system at an address, which GDAL would ask."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _PERHAPS_ADDRESS.search(content) is None:
            return
        text = content[:].decode("utf-8-sig", "replace")
    try:
        json.loads(text, object_pairs_hook=_without_linked_crs)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not GeoJSON that SimMAT reads: {error}; save it again, with a crs by name") from error


def _without_linked_crs(members: list[tuple[str, Any]]) -> str | None:
    """Return "link" for a json object that links to a coordinate system, else None.

    GDAL compares names without case, and up to a NUL.
    """
    kind = None
    for name, value in members:
        match name.partition("\0")[0].lower():
            case "crs" if value == "link":
                raise ValueError("its coordinate system is an address")
            case "type" if isinstance(value, str) and value.lower().startswith(("link", "url")):
                kind = "link"
    return kind


def _check_attribute(path: Path, layer: str, attribute: str) -> None:
    if attribute not in (known := field_names(path, layer)):
        raise ConfigError(
            f"{path}: the polygons have no attribute {attribute!r}{did_you_mean(attribute, known)} Attributes: "
            f"{', '.join(known) or 'none'}. Set --class-attribute, or class_attribute in card.toml, to one of them"
        )


def _check_degrees(path: Path, bounds: Sequence[float]) -> None:
    """Refuse map coordinates that would be taken for degrees; `bounds` are x0, y0, x1, y1."""
    x0, y0, x1, y1 = bounds
    if min(x0, -x1) < -_MOST_DEGREES[0] or min(y0, -y1) < -_MOST_DEGREES[1]:
        raise DataError(
            f"{path}: its coordinates, x {x0:.9g} to {x1:.9g} and y {y0:.9g} to {y1:.9g}, are not longitude and "
            'latitude (EPSG:4326), which a GeoJSON without the member "crs" has; save it as GeoPackage with its '
            "coordinate system (ogr2ogr -a_srs EPSG:n out.gpkg in.geojson), or in EPSG:4326"
        )


def _text(value: Any) -> str | None:
    """Return a value of an attribute as text, whole numbers without a fraction; None for none."""
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
