"""Read JPEG 2000, ENVI, NetCDF and Zarr with rasterio, each by the one driver of GDAL that its name asks for.

A NetCDF file or Zarr store holds variables; those of one grid are the bands.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import Any

from simmat.errors import DataError, did_you_mean
from simmat.io.limits import check_size, decoding_errors
from simmat.io.paths import is_image_folder, require_file
from simmat.io.reading import parse_json, read_bytes
from simmat.io.states import FileState, content_states, file_states
from simmat.io.tiff import check_beside
from simmat.types import Window
from simmat_plugin_geo.containers import check_hdf5, check_zarr
from simmat_plugin_geo.georeference import gdal_errors, quiet
from simmat_plugin_geo.geotiff import (
    CACHE_BYTES,
    BandTags,
    GeoTiff,
    band_tags,
    geotiff_size,
    read_bands,
    read_geotiff,
)

DRIVERS = {".jp2": "JP2OpenJPEG", ".hdr": "ENVI", ".nc": "netCDF", ".zarr": "Zarr"}
"""Ending -> GDAL's driver."""
_ENVI_ENDINGS = ("", ".img", ".dat", ".raw", ".bsq", ".bil", ".bip")
_REFLECTANCE = "reflectance"
_ADDED = re.compile(r"\s*\([\d.]+ ?\w*\)$")
"""What GDAL appends to the band names of ENVI: " (665 Nanometers)"."""
_STEP = re.compile(r"netcdf_dim_(\w+)|dim_(\w+)_(?:value|index)")
"""Tags that state the place of a band along a further dimension, in lower case."""
_MAX_VARIABLES = 512
_CLASSIC = (b"CDF\1", b"CDF\2")
"""Begin of NetCDF files of the versions 1 and 2, whose end nothing marks."""
_ARRAY = ".zarray"
"""The head of an array in a Zarr store."""


def read_raster(
    path: Path,
    nodata: float | None = None,
    window: Window | None = None,
    wanted: Callable[[Sequence[BandTags]], Collection[int]] | None = None,
    variables: tuple[str, ...] = (),
) -> GeoTiff:
    """Read a GeoTIFF or a file of one of `DRIVERS`, or the part of it in a window; arguments as of `read_geotiff`.

    Args:
        variables: names of the variables of a NetCDF file or Zarr store; () for all, which then share one grid.

    Raises:
        DataError: as `read_geotiff`; or the variables do not share one grid, or one is not there.
    """
    if path.suffix.lower() not in DRIVERS:
        _refuse_variables(path, variables)
        return read_geotiff(path, nodata, window, wanted)
    with _opened(path, window is None, variables) as files:
        return read_bands(files, path, nodata, window, wanted, _tags)


def raster_size(path: Path, variables: tuple[str, ...] = ()) -> tuple[int, int]:
    """Return the (height, width) of a file that `read_raster` reads, of any size, without decoding it."""
    if path.suffix.lower() not in DRIVERS:
        _refuse_variables(path, variables)
        return geotiff_size(path)
    with _opened(path, False, variables) as files:
        height, width = files[0].shape
    return int(height), int(width)


def _refuse_variables(path: Path, variables: Collection[str]) -> None:
    if variables:
        raise DataError(
            f"{path}: has no variables, only NetCDF and Zarr have; leave the option variables out"
        )


@contextmanager
def _opened(
    path: Path, whole: bool, variables: tuple[str, ...]
) -> Iterator[tuple[Any, ...]]:
    """Open the datasets of a file; for windows they stay open, so that GDAL keeps its decoded blocks."""
    import rasterio

    folder = is_image_folder(path)
    if path.suffix.lower() == ".zarr" and not folder:
        raise DataError(f"{path}: no such folder; a Zarr store is a folder")
    if not folder:
        require_file(path, "image")
    with gdal_errors(path), quiet(), rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        states = content_states(path) if folder else file_states(str(path))
        files = _remembered(path, variables, states, os.getpid(), get_ident())
        height, width = files[0].shape
        for file in files:
            rows, columns = file.block_shapes[0]
            check_size(path, rows, columns)  # a tile is decoded as a whole
        if whole:
            check_size(path, height, width, sum(file.count for file in files))
        yield files


