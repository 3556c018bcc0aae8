"""Products of Sentinel-2 as ESA delivers them: a `.SAFE` folder with a JPEG 2000 file for each band, and its metadata.

Layout: Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from simmat_plugin_geo.geotiff import BandTags, GeoTiff
from simmat_plugin_geo.rasters import raster_size, read_raster

from simmat import Window
from simmat.errors import DataError
from simmat.io.limits import check_size, check_window, decoding_errors
from simmat.io.paths import is_image_folder
from simmat.io.reading import read_bytes
from simmat.io.states import FileState, content_states
from simmat.types import not_nodata

_BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")  # fmt: skip
"""Bands by their number `band_id` in the metadata."""
_NATIVE_M = dict(zip(_BANDS, (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 60, 20, 20), strict=True))  # fmt: skip
RESOLUTIONS_M = (10, 20, 60)
_MAX_METADATA = 2**26


@dataclass(frozen=True, slots=True)
class SafeBand:
    """A file of a band; its pixels are `step` times as long as those of the product's grid."""

    name: str
    file: Path
    step: int


@dataclass(frozen=True, slots=True)
class SafeProduct:
    """A product at one resolution.

    Attributes:
        baseline: processing baseline, such as "05.09".
        scale: reflectance = stored * scale + offset.
        offset: see `scale`.
        size_hw: (height, width) of the grid.
        bands: in the order of their wavelengths.
    """

    path: Path
    baseline: str
    scale: float
    offset: float
    size_hw: tuple[int, int]
    bands: tuple[SafeBand, ...]


def open_safe(path: Path, resolution_m: int) -> SafeProduct:
    """Return what a product states, and its files.

    Raises:
        DataError: it lacks its metadata or all bands of this resolution, or its metadata are damaged.
    """
    if not is_image_folder(path):
        raise DataError(
            f"{path}: no such folder; a Sentinel-2 product is a folder NAME.SAFE (unzip it first)"
        )
    found = sorted(path.glob("MTD_MSIL*.xml"))
    if len(found) != 1:
        raise DataError(
            f"{path}: needs its metadata, MTD_MSIL2A.xml or MTD_MSIL1C.xml, found {len(found)} of them; download the "
            "whole product"
        )
    return _read(path, found[0], resolution_m, content_states(found[0]))


@lru_cache(maxsize=16)
def _read(
    path: Path, metadata: Path, resolution_m: int, _states: tuple[FileState, ...]
) -> SafeProduct:
    with decoding_errors(metadata, "xml"):
        text = read_bytes(metadata, "metadata file", limit=_MAX_METADATA)
        root = ElementTree.fromstring(text)
        baseline = _text(root, "PROCESSING_BASELINE", metadata)
        is_surface = metadata.name.startswith("MTD_MSIL2A")
        kind = "BOA" if is_surface else "RADIO"
        quantification = float(
            _text(
                root,
                "BOA_QUANTIFICATION_VALUE" if is_surface else "QUANTIFICATION_VALUE",
                metadata,
            )
        )
        offsets = {float(item.text or "") for item in root.iter(f"{kind}_ADD_OFFSET")}
        if not quantification > 0:
            raise DataError(f"{metadata}: states quantification {quantification:g}")
        if len(offsets) > 1:
            raise DataError(
                f"{metadata}: states several offsets, {sorted(offsets)}; one for all bands is read"
            )
        if not offsets and float(baseline) >= 4:
            raise DataError(
                f"{metadata}: states processing baseline {baseline}, but no {kind}_ADD_OFFSET, which baselines from "
                "04.00 have; the metadata are damaged"
            )
    bands = _bands(path, resolution_m)
    reference = next(band for band in bands if band.step == 1)
    return SafeProduct(
        path,
        baseline,
        1 / quantification,
        (offsets.pop() if offsets else 0.0) / quantification,
        raster_size(reference.file),
        bands,
    )


