"""Read features in map coordinates: GeoPackage, GeoJSON, shapefile and FlatGeobuf."""

from __future__ import annotations

import json
import mmap
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyogrio
import shapely

from simmat.errors import DataError, shortened
from simmat.io.paths import require_file
from simmat.io.states import files_of
from simmat_plugin_geo.georeference import gdal_errors

_STARTS = {
    ".geojson": b"{",
    ".gpkg": b"SQLite format 3\0",
    ".shp": b"\0\0\x27\x0a",
    ".fgb": b"fgb\3fgb",
}
"""Ending -> first bytes. GDAL would open files of any other format too, some of which name further files."""
_PERHAPS_ADDRESS = re.compile(rb"http|\\u00[4-7]", re.IGNORECASE)
"""What json with the address of a server contains, perhaps with letters as escapes."""
_PLAIN_TABLE = re.compile(
    r"\s*CREATE\s+(TABLE|VIEW|(UNIQUE\s+)?INDEX|TRIGGER|VIRTUAL\s+TABLE\s+(\"rtree_[^\"]*\"|rtree_\w+)\s+USING\s+rtree)\b",
    re.IGNORECASE,
)
"""What makes a table of SQLite that holds its own rows, a view, or a spatial index."""


@dataclass(frozen=True)
class Layer:
    """The one layer with geometries of a file; `crs` is "EPSG:n" or WKT, None if the file states none."""

    path: Path
    name: str
    crs: str | None
    fields: tuple[str, ...]

    def read(
        self, field: str | None = None
    ) -> tuple[list[int], npt.NDArray[np.object_], list[str | None]]:
        """Read all geometries that are not empty, with the values of a field.

        Returns:
            The place of each in the file, from 0; (N,) shapely geometries; N values as text, None if there is none.
        """
        columns = [] if field is None else [field]
        with gdal_errors(self.path):
            _, _, binary, values = pyogrio.raw.read(
                self.path.absolute(), layer=self.name, columns=columns, force_2d=True
            )
            shapes = shapely.from_wkb(binary)
        kept = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)))
        stated = values[0][kept].tolist() if values else [None] * len(kept)
        return kept.tolist(), shapes[kept], list(map(_text, stated))

    def values(self, field: str) -> set[str | None]:
        """Return the values of a field, without reading geometries."""
        with gdal_errors(self.path):
            read = pyogrio.raw.read(
                self.path.absolute(),
                layer=self.name,
                columns=[field],
                read_geometry=False,
            )
        return set(map(_text, read[3][0].tolist()))


def open_layer(path: Path, what: str) -> Layer:
    """Open a file of one layer that should hold `what`, after checking its content.

    Raises:
        DataError: the file is of another format, is damaged, names a server, or has another number of layers.
    """
    for file in files_of(str(path)):
        require_file(file, what)
    _check_content(path)
    with gdal_errors(path):
        layers = [
            str(name)
            for name, kind in pyogrio.list_layers(path.absolute())
            if kind is not None
        ]
        info = (
            pyogrio.read_info(path.absolute(), layer=layers[0])
            if len(layers) == 1
            else {}
        )
    if not info:
        found = ", ".join(map(repr, layers)) or "none"
        raise DataError(
            f"{path}: expected one layer of {what}, found {found}; save one layer in a file"
        )
    return Layer(path, layers[0], info["crs"], tuple(info["fields"]))


def _check_content(path: Path) -> None:
    """Raise DataError for a file that GDAL would open in another format, elsewhere, or by asking a server."""
    start = _STARTS.get(path.suffix.lower())
    if start is None:
        raise DataError(
            f"{path}: features are read from {', '.join(_STARTS)}; save them in one of these formats"
        )
    if ";" in path.name or any(mark in str(path.absolute()) for mark in "!\t\r\n"):
        # pyogrio reads the path as an address, and would open another file than the one looked at here
        raise DataError(
            f"{str(path)!r}: GDAL treats ! and ; and line breaks in a path specially; rename the file or folder"
        )
    with gdal_errors(path), path.open("rb") as stream:
        head = (
            stream.read(256)
            .removeprefix(b"\xef\xbb\xbf")
            .lstrip(b" \t\r\n" if start == b"{" else b"")
        )
        if not head.startswith(start):
            raise DataError(
                f"{path}: named {path.suffix}, but its content is not; save it again"
            )
        if start == b"{":
            _check_json(path, stream)
        if path.suffix.lower() == ".gpkg":
            _check_tables(path)


def _check_tables(path: Path) -> None:
    """Raise DataError for a GeoPackage with a virtual table of a kind that may read other files."""
    with closing(
        sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    ) as database:
        database.text_factory = partial(str, encoding="utf-8", errors="replace")
        made = [
            sql
            for (sql,) in database.execute(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
            )
        ]
    if odd := next((sql for sql in made if _PLAIN_TABLE.match(sql) is None), None):
        raise DataError(
            f"{path}: a table may read other files ({shortened(odd, 80)}); save the features again"
        )


def _check_json(path: Path, stream: BinaryIO) -> None:
    """Raise DataError for GeoJSON with a coordinate system at an address, which GDAL would ask."""
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _PERHAPS_ADDRESS.search(content) is None:
            return
        text = content[:].decode("utf-8-sig", "replace")
    try:
        json.loads(text, object_pairs_hook=_without_linked_crs)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not GeoJSON that SimMAT reads: {error}; save it again, with a crs by name"
        ) from error


def _without_linked_crs(members: list[tuple[str, Any]]) -> str | None:
    """Return "link" for a json object that links to a coordinate system, else None.

    GDAL compares names without case, and up to a NUL.
    """
    kind = None
    for name, value in members:
        match name.partition("\0")[0].lower():
            case "crs" if value == "link":
                raise ValueError("its coordinate system is an address")
            case "type" if isinstance(value, str) and value.lower().startswith(
                ("link", "url")
            ):
                kind = "link"
    return kind


def _text(value: Any) -> str | None:
    """Return a value of a field as text, whole numbers without a fraction; None for none."""
    if value is None or value != value:  # NaN
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip() or None