@lru_cache(maxsize=16)  # the files of a Sentinel product
def _remembered(
    path: Path,
    variables: tuple[str, ...],
    _states: tuple[FileState, ...],
    _process: int,
    _thread: int,
) -> tuple[Any, ...]:
    """Open a file once for all windows that a thread reads; an open file of GDAL must not be shared by threads."""
    driver = DRIVERS[path.suffix.lower()]
    if driver in ("JP2OpenJPEG", "ENVI"):
        _refuse_variables(path, variables)
    if driver == "ENVI":
        return (_open_envi(path),)
    if driver == "Zarr" and not {".zgroup", _ARRAY} & {
        one.name for one in path.iterdir()
    }:
        raise DataError(
            f"{path}: not a Zarr store of version 2, which GDAL reads; write it as one (xarray: zarr_format=2). For an "
            "OME-Zarr of a microscope: --modality microscopy"
        )
    if driver == "Zarr":
        check_zarr(path)
    if driver == "netCDF":
        check_hdf5(path)
        _check_length(path)
    file = _open(str(path.absolute()), driver)
    if driver == "JP2OpenJPEG":
        return (file,)
    return _with_one_grid(path, _variables(path, file, driver), variables)


def _open(name: str, driver: str, *, beside: bool = False) -> Any:
    """Open a file by one driver, without the files beside it unless they are its own."""
    import rasterio

    with rasterio.Env(
        GDAL_DISABLE_READDIR_ON_OPEN="TRUE" if beside else "EMPTY_DIR",
        GDAL_PAM_ENABLED="NO",
    ):
        return rasterio.open(name, driver=driver)


def _check_length(path: Path) -> None:
    """Raise DataError for a classic NetCDF file that is cut short: GDAL would read zeros where it ends."""
    with path.open("rb") as stream:
        head = stream.read(4)
    if head not in _CLASSIC:
        return
    from scipy.io import netcdf_file

    with decoding_errors(path, "netcdf"), netcdf_file(path, mmap=True):
        pass  # its variables are mapped, which needs all of their bytes


def _open_envi(header: Path) -> Any:
    """Open the data that an ENVI header describes."""
    with header.open("rb") as stream:
        if stream.read(4) != b"ENVI":
            raise DataError(
                f"{header}: not an ENVI header, which begins with ENVI; give the .hdr of the data"
            )
    found = []
    for ending in _ENVI_ENDINGS:
        data = header.with_suffix(ending)
        if data.is_file():
            found.append(data)
    if len(found) != 1:
        listed = ", ".join(file.name for file in found) or "none"
        endings = ", ".join(ending or "no ending" for ending in _ENVI_ENDINGS)
        raise DataError(
            f"{header}: needs one file of its name with the data ({endings}), found {listed}"
        )
    (data,) = found
    check_beside(data)
    overviews = data.with_name(f"{data.name}.ovr")
    if overviews.exists():  # GDAL would open it, in any format
        raise DataError(f"{header}: {overviews.name} is not read; move it away")
    file = _open(str(data.absolute()), "ENVI", beside=True)
    if str(header.absolute()) not in file.files:
        raise DataError(
            f"{header}: GDAL reads another header for {data.name}; remove one of the two"
        )
    stated = file.tags(ns="ENVI")
    if stated.get("file_compression", "0") != "0":
        raise DataError(f"{header}: its data are compressed; save them uncompressed")
    itemsize = sum(_itemsize(kind) for kind in file.dtypes)
    needed = int(stated.get("header_offset", 0)) + math.prod(file.shape) * itemsize
    if data.stat().st_size < needed:
        raise DataError(
            f"{data}: cut short: its header states {needed} bytes, it has {data.stat().st_size}"
        )
    return file


def _itemsize(kind: str) -> int:
    import numpy as np

    return np.dtype(kind).itemsize


def _variables(path: Path, file: Any, driver: str) -> dict[str, Any]:
    """Return name -> dataset of the variables of a file."""
    if not file.subdatasets:
        return {_variable_name(file, driver): file}
    if len(file.subdatasets) > _MAX_VARIABLES:
        raise DataError(
            f"{path}: claims {len(file.subdatasets)} variables, at most {_MAX_VARIABLES} are read; it may be damaged"
        )
    found = {}
    for name in file.subdatasets:
        one = _open(name, driver)
        found[name.rpartition(":")[2].strip('/"')] = one
    return found


