"""FLIR's sequences: `.seq` and `.csq` are the records of single images, one behind the other.

In a `.csq` the raw images are JPEG-LS, which imagecodecs decodes.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.errors import DataError
from simmat.io.frames import MAX_FRAMES
from simmat.io.limits import check_size
from simmat.types import ImageFile
from simmat_plugin_thermal.radiometric import (
    FFF_SIGNATURE,
    flir_records,
    flir_records_end,
    raw_image,
    raw_size,
    read_flir,
)

ENDINGS = (".seq", ".csq")


class FlirStack:
    """The frames of a file; as `simmat.io.frames.Stack`."""

    spacing_mm = affine = None

    def __init__(self, path: Path, axis: str = "") -> None:
        """Find the frames: the directory of each says where it ends."""
        self.path = path
        self._parts: list[tuple[int, int]] = []
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty")
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            start = 0
            while start >= 0 and len(self._parts) < MAX_FRAMES:
                end = flir_records_end(path, content, start)
                self._parts.append((start, end))
                start = content.find(FFF_SIGNATURE, end)
            if len(self._parts) == MAX_FRAMES:
                raise DataError(f"{path}: claims more than {MAX_FRAMES} frames")
        sizes = {self._size(number) for number in (0, len(self._parts) - 1)}
        if len(sizes) > 1:
            raise DataError(
                f"{path}: its first and last frame differ in size; it is damaged"
            )
        (self.size_hw,) = sizes
        check_size(path, *self.size_hw)

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._parts)

    def read(self, index: int, labels: bool) -> ImageFile:
        """Read the raw counts (1, H, W) of one frame."""
        if labels:
            raise DataError(
                f"{self.path}: a FLIR sequence cannot be a mask; save masks as TIFF"
            )
        records = flir_records(self.path, self._block(index))
        self._check(index, records)
        raw = raw_image(self.path, records)
        return ImageFile(raw[None], "volume", "gray", self.path)

    def values(
        self, index: int, settings: Mapping[str, Any]
    ) -> tuple[npt.NDArray[np.generic], bool]:
        """Read the kelvin (H, W) of one frame, or its counts if it has no constants; and whether it is kelvin."""
        block = self._block(index)
        self._check(index, flir_records(self.path, block))
        return read_flir(self.path, block, settings)

    def _block(self, index: int) -> bytes:
        start, end = self._parts[index]
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def _size(self, index: int) -> tuple[int, int]:
        return raw_size(self.path, flir_records(self.path, self._block(index)))

    def _check(self, index: int, records: Mapping[int, bytes]) -> None:
        if raw_size(self.path, records) != self.size_hw:
            raise DataError(
                f"{self.path}: frame {index} differs in size from the first one; the file is damaged"
            )
