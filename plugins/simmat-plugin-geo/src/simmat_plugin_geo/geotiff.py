"""Read and write GeoTIFF with rasterio, which is imported on use: planes, their tags, and the georeference."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.files import atomic_path
from simmat.io.limits import check_size, check_window
from simmat.io.tiff import check_tiff, file_state
from simmat.types import BoolArray, Georeference, Window, not_nodata
from simmat_plugin_geo.georeference import (
    gdal_errors,
    georeference_of,
    open_geotiff,
    profile_of,
    quiet,
)

_COUNT = re.compile(r"(?:band)?[\s_-]*0*(\d+)", re.IGNORECASE)
_MASK_WORDS = re.compile(
    r"alpha|mask(?!ed)|opac|transparen|valid(?!ated)|no.?data", re.IGNORECASE
)
# transparent, and the full scales of floats and of 8, 15 and 16 bits
_OPAQUE = (0, 1, 255, 32767, 65535)
# decoded blocks when windows are read: 1024 rows of 20,000 pixels in 8 bands of 16 bits
CACHE_BYTES = 320 * 2**20
# resampling blends an alpha band along borders, which are few pixels
_MAX_PARTIAL = 0.05


@dataclass(frozen=True, slots=True)
class BandTags:
    """The tags of a band; empty if the file has none.

    Attributes:
        description: name of the band.
        unit: unit of the scaled values.
        scale: values are stored * scale + offset.
        offset: see `scale`.
        tags: metadata of the band and of its domain IMAGERY, keys in lower case.
    """

    description: str = ""
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    tags: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class GeoTiff:
    """The content of a file.

    Attributes:
        stored: (P, H, W) stored values in the dtype of the file, without an alpha band.
        valid: (P, H, W) bool, False for nodata by the file's nodata value, mask or alpha band, or by `--nodata`.
        bands: tags of each plane.
        georeference: georeference, if the file has a coordinate system.
        path: path of the file.
    """

    stored: npt.NDArray[Any]
    valid: BoolArray
    bands: tuple[BandTags, ...]
    georeference: Georeference | None
    path: Path


def read_geotiff(
    path: Path,
    nodata: float | None = None,
    window: Window | None = None,
    wanted: Callable[[Sequence[BandTags]], Collection[int]] | None = None,
) -> GeoTiff:
    """Read a TIFF of any number of bands, or the part of it in a window.

    Args:
        path: the file.
        nodata: stored number that the user calls nodata.
        window: the window to read; None for the whole image.
        wanted: maps the tags of all bands to the indices of the bands to read; the others have no valid pixel. None
            for all.

    Raises:
        DataError: the file is missing, damaged, not a TIFF, has several pages, complex values, a palette, or an alpha
            band that seems to be a measurement; or the window is not inside the image.
    """
    with _opened(path, window) as file:
        return read_bands([file], path, nodata, window, wanted)


def read_bands(
    files: Sequence[Any],
    path: Path,
    nodata: float | None = None,
    window: Window | None = None,
    wanted: Callable[[Sequence[BandTags]], Collection[int]] | None = None,
    tags_of: Callable[[Any, int], BandTags] | None = None,
) -> GeoTiff:
    """Read the bands of open rasterio datasets of one grid, one behind the other; see `read_geotiff`.

    Args:
        tags_of: returns the tags of a band of a dataset by its index from 1; by default as a GeoTIFF states them.
    """
    from rasterio.enums import MaskFlags

    tags_of = tags_of or band_tags
    kept: list[tuple[int, int]] = []  # place of the dataset, index of the band
    for place, file in enumerate(files):
        for index, role in zip(file.indexes, file.colorinterp, strict=True):
            if role.name != "alpha":
                kept.append((place, index))
    bands = tuple(tags_of(files[place], index) for place, index in kept)
    _check_scales(path, bands)
    picked = sorted(range(len(kept)) if wanted is None else wanted(bands))
    part = None
    if window is not None:
        check_window(path, window, files[0].shape)
        check_size(path, *window.size_hw, len(picked))
        part = ((window.y0, window.y1), (window.x0, window.x1))
    planes: list[npt.NDArray[Any]] = []
    masks: list[BoolArray] = []
    for place, file in enumerate(files):
        numbers = [kept[index][1] for index in picked if kept[index][0] == place]
        if not numbers:
            continue
        stored = file.read(numbers, window=part)  # (P, H, W)
        valid = np.ones(stored.shape, np.bool_)
        if any(
            MaskFlags.all_valid not in file.mask_flag_enums[number - 1]
            for number in numbers
        ):
            # GDAL caches masks as well
            valid = file.read_masks(numbers, window=part) > 0
        for plane, good, number in zip(stored, valid, numbers, strict=True):
            # GDAL's mask comes from only one of mask,
            if (missing := file.nodatavals[number - 1]) is not None:
                good &= plane != missing  # nodata and alpha
        for alpha in set(file.indexes) - {index for own, index in kept if own == place}:
            opacity = file.read(alpha, window=part)
            _check_alpha(path, file, alpha, opacity if window is None else None)
            valid &= opacity > 0
        planes.append(stored)
        masks.append(valid)
    stored = planes[0] if len(planes) == 1 else np.concatenate(planes)
    valid = masks[0] if len(masks) == 1 else np.concatenate(masks)
    georeference = georeference_of(files[0], str(path))
    if stored.dtype.kind not in "uif" or (
        stored.dtype.kind in "ui" and stored.dtype.itemsize > 4
    ):
        raise DataError(
            f"{path}: values of type {stored.dtype} are not supported; store them as float32"
        )
    if window is not None and georeference is not None:
        georeference = georeference.shifted(window.y0, window.x0)
    if len(picked) < len(bands):
        stored, valid = (
            _with_unread_bands(values, picked, len(bands)) for values in (stored, valid)
        )
    valid = valid & not_nodata(stored, nodata)
    return GeoTiff(stored, valid, bands, georeference, path)


def _check_scales(path: Path, bands: Sequence[BandTags]) -> None:
    """Raise DataError for a scale or offset that gives no values."""
    for number, band in enumerate(bands):
        if math.isfinite(band.scale) and math.isfinite(band.offset) and band.scale:
            continue
        raise DataError(
            f"{path}: states scale {band.scale:g} and offset {band.offset:g} of band {number} (from 0), which give no "
            "values; correct or remove them in the file"
        )


def _with_unread_bands(
    values: npt.NDArray[Any], picked: Sequence[int], count: int
) -> npt.NDArray[Any]:
    """Return (count, H, W) with the planes of `values` at the indices `picked`, and zeros elsewhere."""
    whole = np.zeros((count, *values.shape[1:]), values.dtype)
    whole[picked] = values
    return whole


def geotiff_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of a TIFF of any size, without decoding it.

    Raises:
        DataError: as `read_geotiff`, as far as the tags show it.
    """
    with _opened(path, Window(0, 0, 1, 1)) as file:
        height, width = file.shape
        return int(height), int(width)


