"""What was found in the windows of an image, in memory and in files.

The results are kept in a folder until all are there. So a stopped run continues with the next window, and several
processes share the windows of one image.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject, Instance
from simmat.io.files import atomic_write_bytes, output_errors, remove_folder
from simmat.predictor.everything import EverythingSettings
from simmat.types import BoolArray, FloatArray, Window


@dataclass(frozen=True)
class SegmentOptions:
    """What to find in an image without prompts.

    Attributes:
        objects: how every object is found; None finds none.
        classes: find the class of every pixel.
    """

    objects: EverythingSettings | None = None
    classes: bool = False


@dataclass(frozen=True)
class WindowResult:
    """What the model found in one window.

    Attributes:
        valid: (h, w) bool, False where no channel holds a measurement.
        objects: found ones, in pixels of the whole image.
        probabilities: (K, h, w) float32 of the classes; None if not asked for, or where nothing is valid.
    """

    valid: BoolArray
    objects: tuple[FoundObject, ...] = ()
    probabilities: FloatArray | None = None

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the result as plain arrays, for a file; probabilities are rounded to 1/255."""
        boxes = np.asarray([one.instance.window for one in self.objects], np.int64).reshape(-1, 4)
        numbers = [
            (one.score, *one.point_xy, math.nan if one.class_probability is None else one.class_probability)
            for one in self.objects
        ]
        classes = [(one.instance.class_id is not None, one.instance.class_id or 0) for one in self.objects]
        pixels = np.concatenate([one.instance.crop.ravel() for one in self.objects] or [np.zeros(0, np.bool_)])
        arrays: dict[str, npt.NDArray[Any]] = {
            "size": np.asarray(self.valid.shape, np.int64),
            "valid": np.packbits(self.valid),
            "boxes": boxes,
            "numbers": np.asarray(numbers, np.float64).reshape(-1, 4),
            "classes": np.asarray(classes, np.int64).reshape(-1, 2),
            "pixels": np.packbits(pixels),
        }
        if self.probabilities is not None:
            arrays["probabilities"] = np.rint(self.probabilities * 255).astype(np.uint8)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> WindowResult:
        """Return the result that `arrays` described."""
        height, width = arrays["size"].tolist()
        sizes = [(y1 - y0) * (x1 - x0) for y0, x0, y1, x1 in arrays["boxes"].tolist()]
        pixels = np.unpackbits(arrays["pixels"], count=sum(sizes)).astype(np.bool_)
        objects, start = [], 0
        for corners, size, (score, x, y, probability), (known, value) in zip(
            arrays["boxes"].tolist(), sizes, arrays["numbers"].tolist(), arrays["classes"].tolist(), strict=True
        ):
            window = Window(*corners)
            instance = Instance(value if known else None, window, pixels[start : start + size].reshape(window.size_hw))
            objects.append(FoundObject(instance, score, (x, y), None if math.isnan(probability) else probability))
            start += size
        valid = np.unpackbits(arrays["valid"], count=height * width).astype(np.bool_).reshape(height, width)
        probabilities = np.float32(1 / 255) * arrays["probabilities"] if "probabilities" in arrays else None
        return cls(valid, tuple(objects), probabilities)


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

    def missing(self, count: int) -> list[int]:
        """Return which of the first `count` windows have no result yet."""
        return [index for index in range(count) if not self._file(index).is_file()]

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
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def remove(self) -> None:
        """Remove the folder, and those of other questions about the image."""
        with suppress(OSError):  # another call may still write there
            remove_folder(self.folder.parent)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"
