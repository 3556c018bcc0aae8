"""Read TIFF through tifffile, whole or in windows; the tags say which axis holds the planes, never the sizes.

Of a window, only the tiles or strips that it touches are decoded.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.limits import MAX_PLANES, check_size, check_window, decoding_errors
from simmat.io.paths import require_file
from simmat.types import Colour, ImageFile, Window

_REDUCED = 1  # bits of NewSubfileType, TIFF 6.0 page 36
_MASK = 4
_GDAL_METADATA = 42112  # tags, https://gdal.org/en/stable/drivers/raster/gtiff.html
_NODATA = 42113
_ALPHA = (1, 2)  # ExtraSamples, associated and not, TIFF 6.0 page 31
_ORIENTATION = 274
# GeoKeyDirectoryTag, OGC GeoTIFF 1.1: present with a coordinate system
_GEO_KEYS = 34735
_HEADER = 8  # bytes at the start of a TIFF that hold no pixels
_LOSSLESS = {"NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS", "LZMA", "ZSTD"}
_LOSSLESS |= {"CCITTRLE", "CCITTRLEW", "CCITT_T4", "CCITT_T6"}
"""tifffile's names of the compressions that keep every number."""
_JPEG = (6, 7, 34892, 33007)  # compressions whose tiles share tables
_MAX_STRIP_BYTES = 320 * 2**20
"""Most bytes of decoded strips to keep of one file: 1024 rows of 20,000 pixels in 8 bands of 16 bits."""
_MAX_TAG_VALUES = 2**24
"""Values in the tags of all pages of a file, at about 60 bytes each; pages may share them, so a small file has many."""
TIFF_ENDINGS = (".tif", ".tiff")
# elements of .aux.xml that change values
_CHANGING = re.compile(rb"<(Scale|Offset|NoDataValue)>")
_MAX_NOTES = 2**24  # bytes of an .aux.xml that are searched
_OWN_FILE_ONLY: dict[str, Any] = {
    "is_ome": False,
    "is_ndtiff": False,
    "is_mmstack": False,
    "is_scanimage": False,
}
"""Kinds of TIFF for which tifffile would also read other files named in this one, or pages it does not list."""


def open_tiff(
    path: Path, *, labels: bool = False, offsets: tuple[int, ...] = ()
) -> TiffImage:
    """Return a TIFF ready for reading windows; the last few are remembered, until the file changes.

    The tags of a large TIFF list 100,000 offsets, and a strip is as wide as the image, so that each window of a row
    needs it again. A sensor's `load_window` has no place to keep an open file.

    Raises:
        DataError: as `TiffImage`.
    """
    return _remembered(path, labels, offsets, file_state(path))


@lru_cache(maxsize=4)  # the files of one sample
def _remembered(
    path: Path, labels: bool, offsets: tuple[int, ...], _state: tuple[int, ...]
) -> TiffImage:
    return TiffImage(path, labels=labels, offsets=offsets)


