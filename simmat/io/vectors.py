"""Read features in map coordinates: GeoPackage, GeoJSON and shapefile, through pyogrio and shapely, imported on use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, did_you_mean
from simmat.io.files import require_file

NEEDED = ("pyogrio", "rasterio", "shapely")
"""Packages of the extra "geo"."""

_STARTS = {".shp": b"\0\0\x27\x0a", ".gpkg": b"SQLite format 3\0", ".geojson": b"{"}
"""Ending -> first bytes. GDAL would open files of any other format too, some of which name further files."""
_BESIDE = (".dbf", ".shx", ".prj", ".cpg")
"""Endings of the files of a shapefile that decide what it says."""
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
    upper = main.suffix.isupper()
    beside = (main.with_suffix(ending.upper() if upper else ending) for ending in _BESIDE)
    return (main, *(file for file in beside if file.exists()))


def read_polygons(path: Path, attribute: str | None = None) -> Polygons:
    """Read the polygons of a file of one layer, and one of their attributes.

    Empty geometries are left out.

    Raises:
        ConfigError: the packages are not installed, or there is no such attribute; the message lists those there are.
        DataError: the file cannot be read, has several layers, or holds points or lines.
    """
    import shapely

    layer = _layer(path)
    if attribute is not None:
        _check_attribute(path, layer, attribute)
    found = read_features(path, layer, None if attribute is None else [attribute])
    kinds = shapely.get_type_id(found.shapes)
    if not np.isin(kinds, _SURFACES).all():
        odd = found.shapes[~np.isin(kinds, _SURFACES)][0]
        raise DataError(f"{path}: holds a {odd.geom_type}; masks are polygons. Leave other geometries out")
    values: list[Any] = [None] * len(kinds) if attribute is None else found.fields[attribute].tolist()
    return Polygons(found.shapes, found.crs, tuple(map(_text, values)))


def read_attribute(path: Path, attribute: str) -> tuple[str | None, ...]:
    """Return the values of an attribute without the polygons, as `read_polygons` does; the order may differ."""
    import pyogrio

    layer = _layer(path)
    _check_attribute(path, layer, attribute)
    with _gdal_errors(path):
        columns = pyogrio.raw.read(path, layer=layer, columns=[attribute], read_geometry=False)[3]
    return tuple(map(_text, columns[0].tolist()))


def read_crs(path: Path) -> str | None:
    """Return the coordinate system of a file of polygons, without reading them; None if it states none."""
    crs: str | None = _info(path, _layer(path))["crs"]
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
        meta, _, binary, columns = pyogrio.raw.read(path, layer=layer, columns=list(fields or ()), force_2d=True)
        shapes = shapely.from_wkb(binary)
    kept = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)))
    values = dict(zip(meta["fields"].tolist(), (column[kept] for column in columns), strict=True))
    return Features(shapes[kept], kept, values, meta["crs"])


def field_names(path: Path, layer: str) -> list[str]:
    """Return the names of the fields of a layer."""
    return list(_info(path, layer)["fields"])


def one_layer(path: Path, what: str) -> str:
    """Return the name of the one layer with geometries of a file that should hold `what`."""
    require_geo(f"{path}: reading {what}", *NEEDED)
    import pyogrio

    require_file(path, what)
    with _gdal_errors(path):
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
    if len(layers) != 1:
        found = ", ".join(map(repr, layers)) or "none"
        raise DataError(f"{path}: expected one layer of {what}, found {found}; save one layer in a file")
    return layers[0]


def _info(path: Path, layer: str) -> Any:
    import pyogrio

    with _gdal_errors(path):
        return pyogrio.read_info(path, layer=layer)


@contextmanager
def _gdal_errors(path: Path) -> Iterator[None]:
    """Turn what GDAL raises about a file into a DataError."""
    try:
        yield
    except Exception as error:  # GDAL's own errors are of no common class
        raise DataError(f"{path}: damaged, its features cannot be read ({error})") from error


def _layer(path: Path) -> str:
    """Return the one layer of a file of polygons, after a look at its first bytes."""
    require_geo(f"{path}: reading polygons", *NEEDED)
    require_file(path, "polygons")
    start = _STARTS[path.suffix.lower()]
    try:
        with path.open("rb") as stream:
            head = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n" if start == b"{" else b"")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    if not head.startswith(start):
        raise DataError(f"{path}: named {path.suffix}, but its content is not; save the polygons again")
    return one_layer(path, "polygons")


def _check_attribute(path: Path, layer: str, attribute: str) -> None:
    if attribute not in (known := field_names(path, layer)):
        raise ConfigError(
            f"{path}: the polygons have no attribute {attribute!r}{did_you_mean(attribute, known)} Attributes: "
            f"{', '.join(known) or 'none'}. Set --class-attribute, or class_attribute in card.toml, to one of them"
        )


def _text(value: Any) -> str | None:
    """Return a value of an attribute as text, whole numbers without a fraction; None for none."""
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
