"""Sensor values in tiles, for the page to draw, and as windows, for the model."""

from __future__ import annotations

import hashlib
import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from simmat.drawing.display import display_rgb
from simmat.errors import DataError, OutputError
from simmat.geo import read_georeference
from simmat.io.files import atomic_path
from simmat.io.states import file_states
from simmat.sensors.adapter import ModalityAdapter, load_sample, options_of
from simmat.sensors.composed_modality import ComposedModality
from simmat.types import (
    BoolArray,
    Channel,
    FloatArray,
    Georeference,
    SensorImage,
    Window,
)

TILE = 256
"""Side of a tile in pixels."""
BLOCK = 4 * TILE
"""Side in pixels of a block that is read at once from a file that can be read in parts."""
WHOLE_PX = 2**22
"""Most pixels of an image that is loaded as a whole although its files can be read in parts."""
MAX_CACHED_VALUES = 2**26
"""Number of values that stay in memory, over all images and blocks: 256 MiB."""
_FIRST_STORED = 2
"""First level whose tiles are stored on disk, for large images."""
_RANGE_PERCENT = (2.0, 98.0)
_LEVELS = 65534
"""Steps between the smallest and the largest value of a tile; 0 marks pixels without a measurement."""


class UnknownError(Exception):
    """There is no such image, tile or channel; the message says which."""


