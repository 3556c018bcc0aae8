"""Windows over an image that is too large for one look: where they lie, and how their results are kept and merged.

Windows come in raster order. Class probabilities are blended over the overlap; objects that a border cuts are joined
where both windows agree. What no later window reaches is given out at once, so memory does not grow with the image.
Results are kept in a folder until all are there, so a stopped run continues with the next window, and several processes
share the windows of one image.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject, Instance
from simmat.io.files import atomic_write_bytes, output_errors, remove_folder
from simmat.predictor.everything import EverythingSettings
from simmat.predictor.reference import Reference
from simmat.types import FloatArray, Window

_AGREEMENT = 0.7
"""Part of the smaller of two masks that the other one covers, where both windows look, if they are one object."""


def window_starts(size: int, tile: int, overlap: int) -> list[int]:
    """Return where windows start along one side, evenly, with at least this overlap; the last ends with the image."""
    if size <= tile:
        return [0]
    count = math.ceil((size - overlap) / (tile - overlap))
    return [round(index * (size - tile) / (count - 1)) for index in range(count)]


def window_weights(starts: Sequence[int], size: int) -> list[FloatArray]:
    """Return the (t,) weights of each window along one side: highest in its middle; they add up to 1 at each pixel."""
    length = size - starts[-1]
    tent = np.minimum(np.arange(length), np.arange(length)[::-1]) + 1.0
    total = np.zeros(size)
    for start in starts:
        total[start : start + length] += tent
    return [(tent / total[start : start + length]).astype(np.float32) for start in starts]


def plan_windows(size_hw: tuple[int, int], tile: int, overlap: int) -> list[Window]:
    """Cover an image with windows, row by row from the top left; ValueError if `overlap` is not below `tile`."""
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must be from 0 to {tile - 1}, less than the window's side {tile}; got {overlap}")
    height, width = size_hw
    return [
        Window(y, x, min(y + tile, height), min(x + tile, width))
        for y in window_starts(height, tile, overlap)
        for x in window_starts(width, tile, overlap)
    ]


class ClassMapBlender:
    """Joins the class maps of windows, in raster order, into one of K classes."""

    def __init__(self, size_hw: tuple[int, int], tile: int, overlap: int, classes: int) -> None:
        self._rows, self._columns = (window_starts(size, tile, overlap) for size in size_hw)
        self._down, self._across = window_weights(self._rows, size_hw[0]), window_weights(self._columns, size_hw[1])
        self._count = 0
        self._band = np.zeros((classes, 0, size_hw[1]), np.float32)  # from the first row of the present windows

    def add(self, probabilities: FloatArray) -> Iterator[tuple[int, FloatArray]]:
        """Take the (K, h, w) probabilities of the next window; yield rows that no later window reaches.

        Yields:
            The first row, and the (K, h, W) probabilities of the classes.
        """
        row, column = divmod(self._count, len(self._columns))
        self._count += 1
        (classes, height, width), x0 = probabilities.shape, self._columns[column]
        if column == 0:
            rest, self._band = self._band, np.zeros((classes, height, self._band.shape[2]), np.float32)
            self._band[:, : rest.shape[1]] = rest
        self._band[:, :, x0 : x0 + width] += probabilities * np.outer(self._down[row], self._across[column])
        if column == len(self._columns) - 1:
            done = self._rows[row + 1] - self._rows[row] if row + 1 < len(self._rows) else height
            finished, self._band = self._band[:, :done], self._band[:, done:].copy()
            yield self._rows[row], finished


class TileMerger:
    """Joins the objects of windows, in raster order, into those of one image."""

    def __init__(self, windows: Sequence[Window]) -> None:
        self._windows = windows
        self._count = 0
        self._open: list[tuple[FoundObject, list[Window]]] = []  # with the windows that show parts of it

    def add(self, found: Sequence[FoundObject]) -> list[FoundObject]:
        """Take the objects of the next window, in pixels of the image; return those above all later windows."""
        window = self._windows[self._count]
        self._count += 1
        near: list[tuple[FoundObject, list[Window]]] = []  # only objects with pixels in this window can agree
        far: list[tuple[FoundObject, list[Window]]] = []
        for item in self._open:
            (near if item[0].instance.window.intersection(window) else far).append(item)
        for one in sorted(found, key=lambda item: -item.score):
            near = self._joined(one, near, window)
        next_y0 = self._windows[self._count].y0 if self._count < len(self._windows) else math.inf
        self._open = [item for item in (*far, *near) if item[0].instance.window.y1 > next_y0]
        return [one for one, _ in (*far, *near) if one.instance.window.y1 <= next_y0]

    def _joined(
        self, one: FoundObject, near: Sequence[tuple[FoundObject, list[Window]]], window: Window
    ) -> list[tuple[FoundObject, list[Window]]]:
        """Return the open objects with one more, which may be a part of some of them."""
        windows = [window]
        rest: list[tuple[FoundObject, list[Window]]] = []
        for other, seen_in in near:
            meet = one.instance.window.intersection(other.instance.window) is not None
            if not (meet and self._agree(one.instance, other.instance, seen_in, window)):
                rest.append((other, seen_in))
                continue
            one = _union(other, one)
            windows += seen_in
        return [*rest, (one, windows)]

    def _agree(self, instance: Instance, other: Instance, seen_in: Sequence[Window], window: Window) -> bool:
        for earlier in seen_in:
            both = window.intersection(earlier)
            if earlier == window or both is None:
                continue
            shared = both.intersection(instance.window.enclosing(other.window))
            if shared is None:
                continue
            a, b = instance.within(shared), other.within(shared)
            smaller = min(np.count_nonzero(a), np.count_nonzero(b))
            if smaller and np.count_nonzero(a & b) / smaller > _AGREEMENT:
                return True
        return False


def _union(first: FoundObject, second: FoundObject) -> FoundObject:
    """Return the pixels of both with the class, score and click of the one with the higher score."""
    better = first if first.score >= second.score else second
    window = first.instance.window.enclosing(second.instance.window)
    whole = Instance(better.instance.class_id, window, first.instance.within(window) | second.instance.within(window))
    return replace(better, instance=whole)


@dataclass(frozen=True)
class SegmentOptions:
    """What to find in an image without prompts.

    Attributes:
        objects: how every object is found; None finds none.
        classes: find the class of every pixel.
        like: what to look for; None finds every object.
    """

    objects: EverythingSettings | None = None
    classes: bool = False
    like: Reference | None = None


@dataclass(frozen=True)
class WindowResult:
    """What the model found in one window.

    Attributes:
        objects: found ones, in pixels of the whole image.
        probabilities: (K, h, w) float32 of the classes, 0 where nothing is measured; None if not asked for.
        is_empty: nothing is measured in the window.
    """

    objects: tuple[FoundObject, ...] = ()
    probabilities: FloatArray | None = None
    is_empty: bool = False

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the result as plain arrays, for a file; probabilities are rounded to 1/255."""
        objects = [
            (
                one.instance.class_id,
                one.instance.window,
                one.score,
                one.point_xy,
                [*(one.class_probabilities or {}).items()],
            )
            for one in self.objects
        ]
        pixels = np.concatenate([one.instance.crop.ravel() for one in self.objects] or [np.zeros(0, np.bool_)])
        arrays: dict[str, npt.NDArray[Any]] = {
            "is_empty": np.asarray(self.is_empty),
            "objects": np.frombuffer(json.dumps(objects).encode(), np.uint8),
            "pixels": np.packbits(pixels),
        }
        if self.probabilities is not None:
            arrays["probabilities"] = np.rint(self.probabilities * 255).astype(np.uint8)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> WindowResult:
        """Return the result that `arrays` described."""
        pixels, start, objects = np.unpackbits(arrays["pixels"]).astype(np.bool_), 0, []
        for class_id, corners, score, (x, y), classes in json.loads(arrays["objects"].tobytes()):
            window = Window(*corners)
            end = start + math.prod(window.size_hw)
            instance = Instance(class_id, window, pixels[start:end].reshape(window.size_hw))
            objects.append(FoundObject(instance, score, (x, y), dict(classes) or None))
            start = end
        probabilities = np.float32(1 / 255) * arrays["probabilities"] if "probabilities" in arrays else None
        return cls(tuple(objects), probabilities, bool(arrays["is_empty"]))


class WindowStore:
    """A folder with the results of the windows of one image, which several processes may fill at once."""

    def __init__(self, folder: Path, key: str) -> None:
        """Open the store of an image.

        Args:
            folder: folder of the image; made if it is missing.
            key: says what is asked of which model and image.
        """
        self.folder = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def has(self, index: int) -> bool:
        """Return whether the result of a window is there."""
        return self._file(index).is_file()

    def write(self, index: int, result: WindowResult) -> WindowResult:
        """Keep the result of a window.

        Returns:
            The result as it comes back from the file, so that a stopped run ends as one that was not.
        """
        arrays, content = result.arrays(), io.BytesIO()
        np.savez_compressed(content, **cast(Any, arrays))
        atomic_write_bytes(self._file(index), content.getvalue())
        return WindowResult.from_arrays(arrays)

    def read(self, index: int) -> WindowResult | None:
        """Return the result of a window; None if it is missing or damaged."""
        try:
            with self._file(index).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                return WindowResult.from_arrays(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None

    def remove(self) -> None:
        """Remove the folder, and those of other questions about the image."""
        with suppress(OSError):  # another call may still write there
            remove_folder(self.folder.parent)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"
