"""Read polygons in map coordinates: GeoPackage, GeoJSON and shapefile, through pyogrio and shapely, imported on use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError, DataError, SimMATError, did_you_mean
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
        crs: coordinate reference system as "EPSG:n" or WKT; None where the file states none.
        values: of an attribute, as text; None where a polygon has no value. Without an attribute N times None.
    """

    shapes: npt.NDArray[np.object_]
    crs: str | None
    values: tuple[str | None, ...]


def require_vectors(path: Path) -> None:
    """Check that the packages are installed which read polygons.

    Raises:
        ConfigError: some are not.
    """
    if lacking := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f'{path}: reading polygons needs {", ".join(lacking)}; pip install "simmat[geo]"')


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
    require_vectors(path)
    import pyogrio
    import shapely

    layer = _layer(path)
    try:
        if attribute is not None:
            _check_attribute(path, attribute, list(pyogrio.read_info(path, layer=layer)["fields"]))
        meta, _, binary, columns = pyogrio.raw.read(
            path, layer=layer, columns=[] if attribute is None else [attribute], force_2d=True
        )
        shapes = shapely.from_wkb(binary)
    except SimMATError:
        raise
    except Exception as error:  # GDAL's own errors are of no common class
        raise DataError(f"{path}: its polygons cannot be read ({error})") from error
    there = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)))
    kinds = shapely.get_type_id(shapes[there])
    if not np.isin(kinds, _SURFACES).all():
        odd = shapes[there][~np.isin(kinds, _SURFACES)][0]
        raise DataError(f"{path}: holds a {odd.geom_type}; masks are polygons. Leave other geometries out")
    values: list[Any] = [None] * len(shapes) if attribute is None else columns[0].tolist()
    return Polygons(shapes[there], meta["crs"], tuple(_text(values[index]) for index in there))


def read_attribute(path: Path, attribute: str) -> tuple[str | None, ...]:
    """Return the values of an attribute without the polygons, as `read_polygons` does; the order may differ."""
    require_vectors(path)
    import pyogrio

    layer = _layer(path)
    try:
        _check_attribute(path, attribute, list(pyogrio.read_info(path, layer=layer)["fields"]))
        columns = pyogrio.raw.read(path, layer=layer, columns=[attribute], read_geometry=False)[3]
    except SimMATError:
        raise
    except Exception as error:  # as above
        raise DataError(f"{path}: its attributes cannot be read ({error})") from error
    return tuple(map(_text, columns[0].tolist()))


def read_crs(path: Path) -> str | None:
    """Return the coordinate system of a file of polygons, without reading them; None where it states none.

    Raises:
        ConfigError: the packages are not installed.
        DataError: as `read_polygons`.
    """
    require_vectors(path)
    import pyogrio

    layer = _layer(path)
    try:
        crs: str | None = pyogrio.read_info(path, layer=layer)["crs"]
    except Exception as error:  # as above
        raise DataError(f"{path}: its coordinate system cannot be read ({error})") from error
    return crs


def _layer(path: Path) -> str:
    """Return the name of the one layer with geometries, after a look at the first bytes of the file."""
    import pyogrio

    require_file(path, "polygons")
    start = _STARTS[path.suffix.lower()]
    try:
        with path.open("rb") as stream:
            head = stream.read(256).removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n" if start == b"{" else b"")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    if not head.startswith(start):
        raise DataError(f"{path}: named {path.suffix}, but its content is not; save the polygons again")
    try:
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
    except Exception as error:  # as above
        raise DataError(f"{path}: damaged, its layers cannot be read ({error})") from error
    if len(layers) != 1:
        found = ", ".join(map(repr, layers)) or "none"
        raise DataError(f"{path}: a mask has one layer with polygons, found {found}; save one layer in a file")
    return str(layers[0])


def _check_attribute(path: Path, attribute: str, known: list[str]) -> None:
    if attribute not in known:
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
