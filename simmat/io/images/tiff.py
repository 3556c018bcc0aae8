"""Read TIFF through tifffile; the tags say which axis holds the planes, never the sizes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.files import require_file
from simmat.io.images.limits import MAX_PLANES, check_size, damaged
from simmat.io.images.values import Colour, ImageFile

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType, TIFF 6.0 page 36
_GDAL_METADATA, _NODATA = 42112, 42113  # tags, https://gdal.org/en/stable/drivers/raster/gtiff.html
_ALPHA = (1, 2)  # ExtraSamples, associated and not, TIFF 6.0 page 31
_ORIENTATION = 274
_HEADER = 8  # bytes at the start of a TIFF that hold no pixels
_LOSSLESS = {"NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA", "ZSTD"}
_LOSSLESS |= {"CCITTRLE", "CCITTRLEW", "CCITT_T4", "CCITT_T6"}
"""tifffile's names of the compressions that keep every number."""
_OWN_FILE_ONLY: dict[str, Any] = {"is_ome": False, "is_ndtiff": False, "is_mmstack": False, "is_scanimage": False}
"""Kinds of TIFF for which tifffile would also read other files named in this one, or pages it does not list."""


def described(path: Path, pages: Sequence[Any], planes: npt.NDArray[Any]) -> ImageFile:
    """Return planes (P, H, W), or a part of them, with what the pages say of them."""
    colour: Colour = "rgb" if pages[0].photometric.name == "RGB" else "gray" if len(planes) == 1 else "planes"
    return ImageFile(
        planes,
        "tiff",
        colour,
        path,
        description=str(pages[0].description or ""),
        nodata=_nodata(path, pages[0]),
        scales=_scales(pages),
        alpha=bool(pages[0].extrasamples) and pages[0].extrasamples[-1] in _ALPHA,
    )


def check_tiff(path: Path, *, whole: bool = True) -> None:
    """Check that a TIFF is complete and not too large, before another library opens it.

    Args:
        whole: False where only windows of it will be decoded, so its own size does not matter.

    Raises:
        DataError: it is missing, damaged, or claims more than `check_size` allows.
    """
    with damaged(path, "tiff"), opened(path) as tiff:
        _check_claims(path, _pages_of(path, tiff), whole=whole)


def file_state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file changes; it is part of the key of cached values."""
    require_file(path, "image")
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a TIFF through tifffile, without its log, which would report wrong tags for every file of a data set."""
    import tifffile

    require_file(path, "image")
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        with tifffile.TiffFile(path, **_OWN_FILE_ONLY) as tiff:
            yield tiff
    finally:
        log.disabled = before


def main_pages(path: Path, tiff: Any, *, labels: bool = False) -> list[Any]:
    """Return the pages of the image, after checking that they agree, without those marked as reduced copies."""
    full = []
    for page in _pages_of(path, tiff):
        if page.subfiletype & _MASK:
            raise DataError(f"{path}: holds a transparency mask page; write its pixels as nodata and drop the page")
        if not page.subfiletype & _REDUCED:
            full.append(page)
    if not full:
        raise DataError(f"{path}: holds no full-size page")
    if labels and len(full) > 1:
        raise DataError(f"{path}: {len(full)} pages; a mask has one")
    _check_claims(path, full, itemsize=8 if labels else 4, whole=False)
    for page in full:
        if page.compression == 1:
            page.predictor = 1  # a part of the compression: libtiff and Pillow ignore the tag, tifffile would apply it
        _check_meaning(path, page, palette=labels)
    if labels:
        _check_labels(path, full[0])
    kinds = {(page.shape, str(page.dtype), int(page.photometric)) for page in full}
    if len(kinds) > 1:
        listed = ", ".join(sorted(f"{shape} {dtype}" for shape, dtype, _ in kinds))
        raise DataError(f"{path}: its {len(full)} pages differ ({listed}); pages of one image must agree")
    if len(full) > 1 and full[0].samplesperpixel > 1:
        raise DataError(
            f"{path}: {len(full)} pages of {full[0].samplesperpixel} samples are several images; store one per file"
        )
    if full[0].axes not in ("YX", "YXS", "SYX"):
        raise DataError(
            f"{path}: TIFF axes {full[0].axes} are not supported; store (height, width, planes) or one plane"
        )
    if len(full) == 1 and tiff.series[0].size != int(np.prod(full[0].shape)):
        raise DataError(f"{path}: a stack that lists only its first page (ImageJ); store one image per file")
    return full


def _pages_of(path: Path, tiff: Any) -> list[Any]:
    """Return all pages; counting them first finds an endless chain of pages."""
    count = len(tiff.pages)
    if not 1 <= count <= MAX_PLANES:
        raise DataError(f"{path}: damaged, or no TIFF: it lists {count} pages; 1 to {MAX_PLANES} are read")
    return [tiff.pages[number].aspage() for number in range(count)]