def _text(root: ElementTree.Element, name: str, metadata: Path) -> str:
    item = next(root.iter(name), None)
    if item is None or not (item.text or "").strip():
        raise DataError(f"{metadata}: states no {name}; the metadata are damaged")
    return str(item.text).strip()


def _bands(path: Path, resolution_m: int) -> tuple[SafeBand, ...]:
    """Return the files of the bands at a resolution, and of coarser ones."""
    folders = sorted(path.glob("GRANULE/*/IMG_DATA"))
    if len(folders) > 1:
        raise DataError(
            f"{path}: holds {len(folders)} tiles, as products did before December 2016; give a product of one tile"
        )
    found: dict[str, dict[int, Path]] = {}
    for folder in folders:
        for file in sorted(folder.rglob("*.jp2")):
            match = re.fullmatch(r".*_(B\d[\dA])(?:_(\d\d)m)?\.jp2", file.name)
            if match is None or match[1] not in _NATIVE_M:
                continue
            stated = int(match[2]) if match[2] else _NATIVE_M[match[1]]
            found.setdefault(match[1], {})[stated] = file
    bands = []
    for name in _BANDS:
        files = found.get(name, {})
        for metres in RESOLUTIONS_M:
            if metres in files and metres >= resolution_m:
                bands.append(SafeBand(name, files[metres], metres // resolution_m))
                break
    if not any(band.step == 1 for band in bands):
        there = sorted({metres for files in found.values() for metres in files})
        listed = ", ".join(f"{metres} m" for metres in there) or "none at all"
        raise DataError(
            f"{path}: has no band of {resolution_m} m in GRANULE/*/IMG_DATA, its bands are of {listed}; choose another "
            "resolution, or download the whole product"
        )
    return tuple(bands)


def read_safe(
    product: SafeProduct,
    nodata: float | None,
    window: Window | None,
    wanted: Callable[[Sequence[BandTags]], Collection[int]] | None,
) -> GeoTiff:
    """Read the bands on the grid of the product; the pixel of a coarser band is repeated, no value is interpolated."""
    tags = tuple(BandTags(band.name) for band in product.bands)
    picked = sorted(range(len(tags)) if wanted is None else wanted(tags))
    part = Window(0, 0, *product.size_hw) if window is None else window
    check_window(product.path, part, product.size_hw)
    check_size(product.path, *part.size_hw, len(picked))
    stored = np.zeros((len(tags), *part.size_hw), np.uint16)
    valid = np.zeros(stored.shape, np.bool_)
    georeference = None
    for index in picked:
        plane = _plane(product, product.bands[index], part)
        stored[index] = plane
        valid[index] = not_nodata(plane, nodata)
    reference = next(band for band in product.bands if band.step == 1)
    georeference = read_raster(
        reference.file, window=Window(part.y0, part.x0, part.y0 + 1, part.x0 + 1)
    ).georeference
    return GeoTiff(stored, valid, tags, georeference, product.path)


def _plane(product: SafeProduct, band: SafeBand, part: Window) -> npt.NDArray[Any]:
    """Return (h, w) of a band in a window of the product's grid."""
    height, width = raster_size(band.file)
    if (height * band.step, width * band.step) != product.size_hw:
        raise DataError(
            f"{band.file}: is {width}x{height}, which does not fit the grid of "
            f"{product.size_hw[1]}x{product.size_hw[0]} pixels"
        )
    coarse = Window(
        part.y0 // band.step,
        part.x0 // band.step,
        -(-part.y1 // band.step),
        -(-part.x1 // band.step),
    )
    found = read_raster(band.file, window=coarse).stored
    if len(found) != 1 or found.dtype != np.uint16:
        raise DataError(
            f"{band.file}: holds {len(found)} planes of {found.dtype}, not one of uint16"
        )
    plane: npt.NDArray[Any] = found[0].repeat(band.step, 0).repeat(band.step, 1)
    top, left = coarse.y0 * band.step, coarse.x0 * band.step
    return plane[part.y0 - top : part.y1 - top, part.x0 - left : part.x1 - left]
