"""An exported model at work: `set_image` once, then `predict` and `everything` as often as you like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from simmat_runtime.align import joined as joined_sensors
from simmat_runtime.everything import Settings, find_objects
from simmat_runtime.inputs import Prompt, checked_planes, measured_pixels
from simmat_runtime.letterbox import BoolArray, FloatArray, softmax
from simmat_runtime.manifest import Channel, ModelError
from simmat_runtime.network import CPU, EncodedImage, Network
from simmat_runtime.objects import FoundObject, Window
from simmat_runtime.windows import (
    blended,
    joined,
    plan_windows,
    prompt_windows,
    reaches_border,
)

MaskSelection = Literal["single", "best"]

CACHE_BYTES = 2**28
"""Embeddings of windows that are kept; the one asked for longest ago is dropped."""


@dataclass(frozen=True)
class Prediction:
    """A mask of the image.

    Attributes:
        mask: (H, W) bool.
        logits: (H, W) float32; the mask is True where they are above 0.
        score: predicted IoU of the mask, calibrated where the model has a calibration.
        low_res_logits: (h, w) float32, the same logits at the size of the decoder.
        low_res_window: (y0, x0, y1, x1), the part of the image that `low_res_logits` cover.
        class_id: label value of the object's class; None if the model does not distinguish classes.
        class_probability: probability of that class among the classes of objects.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    low_res_logits: FloatArray
    low_res_window: Window
    class_id: int | None = None
    class_probability: float | None = None


@dataclass(frozen=True)
class ClassMap:
    """The class of every pixel of an image.

    Attributes:
        labels: (H, W) label values, unsigned integers; 0 is background if the model has it as a class.
        probability: (H, W) float32, probability of that class; 0 for pixels without a measurement.
        nodata: label value of pixels without a measurement.
    """

    labels: npt.NDArray[Any]
    probability: FloatArray
    nodata: int


def load(
    folder: Path | str,
    *,
    providers: Sequence[str] = CPU,
    threads: int | None = None,
    check: bool = True,
) -> Model:
    """Load a model exported by `simmat export`.

    Args:
        folder: the folder with manifest.json.
        providers: onnxruntime's execution providers, in order of preference.
        threads: threads of one call; None leaves it to onnxruntime.
        check: compare the files with their sha256.

    Raises:
        ModelError: the folder has no complete exported model.
    """
    return Model(Network(folder, providers=providers, threads=threads, check=check))