@contextmanager
def _opened(path: Path, window: Window | None) -> Iterator[Any]:
    """Open a file with rasterio; for windows it stays open, so that GDAL keeps its decoded blocks.

    A strip is as wide as the image, so every window of a row needs the same strips. GDAL's cache is limited.
    """
    import rasterio

    with gdal_errors(path), quiet():
        if window is None:
            with _checked(path, whole=True) as file:
                yield file
        else:
            with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
                yield _remembered(path, file_state(path), os.getpid(), get_ident())


@lru_cache(maxsize=4)
def _remembered(
    path: Path, _state: tuple[int, ...], _process: int, _thread: int
) -> Any:
    """Open a file once for all windows that a thread reads; an open file of GDAL must not be shared by threads."""
    return _checked(path, whole=False)


def _checked(path: Path, *, whole: bool) -> Any:
    check_tiff(path, whole=whole)
    file = open_geotiff(path)
    if file.subdatasets:
        raise DataError(
            f"{path}: {len(file.subdatasets)} pages; a GeoTIFF has all bands in one. Write them as planes of "
            "one page (tifffile: planarconfig='separate'), or use --modality raster, which reads pages as bands"
        )
    if any(role.name == "palette" for role in file.colorinterp):
        raise DataError(
            f"{path}: a palette image, whose values are indices, not intensities"
        )
    return file


