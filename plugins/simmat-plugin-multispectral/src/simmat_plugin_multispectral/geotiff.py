"""GeoTIFF through rasterio, which is loaded on use: planes, what the file says of them, and where they lie."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError, SimMATError
from simmat.io.files import atomic_path
from simmat.io.images import StatedNodata, stated_valid
from simmat.io.images.georeference import georeference_of, placed, quiet
from simmat.io.images.tiff import check_tiff
from simmat.types import BoolArray, Georeference

_COUNT = re.compile(r"(?:band)?[\s_-]*0*(\d+)", re.IGNORECASE)
_MASK_WORDS = re.compile(r"alpha|mask(?!ed)|opac|transparen|valid(?!ated)|no.?data", re.IGNORECASE)
_OPAQUE = (0, 1, 255, 32767, 65535)  # nothing, and the full scales of floats and of 8, 15 and 16 bits
_MOST_PARTIAL = 0.05  # resampling blends an alpha band along borders, which are few pixels


@dataclass(frozen=True, slots=True)
class BandTags:
    """What a file says of one band; empty where it says nothing.

    Attributes:
        description: its name.
        unit: of the scaled values.
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
    """One file.

    Attributes:
        stored: (P, H, W) in the file's own dtype; an alpha band is not among them.
        valid: (P, H, W) False where the file's nodata value, mask or alpha, or the user's `--nodata`, says that
            nothing was measured.
        bands: what it says of each plane.
        georeference: where it lies, if it states a coordinate system.
        path: where it was read.
    """

    stored: npt.NDArray[Any]
    valid: BoolArray
    bands: tuple[BandTags, ...]
    georeference: Georeference | None
    path: Path


def read_geotiff(path: Path, nodata: StatedNodata | None = None) -> GeoTiff:
    """Read a TIFF of any number of bands.

    Raises:
        DataError: the file is missing, damaged, no TIFF, of several pages, or holds complex numbers or a palette, or an
            alpha band that seems to be measured.
    """
    import rasterio
    from rasterio.enums import ColorInterp

    check_tiff(path)
    try:
        with quiet(), rasterio.open(path, driver="GTiff") as file:
            if file.subdatasets:
                raise DataError(
                    f"{path}: {len(file.subdatasets)} pages; a GeoTIFF has its bands in one. Write them as planes of "
                    "one page (tifffile: planarconfig='separate'), or use --modality raster, which reads pages as bands"
                )
            if ColorInterp.palette in file.colorinterp:
                raise DataError(f"{path}: a palette image; its numbers are indices, not intensities")
            kept = [i for i, role in zip(file.indexes, file.colorinterp, strict=True) if role is not ColorInterp.alpha]
            stored, valid = file.read(kept), file.read_masks(kept) > 0  # (P, H, W) each
            for number, index in enumerate(kept):  # GDAL's mask is made of one of mask, nodata and alpha alone
                if (missing := file.nodatavals[index - 1]) is not None:
                    valid[number] &= stored[number] != missing
            for alpha in set(file.indexes) - set(kept):
                opacity = file.read(alpha)
                _check_alpha(path, file, alpha, opacity)
                valid &= opacity > 0
            bands = tuple(_tags(file, index) for index in kept)
            place = georeference_of(file)
    except SimMATError:
        raise
    except Exception as error:  # GDAL's own errors are of no public class
        raise DataError(f"{path}: damaged, or no TIFF ({error})") from error
    if stored.dtype.kind not in "uif" or (stored.dtype.kind in "ui" and stored.dtype.itemsize > 4):
        raise DataError(f"{path}: values of type {stored.dtype} are not supported; store them as float32")
    stated = stated_valid(path, stored, nodata)
    return GeoTiff(stored, valid if stated is None else valid & stated, bands, place, path)


def write_geotiff(
    path: Path,
    planes: npt.NDArray[Any],
    *,
    bands: Sequence[BandTags] = (),
    nodata: float | None = None,
    georeference: Georeference | None = None,
) -> None:
    """Write (P, H, W) planes as a deflate-compressed GeoTIFF; a whole file or none.

    Raises:
        OutputError: the file cannot be written.
    """
    import rasterio

    count, height, width = planes.shape
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": planes.dtype.name, "compress": "deflate", "nodata": nodata}
    profile["photometric"] = "minisblack"  # else GDAL calls the fourth of four 8-bit bands alpha
    profile |= placed(georeference)
    with (
        atomic_path(path) as temporary,
        quiet(),
        rasterio.open(temporary, "w", count=count, height=height, width=width, **profile) as file,
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
    """Return whether a description says no more than that its band is the `index`th of the file, from 1."""
    match = _COUNT.fullmatch(description.strip())
    return match is not None and int(match[1]) == index


def _check_alpha(path: Path, file: Any, index: int, opacity: npt.NDArray[Any]) -> None:
    """Refuse an alpha band that was measured: GDAL calls the fourth band of 8 bits alpha unless it is told otherwise.

    Args:
        path: of the file.
        file: opened by rasterio.
        index: of the band, from 1.
        opacity: (H, W) its numbers.
    """
    said = _tags(file, index)
    wavelength = next((f"{key} {text}" for key, text in (said.tags or {}).items() if "wavelength" in key and text), "")
    partial = float(np.mean(~np.isin(opacity, _OPAQUE)))
    if wavelength:
        why = f"has the metadata {wavelength}"
    elif _MASK_WORDS.search(said.description):
        return
    elif said.description and not is_count(said.description, index):
        why = f"is described as {said.description!r}"
    elif partial > _MOST_PARTIAL:
        why = f"holds other numbers than 0 and full at {partial:.0%} of the pixels"
    else:
        return
    roles = [role.name if other != index else "undefined" for other, role in enumerate(file.colorinterp, 1)]
    raise DataError(
        f"{path}: band {index} is alpha (how opaque a pixel is) by its colour interpretation, but {why}. If it "
        f"was measured, set that: rio edit-info --colorinterp {','.join(roles)} FILE, or write the file with "
        "photometric='minisblack'; if it is alpha, describe it as 'alpha'"
    )


def _tags(file: Any, index: int) -> BandTags:
    tags = {**file.tags(index), **file.tags(index, ns="IMAGERY")}
    return BandTags(
        (file.descriptions[index - 1] or "").strip(),
        (file.units[index - 1] or "").strip(),
        file.scales[index - 1],
        file.offsets[index - 1],
        {key.lower(): value for key, value in tags.items()},
    )
