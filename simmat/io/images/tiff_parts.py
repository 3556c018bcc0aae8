"""Read a TIFF of any size, or a window of it: only the tiles or strips that the window touches are decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from simmat.io.images.limits import check_size, check_window
from simmat.io.images.tiff import described, file_state, is_mappable, main_pages, opened, planes_first
from simmat.io.images.values import ImageFile
from simmat.types import Window

_KEPT_BYTES = 320 * 2**20
"""Most bytes of decoded strips to keep of one file: 1024 rows of 20,000 pixels in 8 bands of 16 bits."""
_FILES = 4
"""Files that are remembered, with their strips: those of one sample."""
_JPEG = (6, 7, 34892, 33007)  # compressions whose tiles share tables


def tiff_parts(path: Path, *, labels: bool = False) -> TiffParts:
    """Return a TIFF ready for reading windows; the last few are remembered, until the file changes.

    The tags of a large TIFF list 100,000 offsets, and a strip is as wide as the image, so that each window of a row
    needs it again. Those who read windows (a sensor's `load_window`) have nothing to hold an open file by.

    Raises:
        DataError: as `TiffParts`.
    """
    return _remembered(path, labels, file_state(path))


@lru_cache(maxsize=_FILES)
def _remembered(path: Path, labels: bool, _state: tuple[int, ...]) -> TiffParts:
    return TiffParts(path, labels=labels)


class TiffParts:
    """A TIFF whose tags are read; it holds no open file.

    It has one page of one or more samples, or pages of one sample that all agree.

    Args:
        labels: True for a label image: one page, lossless; of a palette image the indices.

    Raises:
        DataError: no readable page, pages that differ, or numbers that are not plain intensities (palette,
            white-is-zero, YCbCr, CMYK).
    """

    def __init__(self, path: Path, *, labels: bool = False) -> None:
        self.path = path
        self._itemsize = 8 if labels else 4
        with opened(path) as tiff:  # tags are read on their first use, so all are used here
            self._pages = main_pages(path, tiff, labels=labels)
            self._order = tiff.byteorder
            self._decoders = [_decoder(page) for page in self._pages]
            first, count = self._pages[0], len(self._pages) * self._pages[0].samplesperpixel
            self._head = described(path, self._pages, np.empty((count, 0, 0), first.dtype))
        self.size_hw = (int(first.imagelength), int(first.imagewidth))
        self._strips = _Strips()

    def read(self, window: Window | None = None) -> ImageFile:
        """Read the planes (P, h, w) of a window, by default of the whole image.

        Raises:
            DataError: it reaches beyond the image, or is larger than `check_size` allows.
        """
        window = Window(0, 0, *self.size_hw) if window is None else window
        check_window(self.path, window, self.size_hw)
        empty = self._head.planes
        check_size(self.path, *window.size_hw, len(empty), itemsize=max(self._itemsize, empty.itemsize))
        self._strips.drop_above(window.y0)
        with self.path.open("rb") as stream:
            parts = [self._page(stream, number, window) for number in range(len(self._pages))]
        if (window.y1, window.x1) == self.size_hw:  # the last one in raster order
            self._strips.clear()
        return replace(self._head, planes=np.ascontiguousarray(np.concatenate(parts)))  # (P, h, w)

    def _page(self, stream: BinaryIO, number: int, window: Window) -> npt.NDArray[Any]:
        """Return (S, h, w) of one page."""
        page = self._pages[number]
        if is_mappable(page):
            dtype = page.dtype.newbyteorder(self._order)
            whole = np.memmap(self.path, dtype=dtype, mode="r", offset=page.dataoffsets[0], shape=page.shape)
            return np.array(planes_first(whole, page.axes)[:, *window.slices])
        height, width = window.size_hw
        separate, _, _, _, together = page.shaped  # samples in planes of their own, or side by side
        out = np.empty((separate, height, width, together), page.dtype)
        for index in _touched(page, window):
            values, (sample, _, top, left, _), shape = self._segment(stream, number, index, window)
            y0, x0 = max(top, window.y0), max(left, window.x0)
            y1, x1 = min(top + shape[1], window.y1), min(left + shape[2], window.x1)
            place = (sample, slice(y0 - window.y0, y1 - window.y0), slice(x0 - window.x0, x1 - window.x0))
            out[place] = page.nodata if values is None else values[0, y0 - top : y1 - top, x0 - left : x1 - left]
        return np.moveaxis(out, 3, 1).reshape(-1, height, width)  # one of the two kinds of samples is 1

    def _segment(self, stream: BinaryIO, number: int, index: int, window: Window) -> Any:
        """Return a decoded tile or strip (1, h, w, S), None for one that is left out; its place, and its shape."""
        page = self._pages[number]
        if (kept := self._strips.get(number, index)) is not None:
            return kept
        offset, size = page.dataoffsets[index], page.databytecounts[index]
        stream.seek(offset)
        decoded = self._decoders[number](stream.read(size) if size else None, index)
        if not page.is_tiled and window.x1 - window.x0 < page.imagewidth:
            self._strips.keep(number, index, decoded)
        return decoded


def _decoder(page: Any) -> Callable[[bytes | None, int], Any]:
    """Return what decodes the bytes of a page's tile or strip, from them and its index."""
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in _JPEG else {}
    return partial(page.decode, **tables)


def _touched(page: Any, window: Window) -> Iterator[int]:
    """Yield the indices of the tiles or strips that a window touches."""
    height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
    rows, columns = math.ceil(page.imagelength / height), math.ceil(page.imagewidth / width)
    for sample in range(page.shaped[0]):
        for row in range(window.y0 // height, (window.y1 - 1) // height + 1):
            for column in range(window.x0 // width, (window.x1 - 1) // width + 1):
                yield (sample * rows + row) * columns + column


@dataclass
class _Strips:
    """Decoded strips, for the other windows of the same rows; those above the last window are not needed again.

    Where the room is full, new ones are not kept: dropping the oldest would drop each strip just before its next use.
    """

    decoded: dict[tuple[int, int], Any] = field(default_factory=dict)
    bytes: int = 0
    lock: Lock = field(default_factory=Lock)

    def get(self, page: int, index: int) -> Any:
        return self.decoded.get((page, index))

    def keep(self, page: int, index: int, decoded: Any) -> None:
        size = 0 if decoded[0] is None else decoded[0].nbytes
        with self.lock:
            if (page, index) not in self.decoded and self.bytes + size <= _KEPT_BYTES:
                self.decoded[page, index] = decoded
                self.bytes += size

    def drop_above(self, row: int) -> None:
        with self.lock:
            kept = {key: one for key, one in self.decoded.items() if one[1][2] + one[2][1] > row}
            self.decoded, self.bytes = kept, sum(one[0].nbytes for one in kept.values() if one[0] is not None)

    def clear(self) -> None:
        with self.lock:
            self.decoded, self.bytes = {}, 0