def write_geotiff(
    path: Path,
    planes: npt.NDArray[Any],
    *,
    bands: Sequence[BandTags] = (),
    nodata: float | None = None,
    georeference: Georeference | None = None,
) -> None:
    """Write planes (P, H, W) as a deflate-compressed GeoTIFF, completely or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    import rasterio

    count, height, width = planes.shape
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": planes.dtype.name,
        "compress": "deflate",
        "nodata": nodata,
    }
    # else GDAL calls the fourth of four 8-bit bands alpha
    profile["photometric"] = "minisblack"
    profile |= profile_of(georeference)
    with (
        atomic_path(path) as temporary,
        quiet(),
        rasterio.open(
            temporary, "w", count=count, height=height, width=width, **profile
        ) as file,
    ):
        file.write(planes)
        for index, band in enumerate(bands, 1):
            file.set_band_description(index, band.description)
            file.set_band_unit(index, band.unit)
            if band.tags:
                file.update_tags(index, **band.tags)
        if bands:
            file.scales = [band.scale for band in bands]
            file.offsets = [band.offset for band in bands]


def is_count(description: str, index: int) -> bool:
    """Return whether a description only gives the index of the band in the file, from 1."""
    match = _COUNT.fullmatch(description.strip())
    return match is not None and int(match[1]) == index


def _check_alpha(
    path: Path, file: Any, index: int, opacity: npt.NDArray[Any] | None
) -> None:
    """Raise DataError for an alpha band that seems to be a measurement.

    By default GDAL declares the fourth of four 8-bit bands alpha.

    Args:
        path: path of the file.
        file: the file opened by rasterio.
        index: index of the band, from 1.
        opacity: (H, W) values of the band; None if only a part was read.
    """
    said = band_tags(file, index)
    wavelength = next(
        (
            f"{key} {text}"
            for key, text in (said.tags or {}).items()
            if "wavelength" in key and text
        ),
        "",
    )
    partial = 0.0 if opacity is None else float(np.mean(~np.isin(opacity, _OPAQUE)))
    if wavelength:
        why = f"has the metadata {wavelength}"
    elif _MASK_WORDS.search(said.description):
        return
    elif said.description and not is_count(said.description, index):
        why = f"is described as {said.description!r}"
    elif partial > _MAX_PARTIAL:
        why = f"has values other than 0 and full scale at {partial:.0%} of the pixels"
    else:
        return
    roles = [
        role.name if other != index else "undefined"
        for other, role in enumerate(file.colorinterp, 1)
    ]
    raise DataError(
        f"{path}: band {index} is alpha (how opaque a pixel is) according to its colour interpretation, but "
        f"{why}. If it "
        f"was measured, set that: rio edit-info --colorinterp {','.join(roles)} FILE, or write the file with "
        "photometric='minisblack'; if it is alpha, describe it as 'alpha'"
    )


def band_tags(file: Any, index: int) -> BandTags:
    """Return the tags of a band of an open rasterio dataset by its index from 1."""
    tags = {**file.tags(index), **file.tags(index, ns="IMAGERY")}
    return BandTags(
        (file.descriptions[index - 1] or "").strip(),
        (file.units[index - 1] or "").strip(),
        file.scales[index - 1],
        file.offsets[index - 1],
        {key.lower(): value for key, value in tags.items()},
    )
