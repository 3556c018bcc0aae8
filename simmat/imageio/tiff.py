"""TIFF: which axes are planes is told by the tags, never by the sizes."""

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
from simmat.imageio.values import Colour, ImageFile, check_size

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType, TIFF 6.0 page 36
_CODEC_HINT = "pip install imagecodecs (or store the file uncompressed, or with deflate and no predictor)"
_GDAL_METADATA, _NODATA = 42112, 42113  # tags, https://gdal.org/en/stable/drivers/raster/gtiff.html
_ALPHA = (1, 2)  # ExtraSamples, associated and not, TIFF 6.0 page 31


def read_tiff(path: Path) -> ImageFile:
    """Read a TIFF: one page of one or more samples, or pages of one sample that all agree.

    Pages that the file itself marks as reduced copies (overviews) are passed over.

    Raises:
        DataError: no readable page, pages that differ, a codec that is not installed, or numbers that
            are no plain intensities (palette, white-is-zero, YCbCr, CMYK).
    """
    with opened(path) as tiff:
        pages = _main_pages(path, list(tiff.pages))
        for page in pages:
            _check_whole(path, page)
        if len(pages) == 1 and tiff.series[0].size != int(np.prod(pages[0].shape)):
            raise DataError(f"{path}: a stack that lists only its first page (ImageJ); store one file an image")
        planes = np.concatenate([_planes_of(path, page) for page in pages])  # (P, H, W)
        return ImageFile(
            planes,
            "tiff",
            _colour(pages),
            path,
            description=str(pages[0].description or ""),
            nodata=_nodata(path, pages[0]),
            scales=_scales(pages),
            alpha=bool(pages[0].extrasamples) and pages[0].extrasamples[-1] in _ALPHA,
        )


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a TIFF through tifffile, whose log repeats for every file of a set what is wrong with its tags."""
    import tifffile

    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        with tifffile.TiffFile(path) as tiff:
            yield tiff
    finally:
        log.disabled = before


def _main_pages(path: Path, pages: list[Any]) -> list[Any]:
    """Return the pages that hold the image, after checking that they agree."""
    full = []
    for page in pages:
        page = page.aspage()
        if page.subfiletype & _MASK:
            raise DataError(f"{path}: holds a transparency mask page; write its pixels as nodata and drop the page")
        if not page.subfiletype & _REDUCED:
            full.append(page)
    if not full:
        raise DataError(f"{path}: holds no full-size page")
    for page in full:
        check_size(path, page.imagelength, page.imagewidth)
        _check_meaning(path, page)
    kinds = {(page.shape, str(page.dtype), int(page.photometric)) for page in full}
    if len(kinds) > 1:
        listed = ", ".join(sorted(f"{shape} {dtype}" for shape, dtype, _ in kinds))
        raise DataError(f"{path}: its {len(full)} pages differ ({listed}); pages of one image must agree")
    if len(full) > 1 and full[0].samplesperpixel > 1:
        raise DataError(
            f"{path}: {len(full)} pages of {full[0].samplesperpixel} samples each are several images; store one a file"
        )
    return full


def _check_meaning(path: Path, page: Any) -> None:
    """Refuse pages whose numbers are no plain intensities."""
    name = getattr(page.photometric, "name", str(page.photometric))  # a number where no standard knows it
    if name not in ("MINISBLACK", "RGB"):
        raise DataError(
            f"{path}: TIFF photometric {name} is not supported; store the planes as MINISBLACK or RGB"
            + (" (the numbers of a palette are indices, not intensities)" if name == "PALETTE" else "")
        )
    if page.imagedepth != 1:
        raise DataError(f"{path}: a volume of depth {page.imagedepth}, not an image; store one slice a file")


def _check_whole(path: Path, page: Any) -> None:
    """Refuse a file that ends before its pixels do; tifffile would fill some of them with zeros."""
    size = path.stat().st_size
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if any(part == (0, 0) for part in parts) and page.tags.get(_NODATA) is not None:
        parts = [part for part in parts if part != (0, 0)]  # GDAL's sparse files leave out tiles of nodata alone
    elif not parts:
        parts = [(size, 1)]
    if any(offset + count > size or count == 0 for offset, count in parts):
        raise DataError(f"{path}: damaged or cut short, pixels are missing from its {size} bytes")


def _planes_of(path: Path, page: Any) -> npt.NDArray[Any]:
    """Return (P, H, W) of one page; PlanarConfiguration says where the samples lie."""
    try:
        values = page.asarray()
    except (ValueError, KeyError, ImportError, NotImplementedError) as error:
        if "imagecodecs" in str(error) or isinstance(error, ImportError):
            scheme = getattr(page.compression, "name", page.compression)
            predictor = "" if page.predictor == 1 else f" with predictor {int(page.predictor)}"
            raise DataError(
                f"{path}: TIFF compression {scheme}{predictor}, {page.bitspersample} bits, needs a codec: {_CODEC_HINT}"
            ) from error
        raise
    if page.axes == "YX":
        return np.asarray(values)[None]
    if page.axes == "YXS":
        return np.ascontiguousarray(np.moveaxis(values, 2, 0))
    if page.axes == "SYX":
        return np.asarray(values)
    raise DataError(f"{path}: TIFF axes {page.axes} are not supported; store (height, width, planes) or one plane")


def _colour(pages: list[Any]) -> Colour:
    name = pages[0].photometric.name
    if name == "RGB":
        return "rgb"
    return "gray" if len(pages) == 1 and pages[0].samplesperpixel == 1 else "planes"


def _nodata(path: Path, page: Any) -> float | None:
    """Return the value of the GDAL_NODATA tag (42113), which GIS programs write."""
    tag = page.tags.get(_NODATA)
    if tag is None:
        return None
    try:
        return float(str(tag.value).strip().strip("\0"))
    except ValueError:
        raise DataError(f"{path}: its GDAL_NODATA tag is no number: {tag.value!r}") from None


def _scales(pages: Sequence[Any]) -> tuple[tuple[float, float], ...]:
    """Return factor and offset of each plane, as the GDAL_METADATA tags state them; (1, 0) where they do not."""
    samples = pages[0].samplesperpixel
    stated: list[dict[str, float]] = [{} for _ in range(samples * len(pages))]
    for number, page in enumerate(pages):
        for role, sample, value in _stated_scales(page):
            first, count = (0, samples) if sample is None else (sample, 1)
            for plane in stated[number * samples + first :][:count]:
                plane[role] = value
    return tuple((plane.get("scale", 1.0), plane.get("offset", 0.0)) for plane in stated)


def _stated_scales(page: Any) -> list[tuple[str, int | None, float]]:
    """Return role, sample from 0 (None: all of the page) and number of each scale and offset that its tag states."""
    tag = page.tags.get(_GDAL_METADATA)
    if tag is None:
        return []
    try:
        items = list(ElementTree.fromstring(str(tag.value).strip("\0 \n")).iter("Item"))
        return [
            (role, int(item.attrib["sample"]) if "sample" in item.attrib else None, float(item.text or ""))
            for item in items
            if (role := item.get("role", "")) in ("scale", "offset")
        ]
    except (ElementTree.ParseError, ValueError):
        return []  # a text of another program, or a damaged one: it says nothing of numbers