class TiffImage:
    """A TIFF whose tags are read; it holds no open file.

    It has one page of one or more samples, or pages of one sample that all agree.

    Args:
        labels: True for a label image: one page, lossless; of a palette image the indices.
        offsets: where the pages of one frame start in a file of frames; by default all pages are one image.

    Raises:
        DataError: no readable page, pages that differ, numbers that are not plain intensities (palette, white-is-zero,
            YCbCr, CMYK), or a file beside it that changes its values.
    """

    def __init__(
        self, path: Path, *, labels: bool = False, offsets: tuple[int, ...] = ()
    ) -> None:
        self.path = path
        self._itemsize = 8 if labels else 4
        if not labels:
            check_beside(path)
        # tags are read on their first use, so all are used here
        with open_tifffile(path) as tiff:
            self._pages = _main_pages(path, tiff, labels=labels, offsets=offsets)
            self._order = tiff.byteorder
            self._decoders = [page.decode for page in self._pages]
            self._tables = [_jpeg_tables(page) for page in self._pages]
            description = str(tiff.pages[0].aspage().description or "")
            self._head = _described(path, self._pages, description)
        self.size_hw = (int(self._pages[0].imagelength), int(self._pages[0].imagewidth))
        # decoded ones, for the other windows of the same rows
        self._strips: dict[tuple[int, int], Any] = {}

    def read(self, window: Window | None = None) -> ImageFile:
        """Read the planes (P, h, w) of a window, by default of the whole image.

        Raises:
            DataError: it reaches beyond the image, or is larger than `check_size` allows.
        """
        if window is None:
            window = Window(0, 0, *self.size_hw)
        check_window(self.path, window, self.size_hw)
        empty = self._head.planes
        check_size(
            self.path,
            *window.size_hw,
            len(empty),
            itemsize=max(self._itemsize, empty.itemsize),
        )
        self._drop_strips_above(window.y0)
        with self.path.open("rb") as stream:
            parts = [
                self._read_page(stream, number, window)
                for number in range(len(self._pages))
            ]
        is_last_in_raster_order = (window.y1, window.x1) == self.size_hw
        if is_last_in_raster_order:
            self._strips = {}
        planes = np.concatenate(parts)  # (P, h, w)
        return replace(self._head, planes=np.ascontiguousarray(planes))

    def _drop_strips_above(self, y0: int) -> None:
        """Forget the strips that end above a row."""
        kept = {}
        # a list: another thread may add one meanwhile
        for key, strip in list(self._strips.items()):
            _, (_, _, top, _, _), shape = strip
            if top + shape[1] > y0:
                kept[key] = strip
        self._strips = kept

    def _read_page(
        self, stream: BinaryIO, number: int, window: Window
    ) -> npt.NDArray[Any]:
        """Return (S, h, w) of one page."""
        page = self._pages[number]
        if _is_mappable(page):
            dtype = page.dtype.newbyteorder(self._order)
            planes: npt.NDArray[Any] = np.memmap(
                self.path,
                dtype=dtype,
                mode="r",
                offset=page.dataoffsets[0],
                shape=page.shape,
            )
            if page.axes == "YX":
                planes = planes[None]
            elif page.axes == "YXS":
                planes = np.moveaxis(planes, 2, 0)
            return np.array(planes[:, *window.slices])
        height, width = window.size_hw
        # samples in planes of their own, or side by side
        separate, _, _, _, together = page.shaped
        out = np.empty((separate, height, width, together), page.dtype)
        for index in _touched(page, window):
            values, (sample, _, top, left, _), shape = self._decoded(
                stream, number, index, window
            )
            y0 = max(top, window.y0)
            x0 = max(left, window.x0)
            y1 = min(top + shape[1], window.y1)
            x1 = min(left + shape[2], window.x1)
            part = out[
                sample, y0 - window.y0 : y1 - window.y0, x0 - window.x0 : x1 - window.x0
            ]
            if values is None:
                part[...] = page.nodata
            else:
                part[...] = values[0, y0 - top : y1 - top, x0 - left : x1 - left]
        # one of the two kinds of samples is 1
        return np.moveaxis(out, 3, 1).reshape(-1, height, width)

    def _decoded(
        self, stream: BinaryIO, number: int, index: int, window: Window
    ) -> Any:
        """Return a decoded tile or strip (1, h, w, S), None for one that is left out; its place, and its shape."""
        page = self._pages[number]
        if (number, index) in self._strips:
            return self._strips[number, index]
        stream.seek(page.dataoffsets[index])
        size = page.databytecounts[index]
        encoded = stream.read(size) if size else None
        decoded = self._decoders[number](encoded, index, **self._tables[number])
        is_needed_again = not page.is_tiled and window.x1 - window.x0 < page.imagewidth
        if is_needed_again and self._has_room_for(decoded[0]):
            self._strips[number, index] = decoded
        return decoded

    def _has_room_for(self, values: npt.NDArray[Any] | None) -> bool:
        """Return whether one more strip may be kept.

        If there is no room, none is dropped, because the oldest one is needed next.
        """
        if values is None:
            return True
        kept_bytes = 0
        for strip, _, _ in list(self._strips.values()):
            if strip is not None:
                kept_bytes += strip.nbytes
        return kept_bytes + values.nbytes <= _MAX_STRIP_BYTES