def _variable_name(file: Any, driver: str) -> str:
    """Return the name of the variable that a dataset is."""
    if driver == "Zarr":
        return _zarr_name(file.name)
    return str(file.tags(1).get("NETCDF_VARNAME", "") if file.count else "")


def _zarr_name(name: str) -> str:
    """Return the variable of a dataset that GDAL names; one that is alone is named by the path of its store."""
    if name.startswith("ZARR:"):
        return name.rpartition(":")[2].strip('/"')
    arrays = []
    for head in Path(name).glob(f"*/{_ARRAY}"):
        shape = parse_json(read_bytes(head, "head of an array", limit=2**20))["shape"]
        if len(shape) > 1:  # coordinates have one axis
            arrays.append(head.parent.name)
    return arrays[0] if len(arrays) == 1 else ""


def _with_one_grid(
    path: Path, found: Mapping[str, Any], wanted: Sequence[str]
) -> tuple[Any, ...]:
    """Return the datasets of the wanted variables, by default of all that are images."""
    for name in wanted:
        if name not in found:
            hint = did_you_mean(name, list(found), otherwise="")
            raise DataError(
                f"{path}: has no variable {name!r}{hint}; it has {', '.join(found)}"
            )
    images = {name: found[name] for name in wanted}
    if not wanted:
        # coordinates have one axis
        images = {name: one for name, one in found.items() if min(one.shape) > 1}
        images = images or dict(found)
    sizes = {name: f"{one.shape[1]}x{one.shape[0]}" for name, one in images.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} is {size}" for name, size in sizes.items())
        raise DataError(
            f"{path}: its variables have several grids: {listed}; name those of one: --modality-option "
            f"variables={next(iter(sizes))}"
        )
    if not images or not next(iter(images.values())).count:
        raise DataError(f"{path}: holds no image")
    return tuple(images.values())


def _tags(file: Any, index: int) -> BandTags:
    """Return the tags of a band, with what these formats state in other places than a GeoTIFF."""
    said = band_tags(file, index)
    if file.driver == "ENVI":
        return _envi_tags(file, said)
    if file.driver in ("netCDF", "Zarr"):
        return _variable_tags(file, index, said)
    return said


def _envi_tags(file: Any, said: BandTags) -> BandTags:
    factor = file.tags(ns="ENVI").get("reflectance_scale_factor")
    said = replace(said, description=_ADDED.sub("", said.description))
    if factor is None:
        return said
    if not float(factor):
        raise DataError(
            f"{file.name}: its header states reflectance scale factor {factor}, by which nothing can be divided; "
            "correct it: 10000 for reflectance x 10000"
        )
    scale = 1 / float(factor)
    if (said.scale, said.offset) != (1.0, 0.0) and not math.isclose(said.scale, scale):
        raise DataError(
            f"{file.name}: its header states a gain of {said.scale:g}, but reflectance scale factor {factor}; remove "
            "the wrong one"
        )
    return replace(said, scale=scale, unit=_REFLECTANCE)


def _variable_tags(file: Any, index: int, said: BandTags) -> BandTags:
    stated = dict(said.tags or {})
    name = stated.get("netcdf_varname", "")
    if file.driver == "Zarr":
        name = _zarr_name(file.name)
    step = ""
    for key, value in stated.items():
        found = _STEP.fullmatch(key)
        if found is None:
            continue
        dimension = found[1] or found[2]
        step = f"-{value}"
        if key.endswith("_index"):
            continue  # its value may follow
        if "wavelength" in dimension:
            unit = said.tags.get(f"dim_{dimension}_unit", "") if said.tags else ""
            stated = {
                **stated,
                "wavelength": value,
                "wavelength_units": unit or _unit_of(file, dimension),
            }
        break
    if not step and file.count > 1:  # a dimension without coordinates
        step = f"-{index - 1}"
    unit = said.unit
    if unit in ("", "1") and _REFLECTANCE in stated.get("standard_name", ""):
        unit = _REFLECTANCE
    description = f"{name}{step}" if name else ""
    return replace(said, description=description, unit=unit, tags=stated)


def _unit_of(file: Any, dimension: str) -> str:
    """Return the unit of a dimension of a NetCDF file."""
    for key, value in file.tags().items():
        if key.lower() == f"{dimension}#units":
            return str(value)
    return ""
