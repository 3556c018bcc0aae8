"""GeoTIFF through rasterio, which is loaded on use: planes, what the file says of them, and where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from simmat.errors import DataError
from simmat.files import atomic_path
from simmat.imageio import stated_valid
from simmat.imageio.georeference import georeference_of, placed, quiet
from simmat.imageio.values import check_size
from simmat.types import BoolArray, Georeference


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


def read_geotiff(path: Path) -> GeoTiff:
    """Read a TIFF of any number of bands.

    Raises:
        DataError: the file is missing, damaged, no TIFF, of several pages, or holds complex numbers or a palette.
    """
    import rasterio
    from rasterio.enums import ColorInterp

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with quiet(), rasterio.open(path, driver="GTiff") as file:
            if file.subdatasets:
                raise DataError(
                    f"{path}: {len(file.subdatasets)} pages; a GeoTIFF has its bands in one. Write them as planes of "
                    "one page (tifffile: planarconfig='separate'), or use --modality raster, which reads pages as bands"
                )
            check_size(path, file.height, file.width)
            if ColorInterp.palette in file.colorinterp:
                raise DataError(f"{path}: a palette image; its numbers are indices, not intensities")
            kept = [i for i, role in zip(file.indexes, file.colorinterp, strict=True) if role is not ColorInterp.alpha]
            stored, valid = file.read(kept), file.read_masks(kept) > 0  # (P, H, W) each
            for number, index in enumerate(kept):  # GDAL's mask is made of one of mask, nodata and alpha alone
                if (missing := file.nodatavals[index - 1]) is not None:
                    valid[number] &= stored[number] != missing
            for alpha in set(file.indexes) - set(kept):
                valid &= file.read(alpha) > 0
            bands = tuple(_tags(file, index) for index in kept)
            place = georeference_of(file)
    except rasterio.errors.RasterioError as error:
        raise DataError(f"{path}: damaged, or no TIFF ({error})") from error
    if stored.dtype.kind not in "uif" or (stored.dtype.kind in "ui" and stored.dtype.itemsize > 4):
        raise DataError(f"{path}: values of type {stored.dtype} are not supported; store them as float32")
    stated = stated_valid(path, stored)
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


def _tags(file: Any, index: int) -> BandTags:
    tags = {**file.tags(index), **file.tags(index, ns="IMAGERY")}
    return BandTags(
        (file.descriptions[index - 1] or "").strip(),
        (file.units[index - 1] or "").strip(),
        file.scales[index - 1],
        file.offsets[index - 1],
        {key.lower(): value for key, value in tags.items()},
    )
