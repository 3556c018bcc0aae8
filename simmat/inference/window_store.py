"""Results of windows on disk, so that a stopped search continues, and several processes share an image."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject, Instance
from simmat.io.files import (
    atomic_write_bytes,
    output_errors,
    remove_folder,
    require_inside,
)
from simmat.predictor.tiles import WindowResult
from simmat.types import Window


class WindowStore:
    """A folder with the results of the windows of one image, which several processes may fill at once."""

    def __init__(self, out: Path, name: str, key: str) -> None:
        """Open the store of an image.

        Args:
            out: folder of the results, in which the store is made if it is missing.
            name: of the image.
            key: identifies the request, the model and the image.
        """
        folder = out / f".{name}.windows"
        self.folder = folder / hashlib.sha256(key.encode()).hexdigest()[:16]
        require_inside(out, self.folder)
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def has(self, index: int) -> bool:
        """Return whether the result of a window is there."""
        return self._file(index).is_file()

    def write(self, index: int, result: WindowResult) -> WindowResult:
        """Write the result of a window.

        Returns:
            The result as it comes back from the file, so that an interrupted run gives the same results as an
            uninterrupted one.
        """
        arrays = result_to_arrays(result)
        content = io.BytesIO()
        np.savez_compressed(content, **cast(Any, arrays))
        atomic_write_bytes(self._file(index), content.getvalue())
        return result_from_arrays(arrays)

    def read(self, index: int) -> WindowResult | None:
        """Return the result of a window; None if it is missing or damaged."""
        try:
            with (
                self._file(index).open("rb") as stream,
                np.load(stream, allow_pickle=False) as arrays,
            ):
                return result_from_arrays(arrays)
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ):
            return None

    def remove(self) -> None:
        """Remove the folder, and those of other questions about the image."""
        with suppress(OSError):  # another call may still write there
            remove_folder(self.folder.parent)

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"


def result_to_arrays(result: WindowResult) -> dict[str, npt.NDArray[Any]]:
    """Return a result as plain arrays, for a file; probabilities are rounded to 1/255."""
    objects = []
    crops = [np.zeros(0, np.bool_)]
    for one in result.objects:
        classes = list((one.class_probabilities or {}).items())
        objects.append(
            (
                one.instance.class_id,
                one.instance.window,
                one.score,
                one.point_xy,
                classes,
            )
        )
        crops.append(one.instance.crop.ravel())
    arrays: dict[str, npt.NDArray[Any]] = {
        "is_empty": np.asarray(result.is_empty),
        "objects": np.frombuffer(json.dumps(objects).encode(), np.uint8),
        "pixels": np.packbits(np.concatenate(crops)),
    }
    if result.probabilities is not None:
        arrays["probabilities"] = np.rint(result.probabilities * 255).astype(np.uint8)
    return arrays


def result_from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> WindowResult:
    """Return the result that `result_to_arrays` described."""
    pixels = np.unpackbits(arrays["pixels"]).astype(np.bool_)
    start = 0
    objects = []
    for class_id, corners, score, (x, y), classes in json.loads(
        arrays["objects"].tobytes()
    ):
        window = Window(*corners)
        end = start + math.prod(window.size_hw)
        instance = Instance(class_id, window, pixels[start:end].reshape(window.size_hw))
        objects.append(FoundObject(instance, score, (x, y), dict(classes) or None))
        start = end
    probabilities = None
    if "probabilities" in arrays:
        probabilities = np.float32(1 / 255) * arrays["probabilities"]
    return WindowResult(tuple(objects), probabilities, bool(arrays["is_empty"]))