class Model:
    """An exported model, made by `load`.

    Attributes:
        folder: folder of the model.
        manifest: description of the model.
    """

    def __init__(self, network: Network) -> None:
        self.folder, self.manifest = network.folder, network.manifest
        self._network = network
        self._image: FloatArray | None = None  # (C, H, W)
        self._valid: BoolArray = np.zeros((0, 0), np.bool_)  # (H, W)
        self._windows: list[Window] = []
        # the one asked for last is at the end
        self._encoded: dict[Window, EncodedImage] = {}

    def __repr__(self) -> str:
        """Return folder, sensor and channels as text."""
        names = ", ".join(
            f"{channel.name} [{channel.unit}]" for channel in self.channels
        )
        return f"<Model {self.folder}: {self.manifest.modality}, {names}>"

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The planes that `set_image` takes, in order."""
        return self.manifest.channels

    @property
    def encoded(self) -> EncodedImage:
        """The current image, of a large one the window used last; ValueError if there is none."""
        if not self._encoded:
            raise ValueError("no image is set; call set_image first")
        return next(reversed(self._encoded.values()))

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the current image; ValueError if there is none."""
        if self._image is None:
            raise ValueError("no image is set; call set_image first")
        return self._image.shape[1], self._image.shape[2]

    def set_image(
        self,
        image: npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]],
        matrices: Mapping[str, Any] | None = None,
    ) -> None:
        """Encode an image; `predict`, `everything` and `semantic` then work on it.

        An image larger than the manifest's `largest` is cut into windows, which are encoded when they are first asked
        about, and kept while they take at most `CACHE_BYTES`.

        Args:
            image: (C, H, W), or (H, W) for one channel, in the units of `channels`; NaN where missing. Or such an image
                for each of the manifest's `sensors`, by name, as its camera writes it: those of further sensors are
                brought onto the pixel grid of the first.
            matrices: name of a further sensor -> (3, 3) matrix from homogeneous xy pixels of the first sensor's image
                to those of its own, in place of that of the model; needed if each image has its own.

        Raises:
            ValueError: it has another shape, or no valid pixel; or a matrix is wrong or missing.
            ModelError: onnxruntime cannot load the encoder, or is not installed.
        """
        # after an error there must not be the former image
        self._image, self._encoded = None, {}
        if isinstance(image, Mapping):
            sensors = self.manifest.sensors
            image = joined_sensors(image, sensors, self.channels, matrices)
        elif matrices:
            raise ValueError(
                "matrices join the images of several sensors; give these by name"
            )
        planes = checked_planes(image, self.channels)
        self._valid = measured_pixels(planes, self.channels)
        self._image = planes
        longest = max(self.size_hw)
        tile = self._tile()
        self._windows = plan_windows(self.size_hw, tile, min(tile, longest) // 8)
        if len(self._windows) == 1:
            self._encode(self._windows[0])

    def _tile(self) -> int:
        """Return the side of the windows of the current image; its own where it is not cut."""
        longest = max(self.size_hw)
        return longest if longest <= self.manifest.largest else self.manifest.window

    def _encode(self, window: Window) -> EncodedImage | None:
        """Return a part of the image, encoded unless it is already; None if nothing is measured."""
        assert self._image is not None  # those who call have asked `size_hw`
        y0, x0, y1, x1 = window
        measured = self._valid[y0:y1, x0:x1]
        if not measured.any():
            return None
        found = self._encoded.pop(window, None) or self._network.encode(
            self._image[:, y0:y1, x0:x1], measured
        )
        self._encoded[window] = found
        while (
            len(self._encoded) > 1
            and sum(one.nbytes for one in self._encoded.values()) > CACHE_BYTES
        ):
            del self._encoded[next(iter(self._encoded))]
        return found

    def predict(
        self,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        mask: Prediction | FloatArray | None = None,
        *,
        mask_selection: MaskSelection = "single",
    ) -> Prediction:
        """Segment the object that a prompt marks in the current image.

        Args:
            points: (x, y) in pixels of the image; (0, 0) is the centre of the top-left pixel.
            labels: one for each point, 1 on the object, 0 beside it; None means that all are on it.
            box: (x0, y0, x1, y1), outer edges of the object, from 0 to width and height.
            mask: an earlier answer to refine; or its `low_res_logits` (h, w), if the image is not cut into windows.
            mask_selection: "single" selects the single mask; "best" the alternative with the highest predicted IoU.

        Raises:
            ValueError: no image is set, there is no prompt, or it does not fit the image; or logits may be of any of
                its windows.
        """
        if mask_selection not in get_args(MaskSelection):
            raise ValueError(
                f"mask_selection must be one of {', '.join(map(repr, get_args(MaskSelection)))}, got {mask_selection!r}"
            )
        mask_window = None
        if isinstance(mask, Prediction):
            mask_window = mask.low_res_window
            mask = mask.low_res_logits
        prompt = Prompt.of(points, labels, box, mask, mask_window)
        prompt.check(self.size_hw, self.manifest.mask_size)
        if prompt.mask is not None and mask_window is None and len(self._windows) > 1:
            raise ValueError(
                "logits do not say which window of the image they cover; give the earlier prediction itself "
                "(mask=found)"
            )
        if len(self._windows) == 1:
            return self._predict_in(self._windows[0], prompt, mask_selection)
        for window in prompt_windows(*prompt.extent(), self.size_hw, self._tile()):
            found = self._predict_in(window, prompt, mask_selection)
            if not reaches_border(found.mask, window, self.size_hw):
                break
        inside = slice(window[0], window[2]), slice(window[1], window[3])
        whole = np.zeros(self.size_hw, np.bool_)
        logits = np.full(self.size_hw, min(float(found.logits.min()), -1.0), np.float32)
        whole[inside], logits[inside] = found.mask, found.logits
        return replace(found, mask=whole, logits=logits)

    def _predict_in(
        self, window: Window, prompt: Prompt, mask_selection: MaskSelection
    ) -> Prediction:
        """Answer a checked prompt of the image in a window; the mask has the window's size."""
        image = self._encode(window)
        if image is None:
            raise ValueError("no pixel around the prompt holds a measurement")
        low, scores = image.decode(*prompt.in_window(window, image.letterbox))
        picked = (
            0
            if mask_selection == "single" or scores.shape[1] == 1
            else 1 + int(scores[0, 1:].argmax())
        )
        logits = image.restore(low[:, picked])[0]
        if not (np.isfinite(logits).all() and np.isfinite(scores[0, picked])):
            raise ModelError(
                f"{self.folder} computes NaN or infinity for this image; export the model again"
            )
        value, probability = image.class_of(low[0, picked]) or (None, None)
        score = self.manifest.calibrated(
            "click" if prompt.box is None else "box", float(scores[0, picked])
        )
        return Prediction(
            logits > 0, logits, score, low[0, picked], window, value, probability
        )

    def everything(self, settings: Settings | None = None) -> list[FoundObject]:
        """Find every object of the current image, best first, with its class if the model distinguishes classes.

        Objects that a border of a window cuts become one.

        Args:
            settings: settings of the search; by default those of `Settings`.

        Raises:
            ValueError: no image is set.
        """
        size_hw, wanted = self.size_hw, settings or Settings()

        def found() -> Iterator[tuple[Window, list[FoundObject]]]:
            for window in self._windows:
                if image := self._encode(window):
                    objects = find_objects(image, wanted)
                    yield (
                        window,
                        [one.shifted(window[0], window[1], size_hw) for one in objects],
                    )

        return sorted(joined(found()), key=lambda one: -one.score)

    def semantic(self) -> ClassMap:
        """Return the class of every pixel of the current image; probabilities are blended where windows overlap.

        Raises:
            ValueError: no image is set.
            ModelError: the model has no dense head.
        """
        size_hw, spec = self.size_hw, self.manifest.dense
        if spec is None:
            raise ModelError(
                f"{self.folder} has no dense head, so it has no class map; train one (--heads prompt,dense)"
            )
        objects = [1 if value is None else value for value in spec.classes]
        kind = next(
            kind
            for kind in (np.uint8, np.uint16, np.uint32)
            if max(objects) < np.iinfo(kind).max
        )
        values, nodata = (
            np.asarray([0, *objects] if spec.background else objects, kind),
            int(np.iinfo(kind).max),
        )
        labels, probability = (
            np.full(size_hw, nodata, kind),
            np.zeros(size_hw, np.float32),
        )
        answers = map(self._class_probabilities, self._windows)
        for y0, probabilities in blended(size_hw, self._windows, answers, len(values)):
            rows = slice(y0, y0 + probabilities.shape[1])
            measured = self._valid[rows]
            labels[rows][measured] = values[probabilities.argmax(0)][measured]
            probability[rows] = probabilities.max(0) * measured
        return ClassMap(labels, probability, nodata)

    def _class_probabilities(self, window: Window) -> FloatArray | None:
        """Return the (K, h, w) class probabilities of a window, 0 where nothing is measured; None without any."""
        image = self._encode(window)
        if image is None or image.dense is None:
            return None
        return softmax(image.restore(image.dense[0])) * image.measured