class ImageCache:
    """Cache of recently read images and parts of images: at least the last one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], SensorImage] = OrderedDict()
        self._lock = threading.Lock()
        self._reading: dict[tuple[object, ...], threading.Lock] = {}

    def get(
        self, key: tuple[object, ...], read: Callable[[], SensorImage]
    ) -> SensorImage:
        """Return an image from the cache, or else read it; other images can be read at the same time."""
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:  # two readers of one image would take twice the memory
            with self._lock:
                found = self._kept.pop(key, None)
            found = read() if found is None else found
            with self._lock:
                self._kept[key] = found
                while (
                    len(self._kept) > 1
                    and sum(one.data.size for one in self._kept.values())
                    > MAX_CACHED_VALUES
                ):
                    self._kept.popitem(last=False)
                self._reading.pop(key, None)
        return found


@dataclass
class Planes:
    """The planes of one image.

    Attributes:
        files: source name -> file.
        digest: identifies the values: files with times and sizes, options of the sensor, and alignment.

    Raises:
        DataError: a file does not exist or cannot be read.
    """

    adapter: ModalityAdapter
    files: Mapping[str, Path]
    memory: ImageCache
    home: Path
    digest: str = field(default="", init=False)

    def __post_init__(self) -> None:
        parts: list[object] = [self.adapter.name, options_of(self.adapter)]
        if isinstance(self.adapter, ComposedModality) and self.adapter.alignments:
            parts.append(self.adapter.alignments)
        for path in self.files.values():
            try:
                states = file_states(str(path))
            except OSError as error:
                raise DataError(
                    f"{path}: cannot be read: {error.strerror}; restore the file"
                ) from error
            for state in states:
                parts.append((str(path), state.mtime_ns, state.size))
        self.digest = hashlib.sha256(
            repr(parts).encode(errors="surrogateescape")
        ).hexdigest()[:16]

    @property
    def origin(self) -> str:
        """The first file."""
        return str(next(iter(self.files.values())))

    @cached_property
    def _stated_hw(self) -> tuple[int, int] | None:
        """(height, width) by the headers of the files; None if the sensor must read them whole for that."""
        return self.adapter.window_size(self.files)

    @cached_property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels; only file headers are read if the sensor supports that."""
        return self._stated_hw or self._whole().size_hw

    @property
    def _in_parts(self) -> bool:
        return self._stated_hw is not None and math.prod(self._stated_hw) > WHOLE_PX

    @cached_property
    def _facts(self) -> tuple[tuple[Channel, ...], Georeference | None]:
        first = self.read(Window(0, 0, 1, 1))
        return first.channels, first.georeference or read_georeference(
            next(iter(self.files.values()))
        )

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The C channels."""
        return self._facts[0]

    @property
    def georeference(self) -> Georeference | None:
        """Georeference of the image; None if the file has none."""
        return self._facts[1]

    @property
    def levels(self) -> int:
        """Number of levels; the last one fits into one tile."""
        return max(math.ceil(math.log2(max(self.size_hw) / TILE)), 0) + 1

    def read(self, window: Window) -> SensorImage:
        """Read a part of the image."""
        if not self._in_parts:
            whole = self._whole()
            return whole if window == (0, 0, *self.size_hw) else whole.cut(window)
        return load_sample(self.adapter, self.files, window)

    @cached_property
    def ranges(self) -> list[tuple[float, float] | None]:
        """The 2nd and 98th percentile of each channel, in its unit; None for a channel without valid pixels.

        For an image that is read in parts they are those of 16 tiles on a regular grid.
        """
        ys, xs = (
            np.linspace(0, max(length - TILE, 0), 4).astype(int).tolist()
            for length in self.size_hw
        )
        parts = (
            [self.read(self._window(y, x, TILE)) for y in ys for x in xs]
            if self._in_parts
            else [self._whole()]
        )
        found: list[tuple[float, float] | None] = []
        for index in range(len(self.channels)):
            values = np.concatenate(
                [part.data[index][part.valid[index]] for part in parts]
            )
            low, high = (
                np.percentile(values, _RANGE_PERCENT).tolist()
                if len(values)
                else (0.0, 0.0)
            )
            found.append((low, high) if len(values) else None)
        return found

    def tile(
        self, level: int, column: int, row: int, channels: Sequence[int]
    ) -> tuple[tuple[int, int, int], bytes]:
        """Return the shape (C, h, w) of a tile, and its bytes: float32 offset and scale of each channel, then planes.

        Args:
            level: 0 for full resolution; each further level halves both sides.
            channels: indices of C channels.

        Raises:
            UnknownError: there is no such tile or channel.
            DataError: the image cannot be read.
        """
        height, width = self._level_hw(level)
        if not (0 <= row * TILE < height and 0 <= column * TILE < width):
            raise UnknownError(f"level {level} has no tile {column}, {row}")
        if not channels or not all(
            0 <= index < len(self.channels) for index in channels
        ):
            raise UnknownError(f"channels must be from 0 to {len(self.channels) - 1}")
        values, valid = self._tile(level, column, row)
        quantized = [quantize(values[index], valid[index]) for index in channels]
        header = b"".join(
            np.asarray([offset, scale], "<f4").tobytes()
            for offset, scale, _ in quantized
        )
        shape = (len(channels), int(values.shape[1]), int(values.shape[2]))
        return shape, header + b"".join(plane.tobytes() for _, _, plane in quantized)

    def thumbnail(self, side: int) -> bytes:
        """Return a small picture, as a PNG of at most `side` pixels a side.

        Raises:
            UnknownError: the image is read in parts, and nobody has looked at it yet.
            DataError: the image cannot be read.
        """
        last = self.levels - 1
        if self._in_parts and not self._tile_file(last, 0, 0).exists():
            raise UnknownError("there is no thumbnail until the image has been opened")
        picture = Image.fromarray(
            display_rgb(SensorImage(*self._tile(last, 0, 0), self.channels))
        )
        picture.thumbnail((side, side))
        stream = io.BytesIO()
        picture.save(stream, "png")
        return stream.getvalue()

    def _whole(self) -> SensorImage:
        return self.memory.get(
            (self.digest,), lambda: load_sample(self.adapter, self.files)
        )

    def _window(self, y: int, x: int, side: int) -> Window:
        """Return the window from a pixel on, of a side in pixels or as far as the image reaches."""
        height, width = self.size_hw
        return Window(y, x, min(y + side, height), min(x + side, width))

    def _level_hw(self, level: int) -> tuple[int, int]:
        if not 0 <= level < self.levels:
            raise UnknownError(f"levels are 0 to {self.levels - 1}, got {level}")
        return math.ceil(self.size_hw[0] / 2**level), math.ceil(
            self.size_hw[1] / 2**level
        )

    def _tile(self, level: int, column: int, row: int) -> tuple[FloatArray, BoolArray]:
        """Return the values (C, h, w) and validity (C, h, w) of all channels of a tile."""
        if level == 0:
            return self._native(self._window(row * TILE, column * TILE, TILE))
        stored = (
            self._tile_file(level, column, row)
            if self._in_parts and level >= _FIRST_STORED
            else None
        )
        if stored is not None and (found := _read_tile(stored)) is not None:
            return found
        below_hw = self._level_hw(level - 1)
        rows = [
            [
                self._tile(level - 1, 2 * column + dx, 2 * row + dy)
                for dx in (0, 1)
                if (2 * column + dx) * TILE < below_hw[1]
            ]
            for dy in (0, 1)
            if (2 * row + dy) * TILE < below_hw[0]
        ]
        values = np.concatenate(
            [np.concatenate([tile[0] for tile in tiles], axis=2) for tiles in rows],
            axis=1,
        )
        valid = np.concatenate(
            [np.concatenate([tile[1] for tile in tiles], axis=2) for tiles in rows],
            axis=1,
        )
        result = halve(values, valid)
        if stored is not None:
            # else computed again next time
            with suppress(OutputError), atomic_path(stored) as temporary:
                np.save(
                    temporary,
                    np.where(result[1], result[0], np.float32(np.nan)),
                    allow_pickle=False,
                )
        return result

    def _native(self, window: Window) -> tuple[FloatArray, BoolArray]:
        if not self._in_parts:
            image, part = self._whole(), window
        else:
            block = self._window(
                window.y0 // BLOCK * BLOCK, window.x0 // BLOCK * BLOCK, BLOCK
            )
            image = self.memory.get((self.digest, block), lambda: self.read(block))
            part = window.relative_to(block)
        return image.data[:, *part.slices], image.valid[:, *part.slices]

    def _tile_file(self, level: int, column: int, row: int) -> Path:
        return self.home / "tiles" / self.digest / f"{level}-{column}-{row}.npy"


def halve(values: FloatArray, valid: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Halve the resolution: mean of the valid pixels in each 2x2 block.

    Args:
        values: (C, H, W).
        valid: (C, H, W) bool.

    Returns:
        Values and validity, (C, ceil(H / 2), ceil(W / 2)) each; valid where any of the four pixels is.
    """
    count, height, width = values.shape
    padding = ((0, 0), (0, height % 2), (0, width % 2))
    shape = count, math.ceil(height / 2), 2, math.ceil(width / 2), 2
    known = np.pad(valid, padding).reshape(shape).sum(axis=(2, 4), dtype=np.float32)
    sums = (
        np.pad(np.where(valid, values, 0), padding)
        .reshape(shape)
        .sum(axis=(2, 4), dtype=np.float32)
    )
    return (sums / np.maximum(known, 1)).astype(np.float32), known > 0


def quantize(
    plane: FloatArray, valid: BoolArray
) -> tuple[float, float, npt.NDArray[np.uint16]]:
    """Quantize a plane (h, w): return offset, scale and numbers with value = offset + scale * number, 0 if invalid.

    Whole numbers such as counts keep their exact values if their range is small enough; the error of other values is
    at most half a step, 1 / 131068 of the range of the plane.
    """
    numbers = np.zeros(plane.shape, "<u2")
    known = plane[valid].astype(np.float64)
    if not len(known):
        return 0.0, 1.0, numbers
    low, high = float(known.min()), float(known.max())
    whole = high - low <= _LEVELS and bool((known == np.rint(known)).all())
    scale = 1.0 if whole or high == low else (high - low) / _LEVELS
    numbers[valid] = np.rint((known - low) / scale).astype("<u2") + 1
    return low - scale, scale, numbers


def _read_tile(path: Path) -> tuple[FloatArray, BoolArray] | None:
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    if values.dtype != np.float32 or values.ndim != 3:
        return None
    valid = np.isfinite(values)
    return np.where(valid, values, np.float32(0)), valid
