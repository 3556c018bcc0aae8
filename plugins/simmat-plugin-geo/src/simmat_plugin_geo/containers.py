"""What NetCDF files and Zarr stores may refer to: nothing outside of themselves.

Their readers follow each reference to another file, and read any file of the machine as the values of a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simmat.errors import DataError
from simmat.io.limits import decoding_errors
from simmat.io.paths import check_links
from simmat.io.reading import read_json

_MAX_OBJECTS = 10_000
"""Groups, variables and links of a NetCDF file; a product has a few hundred."""
_MAX_HEAD = 2**26
"""Bytes of a head of a Zarr store; that of the whole store repeats all others."""
_HEADS = (".zgroup", ".zarray", ".zattrs", ".zmetadata")
_CONSOLIDATED = {"metadata", "zarr_consolidated_format"}
"""Keys of .zmetadata; with others it is an index of parts of other files."""


def check_hdf5(path: Path) -> None:
    """Refuse a NetCDF file of version 4 that refers to another file, or whose groups contain each other.

    It is an HDF5 file; one of an older version has no references.

    Raises:
        DataError: it does, or it is damaged.
    """
    import h5py

    name = str(path.absolute())
    if not h5py.is_hdf5(name):
        return
    with decoding_errors(path, "netcdf"), h5py.File(name, "r", locking=False) as file:
        links = list(_links(path, file))
        for link in links:
            if isinstance(file.get(link), h5py.Group):
                raise _circle(path, link)


def _links(path: Path, file: Any) -> Iterator[str]:
    """Check all objects, and yield the names of the links within the file, which lead to one of them or to none."""
    import h5py

    groups = {_address(file): file}
    waiting = [file]
    count = 0
    while waiting:
        group = waiting.pop()
        for name in group:
            count += 1
            if count > _MAX_OBJECTS:
                raise DataError(
                    f"{path}: claims more than {_MAX_OBJECTS} variables and groups; it may be damaged"
                )
            link = group.get(name, getlink=True)
            full = f"{group.name.rstrip('/')}/{name}"
            if isinstance(link, h5py.ExternalLink):
                raise _elsewhere(path, full)
            if isinstance(link, h5py.SoftLink):
                yield full
                continue
            found = group[name]
            if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
                raise _elsewhere(path, full)
            if isinstance(found, h5py.Group):
                if _address(found) in groups:
                    raise _circle(path, full)
                groups[_address(found)] = found
                waiting.append(found)


def _address(group: Any) -> int:
    """Return the place of a group in its file, the same by whichever name it was found."""
    import h5py

    return int(h5py.h5o.get_info(group.id).addr)


def _elsewhere(path: Path, name: str) -> DataError:
    return DataError(
        f"{path}: its {name} is kept in another file, which is not opened; write it into this one, such as by "
        "nccopy or xarray's to_netcdf"
    )


def _circle(path: Path, name: str) -> DataError:
    return DataError(
        f"{path}: its group {name} is another group of the file once more, so its reading may never end; it is damaged"
    )


def check_zarr(store: Path) -> None:
    """Refuse a Zarr store of version 2 with a link out of it, or a name that leads out of it.

    Raises:
        DataError: it has one, or a head of it is damaged.
    """
    check_links(store)
    for head in store.rglob(".z*"):
        if head.name in _HEADS:
            _check_head(head)


def _check_head(head: Path) -> None:
    stated = read_json(head, "head of a Zarr store", limit=_MAX_HEAD, constants=True)
    if head.name == ".zmetadata" and not _is_consolidated(stated):
        raise DataError(
            f"{head}: refers to other files, which are not opened; write the store anew, such as by xarray's to_zarr"
        )
    for text in _texts(stated):
        if ".." in re.split(r"[/\\]", text):
            raise DataError(
                f"{head}: names {text!r}, which leads out of the store and is not followed; write the store anew"
            )


def _is_consolidated(stated: Any) -> bool:
    """Return whether a .zmetadata holds the heads of its store, and nothing else."""
    if not isinstance(stated, dict) or set(stated) - _CONSOLIDATED:
        return False
    heads = stated.get("metadata")
    return isinstance(heads, dict) and all(
        isinstance(one, dict) for one in heads.values()
    )


def _texts(stated: Any) -> Iterator[str]:
    """Yield every key and text of a json value."""
    if isinstance(stated, str):
        yield stated
    elif isinstance(stated, list):
        for one in stated:
            yield from _texts(one)
    elif isinstance(stated, dict):
        for key, value in stated.items():
            yield key
            yield from _texts(value)
