"""The files of an exported model in onnxruntime: encode an image once, ask it as often as you like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat_runtime.letterbox import (
    BoolArray,
    FloatArray,
    IntArray,
    Letterbox,
    resized,
    softmax,
)
from simmat_runtime.manifest import (
    DECODER,
    DENSE,
    ENCODER,
    MASKS,
    ModelError,
    check_files,
    read_manifest,
)

if TYPE_CHECKING:
    import onnxruntime

CPU = ("CPUExecutionProvider",)
_VALUES_AT_ONCE = 2**26
"""Most values of a group of masks at the size of the image."""


class Network:
    """Encoder, prompt decoder and dense head of an exported model.

    Attributes:
        folder: folder of the model.
        manifest: description of the model.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        providers: Sequence[str] = CPU,
        threads: int | None = None,
        check: bool = True,
    ) -> None:
        """Read the manifest, and check the files; arguments and errors as for `simmat_runtime.load`."""
        self.folder, self.manifest = Path(folder), read_manifest(folder)
        if check:
            check_files(folder, self.manifest)
        self._providers, self._threads = list(providers), threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: where the files are, not what onnxruntime made of them."""
        return {**self.__dict__, "_sessions": {}}

    def session(self, file: str) -> onnxruntime.InferenceSession:
        """Return the session of one file, which is loaded when it is first needed.

        Raises:
            ModelError: onnxruntime cannot load it, or is not installed.
        """
        if file not in self._sessions:
            try:
                import onnxruntime
            except ModuleNotFoundError as error:
                raise ModelError(
                    f"{self.folder} runs in onnxruntime, which is missing; pip install onnxruntime"
                ) from error
            options = onnxruntime.SessionOptions()
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            path = self.folder / file
            try:
                self._sessions[file] = onnxruntime.InferenceSession(
                    path, options, providers=self._providers
                )
            except Exception as error:  # onnxruntime's errors have no common base class
                raise ModelError(f"onnxruntime cannot load {path} ({error})") from error
        return self._sessions[file]

    def run(self, file: str, **inputs: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        """Run one file; return its outputs by name.

        Raises:
            ModelError: onnxruntime cannot load or run it, or is not installed.
        """
        session = self.session(file)
        names = [output.name for output in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, inputs), strict=True))
        except Exception as error:  # onnxruntime's errors have no common base class
            raise ModelError(
                f"onnxruntime cannot run {self.folder / file} ({error})"
            ) from error

    def encode(self, planes: FloatArray, measured: BoolArray) -> EncodedImage:
        """Encode an image.

        Args:
            planes: (C, H, W) in the sensor's units, NaN where missing.
            measured: (H, W), False where no channel is valid.
        """
        letterbox = Letterbox(
            (planes.shape[1], planes.shape[2]),
            self.manifest.image_size,
            self.manifest.aspect,
        )
        levels = self.run(ENCODER, image=np.ascontiguousarray(planes[None]))
        return EncodedImage(self, letterbox, measured, levels)


@dataclass(frozen=True)
class EncodedImage:
    """An encoded image, and what the network answers about it.

    Attributes:
        network: what encoded it.
        letterbox: its position in the network's input.
        measured: (H, W) bool, False where no channel is valid.
        levels: name -> output tensor of the encoder, for the decoder and the dense head.
    """

    network: Network
    letterbox: Letterbox
    measured: BoolArray
    levels: dict[str, npt.NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of the embedding."""
        return sum(level.nbytes for level in self.levels.values())

    def decode(
        self,
        coords: FloatArray,
        labels: IntArray,
        boxes: FloatArray | None = None,
        masks: FloatArray | None = None,
    ) -> tuple[FloatArray, FloatArray]:
        """Decode K prompts of one kind, in pixels of the network's input.

        Args:
            coords: (K, N, 2) xy; N may be 0.
            labels: (K, N), 1 on the object, 0 beside it.
            boxes: (K, 4) XYXY, or None.
            masks: (K, 1, h, w) logits, or None.

        Returns:
            Logits (K, M, h, w) over the whole S×S input, with the single mask first, and predicted IoU (K, M).
        """
        found = self.network.run(
            DECODER,
            **self.levels,
            image_index=np.zeros(len(coords), np.int64),
            point_coords=np.asarray(coords, np.float32),
            point_labels=np.asarray(labels, np.int64),
            boxes=np.zeros((0, 4), np.float32) if boxes is None else boxes,
            mask_input=np.zeros((0, 1, *self.network.manifest.mask_size), np.float32)
            if masks is None
            else masks,
        )
        return found["logits"], found["iou"]

    def restore(self, logits: FloatArray) -> FloatArray:
        """Resize logits (N, h, w) of the S×S input to the image: (N, H, W)."""
        height, width = self.letterbox.original_hw
        step = max(_VALUES_AT_ONCE // max(height * width, self.letterbox.size**2), 1)
        size = np.asarray([height, width], np.int64)
        parts = [
            self.network.run(
                MASKS, logits=logits[start : start + step], original_hw=size
            )["masks"]
            for start in range(0, len(logits), step)
        ]
        return (
            np.concatenate(parts) if parts else np.zeros((0, height, width), np.float32)
        )

    @cached_property
    def dense(self) -> tuple[FloatArray, FloatArray] | None:
        """Class logits (K, h, w) and distance logits (h, w); None without a dense head."""
        if self.network.manifest.dense is None:
            return None
        found = self.network.run(DENSE, **self.levels)
        return found["classes"][0], found["distance"][0, 0]

    def class_of(self, low: FloatArray) -> tuple[int, float] | None:
        """Return class and probability of a mask (h, w); None without classes of objects or for an empty mask."""
        dense, spec, inside = self.dense, self.network.manifest.dense, low > 0
        if dense is None or spec is None or spec.classes == (None,) or not inside.any():
            return None
        first = int(spec.background)
        mean = resized(softmax(dense[0]), (low.shape[0], low.shape[1]))[:, inside].mean(
            1
        )[first:]
        value = spec.classes[int(mean.argmax())]
        return (
            None
            if value is None
            else (value, float(spec.calibrated(mean / mean.sum().clip(1e-6, 1)).max()))
        )