def _check_claims(path: Path, pages: Sequence[Any], *, itemsize: int = 4, whole: bool = True) -> None:
    """Check the size of all pages together before any is decoded, and that the file contains all their bytes.

    Where windows are read, not the `whole`, the number of pixels is that of the largest tile or strip.
    """
    stored = max((page.bitspersample or 8) // 8 for page in pages)
    count = sum(page.samplesperpixel * max(page.imagedepth, 1) for page in pages)
    largest = max(pages, key=lambda page: page.imagelength * page.imagewidth)
    check_size(path, min(page.imagelength for page in pages), min(page.imagewidth for page in pages))
    height, width = (largest.imagelength, largest.imagewidth) if whole else (1, 1)
    check_size(path, height, width, count, itemsize=max(itemsize, stored))
    for page in pages:
        if page.is_tiled:  # a tile is decoded as a whole, even where most of it lies outside of the image
            check_size(path, page.tilelength, page.tilewidth, page.samplesperpixel, itemsize=max(itemsize, stored))
        elif not whole and not is_mappable(page):
            rows = min(page.rowsperstrip, page.imagelength)
            check_size(path, rows, page.imagewidth, page.samplesperpixel, itemsize=max(itemsize, stored))
        _check_whole(path, page)


def _check_meaning(path: Path, page: Any, *, palette: bool) -> None:
    """Refuse pages whose numbers are neither plain intensities nor labels."""
    name = getattr(page.photometric, "name", str(page.photometric))  # a number where no standard knows it
    if name == "MINISWHITE":
        raise DataError(
            f"{path}: white is zero in this TIFF (an inverting LUT of ImageJ), so it is not clear what its numbers "
            "mean; save it with black as zero"
        )
    if name not in (("MINISBLACK", "RGB", "PALETTE") if palette else ("MINISBLACK", "RGB")):
        raise DataError(
            f"{path}: TIFF photometric {name} is not supported; store the planes as MINISBLACK or RGB"
            + (" (the numbers of a palette are indices, not intensities)" if name == "PALETTE" else "")
        )
    if page.imagedepth != 1:
        raise DataError(f"{path}: a volume of depth {page.imagedepth}, not an image; store one slice per file")


def _check_labels(path: Path, page: Any) -> None:
    """Refuse a compression that changes labels, and a tag that rotates them against their image."""
    scheme = getattr(page.compression, "name", str(page.compression))
    if scheme not in _LOSSLESS:
        raise DataError(
            f"{path}: compressed as {scheme}, which changes label values; save the mask from the original without loss "
            "(PNG, or TIFF with deflate)"
        )
    tag = page.tags.get(_ORIENTATION)
    if tag is not None and tag.value != 1:
        raise DataError(
            f"{path}: this TIFF has the tag Orientation {tag.value}, but images are read as they are stored; save the "
            "mask without that tag, so that it fits the stored image"
        )


def _check_whole(path: Path, page: Any) -> None:
    """Refuse a file that ends before its pixels do; tifffile would fill missing ones with zeros."""
    size = path.stat().st_size
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    sparse = any(part == (0, 0) for part in parts) and page.tags.get(_NODATA) is not None
    if sparse:
        parts = [part for part in parts if part != (0, 0)]  # GDAL's sparse files omit tiles of nodata
    elif not parts:
        parts = [(size, 1)]
    row = page.imagewidth * page.samplesperpixel * (page.bitspersample or 8) // 8  # bytes, uncompressed
    short = page.compression == 1 and not sparse and sum(count for _, count in parts) < page.imagelength * row
    if short or any(offset < _HEADER or offset + count > size or count == 0 for offset, count in parts):
        raise DataError(f"{path}: damaged or cut short, pixels are missing from its {size} bytes")


def is_mappable(page: Any) -> bool:
    """Return whether the pixels of a page lie in the file as in memory, so that no tile or strip need be decoded."""
    return bool(page.is_final and page.dataoffsets[0])


def planes_first(values: npt.NDArray[Any], axes: str) -> npt.NDArray[Any]:
    """Return the values of a page as (P, H, W); its axes, "YX", "YXS" or "SYX", say where the samples are."""
    if axes == "YX":
        return values[None]
    return np.moveaxis(values, 2, 0) if axes == "YXS" else values


def _nodata(path: Path, page: Any) -> float | None:
    """Return the value of the GDAL_NODATA tag, which GIS programs write."""
    tag = page.tags.get(_NODATA)
    if tag is None:
        return None
    try:
        return float(str(tag.value).strip().strip("\0"))
    except ValueError:
        raise DataError(f"{path}: its GDAL_NODATA tag must be a number, got {tag.value!r}") from None


def _scales(pages: Sequence[Any]) -> tuple[tuple[float, float], ...]:
    """Return factor and offset of each plane, as the GDAL_METADATA tags state them; (1, 0) where they do not."""
    samples = pages[0].samplesperpixel
    stated = [{"scale": 1.0, "offset": 0.0} for _ in range(samples * len(pages))]
    for number, page in enumerate(pages):
        for role, sample, value in _stated_scales(page):
            first, count = (0, samples) if sample is None else (sample, 1)
            for plane in stated[number * samples + first :][:count]:
                plane[role] = value
    return tuple((plane["scale"], plane["offset"]) for plane in stated)


def _stated_scales(page: Any) -> list[tuple[str, int | None, float]]:
    """Return (role, sample from 0 or None for all, number) of each scale and offset in a page's GDAL_METADATA tag."""
    tag = page.tags.get(_GDAL_METADATA)
    if tag is None:
        return []
    try:
        return [
            (role, int(item.attrib["sample"]) if "sample" in item.attrib else None, float(item.text or ""))
            for item in ElementTree.fromstring(str(tag.value).strip("\0 \n")).iter("Item")
            if (role := item.get("role", "")) in ("scale", "offset")
        ]
    except (ElementTree.ParseError, ValueError):
        return []  # text of another program, or damaged: it states no scale