def _jpeg_tables(page: Any) -> dict[str, Any]:
    """Return what the decoder of a page needs of the tables that its tiles share."""
    if page.compression not in _JPEG:
        return {}
    return {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}


def _touched(page: Any, window: Window) -> Iterator[int]:
    """Yield the indices of the tiles or strips that a window touches."""
    if page.is_tiled:
        height = page.tilelength
        width = page.tilewidth
    else:
        height = page.rowsperstrip
        width = page.imagewidth
    rows = math.ceil(page.imagelength / height)
    columns = math.ceil(page.imagewidth / width)
    for sample in range(page.shaped[0]):
        for row in range(window.y0 // height, (window.y1 - 1) // height + 1):
            for column in range(window.x0 // width, (window.x1 - 1) // width + 1):
                yield (sample * rows + row) * columns + column


def _described(path: Path, pages: Sequence[Any], of_file: str) -> ImageFile:
    """Return an image of P planes without pixels, with what the pages state about it."""
    first = pages[0]
    count = len(pages) * first.samplesperpixel
    colour: Colour = "planes"
    if first.photometric.name == "RGB":
        colour = "rgb"
    elif count == 1:
        colour = "gray"
    return ImageFile(
        np.empty((count, 0, 0), first.dtype),
        "tiff",
        colour,
        path,
        description=str(first.description or of_file),
        nodata=_nodata(path, first),
        scales=_scales(pages),
        alpha=bool(first.extrasamples) and first.extrasamples[-1] in _ALPHA,
    )


def check_tiff(path: Path, *, whole: bool = True) -> None:
    """Check that a TIFF is complete and not too large, before another library opens it.

    Args:
        whole: False where only windows of it will be decoded, so its own size does not matter.

    Raises:
        DataError: it is missing, damaged, claims more than `check_size` allows, or a file beside it changes its values.
    """
    check_beside(path)
    with decoding_errors(path, "tiff"), open_tifffile(path) as tiff:
        pages = _pages_of(path, tiff)
        _check_claims(path, pages)
        if whole:
            largest = max(pages, key=lambda page: page.imagelength * page.imagewidth)
            stored = max((page.bitspersample or 8) // 8 for page in pages)
            count = sum(
                page.samplesperpixel * max(page.imagedepth, 1) for page in pages
            )
            check_size(
                path, largest.imagelength, largest.imagewidth, count, itemsize=stored
            )


def sidecars(path: Path) -> tuple[Path, Path]:
    """Return the files beside a TIFF that are looked at when it is read: GDAL's mask and its notes, there or not."""
    return path.with_name(path.name + ".msk"), path.with_name(path.name + ".aux.xml")


def check_beside(path: Path) -> None:
    """Raise DataError for files beside a raster by which GDAL changes its values, and which are not read."""
    mask, notes = sidecars(path)
    if mask.exists():
        raise _not_read(
            path, mask, "a mask", "gdalwarp -dstnodata NUMBER OLD.tif NEW.tif"
        )
    if notes.is_file():
        with notes.open("rb") as stream:
            names = set(_CHANGING.findall(stream.read(_MAX_NOTES)))
        if names:
            elements = b", ".join(sorted(names)).decode()
            raise _not_read(path, notes, elements, "gdal_translate OLD.tif NEW.tif")


def _not_read(path: Path, beside: Path, content: str, command: str) -> DataError:
    return DataError(
        f"{path}: {beside.name} beside it holds {content}, which is not read. Put it into the file itself ({command}), "
        "or move it away"
    )


def file_state(path: Path) -> tuple[int, ...]:
    """Return what changes when a file changes; it is part of the key of cached values."""
    require_file(path, "image")
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def states_georeference(path: Path) -> bool:
    """Return whether an image file is a TIFF with a coordinate system, which a plugin for maps reads."""
    if path.suffix.lower() not in TIFF_ENDINGS:
        return False
    return _has_geo_keys(path, file_state(path))


@lru_cache(maxsize=4)
def _has_geo_keys(path: Path, _state: tuple[int, ...]) -> bool:
    with decoding_errors(path, "tiff"), open_tifffile(path) as tiff:
        return _GEO_KEYS in tiff.pages[0].aspage().tags


@contextmanager
def open_tifffile(path: Path) -> Iterator[Any]:
    """Open a TIFF through tifffile, without its log, which would report wrong tags for every file of a data set."""
    import tifffile

    require_file(path, "image")
    log = logging.getLogger("tifffile")
    before = log.disabled
    log.disabled = True
    try:
        with tifffile.TiffFile(path, **_OWN_FILE_ONLY) as tiff:
            yield tiff
    finally:
        log.disabled = before


def _main_pages(
    path: Path, tiff: Any, *, labels: bool, offsets: tuple[int, ...]
) -> list[Any]:
    """Return the pages of the image without those marked as reduced copies, after checking that they agree."""
    every = [_page_at(tiff, offset) for offset in offsets] or _pages_of(path, tiff)
    pages = [page for page in every if not page.subfiletype & _REDUCED]
    if not pages:
        raise DataError(f"{path}: holds no full-size page")
    _check_claims(path, pages, itemsize=8 if labels else 4)
    for page in pages:
        if page.compression == 1:
            # a part of the compression: libtiff and Pillow ignore the tag, tifffile would apply it
            page.predictor = 1
    wanted = "mask, without loss" if labels else "image of planes, MINISBLACK or RGB"
    faults = _unsupported(every, pages, None if offsets else tiff, labels=labels)
    for fault, is_so in faults.items():
        if is_so:
            raise DataError(f"{path}: {fault}; store one {wanted}, as TIFF or PNG")
    return pages


def _unsupported(
    every: Sequence[Any], pages: Sequence[Any], tiff: Any, *, labels: bool
) -> dict[str, bool]:
    """Return each content that is not one image of plain numbers -> whether this TIFF has it.

    `tiff` is None for a frame of a file of frames.
    """
    first = pages[0]
    count = len(pages)
    kinds = sorted({f"{page.shape} {page.dtype}" for page in pages})
    colours = {
        getattr(page.photometric, "name", str(page.photometric)) for page in pages
    }
    scheme = getattr(first.compression, "name", str(first.compression))
    orientation = first.tags[_ORIENTATION].value if _ORIENTATION in first.tags else 1
    known = {"MINISBLACK", "RGB", "PALETTE"} if labels else {"MINISBLACK", "RGB"}
    return {
        "a transparency mask page, whose pixels should be nodata": any(
            page.subfiletype & _MASK for page in every
        ),
        f"numbers of photometric {', '.join(sorted(colours))} are not intensities": not colours
        <= known,
        "a volume, not an image": any(page.imagedepth != 1 for page in pages),
        f"its {count} pages differ ({', '.join(kinds)})": len(kinds) > 1
        or len(colours) > 1,
        f"{count} pages of {first.samplesperpixel} samples are several images": count
        > 1
        and first.samplesperpixel > 1,
        f"axes {first.axes}": first.axes not in ("YX", "YXS", "SYX"),
        "a stack that lists only its first page (ImageJ)": count == 1
        and tiff
        and tiff.series[0].size != first.size,
        f"{count} pages; a mask has one": labels and count > 1,
        f"compressed as {scheme}, which changes label values": labels
        and scheme not in _LOSSLESS,
        f"the tag Orientation {orientation}, but images are read as they are stored": labels
        and orientation != 1,
    }


def _pages_of(path: Path, tiff: Any) -> list[Any]:
    """Return all pages; counting them first finds an endless chain of pages.

    Raises:
        DataError: there are too many pages, or their tags hold too many values.
    """
    count = len(tiff.pages)
    if not 1 <= count <= MAX_PLANES:
        raise DataError(
            f"{path}: damaged, or no TIFF: it lists {count} pages; 1 to {MAX_PLANES} are read"
        )
    pages = []
    values = 0
    for number in range(count):
        page = tiff.pages[number].aspage()
        values += sum(tag.count for tag in page.tags)
        if values > _MAX_TAG_VALUES:
            raise DataError(
                f"{path}: damaged: the tags of its first {number + 1} pages hold {values} values, at most "
                f"{_MAX_TAG_VALUES} are read"
            )
        pages.append(page)
    return pages


def _page_at(tiff: Any, offset: int) -> Any:
    """Return a page without reading those before it, each of which states where the next one starts."""
    from tifffile import TiffPage

    tiff.filehandle.seek(offset)
    return TiffPage(tiff, index=0)


def _check_claims(path: Path, pages: Sequence[Any], *, itemsize: int = 4) -> None:
    """Check the number of planes and the largest tile or strip before any is decoded, and that none is missing."""
    count = sum(page.samplesperpixel * max(page.imagedepth, 1) for page in pages)
    check_size(path, 1, 1, count)  # refuses none for its size
    for page in pages:
        # a tile is decoded as a whole, even where most of it lies outside of the image
        if page.is_tiled:
            rows, columns = page.tilelength, page.tilewidth
        elif _is_mappable(page):
            rows, columns = min(page.imagelength, 1), min(page.imagewidth, 1)
        else:
            rows, columns = min(page.rowsperstrip, page.imagelength), page.imagewidth
        check_size(
            path,
            rows,
            columns,
            page.samplesperpixel,
            itemsize=max(itemsize, (page.bitspersample or 8) // 8),
        )
        _check_whole(path, page)


def _check_whole(path: Path, page: Any) -> None:
    """Refuse a file that ends before its pixels do; tifffile would fill missing ones with zeros."""
    size = path.stat().st_size
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    # GDAL omits tiles of nodata
    is_sparse = (0, 0) in parts and page.tags.get(_NODATA) is not None
    is_whole = bool(parts)
    stored_bytes = 0
    for offset, count in parts:
        if is_sparse and (offset, count) == (0, 0):
            continue
        if offset < _HEADER or offset + count > size or count == 0:
            is_whole = False
        stored_bytes += count
    # uncompressed
    row_bytes = page.imagewidth * page.samplesperpixel * (page.bitspersample or 8) // 8
    is_short = (
        page.compression == 1
        and not is_sparse
        and stored_bytes < page.imagelength * row_bytes
    )
    if is_short or not is_whole:
        raise DataError(
            f"{path}: damaged or cut short, pixels are missing from its {size} bytes"
        )


def _is_mappable(page: Any) -> bool:
    """Return whether the pixels of a page lie in the file as in memory, so that no tile or strip need be decoded."""
    return bool(page.is_final and page.dataoffsets[0])


def _nodata(path: Path, page: Any) -> tuple[float, ...]:
    """Return the value of the GDAL_NODATA tag, which GIS programs write, if there is one."""
    tag = page.tags.get(_NODATA)
    if tag is None:
        return ()
    try:
        return (float(str(tag.value).strip().strip("\0")),)
    except ValueError:
        raise DataError(
            f"{path}: its GDAL_NODATA tag must be a number, got {tag.value!r}"
        ) from None


def _scales(pages: Sequence[Any]) -> tuple[tuple[float, float], ...]:
    """Return factor and offset of each plane, as the GDAL_METADATA tags state them; (1, 0) where they do not."""
    samples = pages[0].samplesperpixel
    # (pages, samples, factor and offset)
    stated = np.tile([1.0, 0.0], (len(pages), samples, 1))
    for number, page in enumerate(pages):
        if _GDAL_METADATA not in page.tags:
            continue
        text = str(page.tags[_GDAL_METADATA].value).strip("\0 \n")
        # text of another program, or damaged: it states no scale
        with suppress(ElementTree.ParseError, ValueError):
            for item in ElementTree.fromstring(text).iter("Item"):
                role = item.get("role")
                if role not in ("scale", "offset"):
                    continue
                sample = (
                    int(item.attrib["sample"])
                    if "sample" in item.attrib
                    else slice(None)
                )
                with suppress(IndexError):
                    stated[number, sample, int(role == "offset")] = float(
                        item.text or ""
                    )
    scales = stated.reshape(-1, 2)  # (P, factor and offset)
    return tuple((float(factor), float(offset)) for factor, offset in scales)
