"""An exported model at work: `set_image` once, then `predict` and `everything` as often as you like."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from simmat_runtime.everything import BoolArray, Box, FoundObject, Settings, find_objects, resized, softmax
from simmat_runtime.frame import FloatArray, Frame
from simmat_runtime.manifest import (
    DECODER,
    DENSE,
    ENCODER,
    MASKS,
    Channel,
    ModelError,
    check_files,
    read_manifest,
)
from simmat_runtime.windows import GROWN, blended, joined, plan_windows, reaches_border, window_around

if TYPE_CHECKING:
    import onnxruntime

Choice = Literal["single", "best"]
CPU = ("CPUExecutionProvider",)
_VALUES_AT_ONCE = 2**26
"""Most values of a group of masks at the size of the image."""


@dataclass(frozen=True)
class Prediction:
    """A mask of the image.

    Attributes:
        mask: (H, W) bool.
        logits: (H, W) float32; the mask is True where they are above 0.
        score: predicted IoU of the mask.
        low_res: (h, w) float32, the same logits at the size of the decoder, for `predict(mask=)`.
        class_id: label value of the object's class; None if the model does not distinguish classes.
        class_probability: probability of that class among the classes of objects.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    low_res: FloatArray
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


@dataclass(frozen=True)
class Encoded:
    """An encoded image.

    Attributes:
        frame: its position in the network's input.
        measured: (H, W) bool, False where no channel is valid.
        levels: name -> output tensor of the encoder, for the decoder and the dense head.
    """

    frame: Frame
    measured: BoolArray
    levels: dict[str, npt.NDArray[Any]]


def load(
    folder: Path | str, *, providers: Sequence[str] = CPU, threads: int | None = None, check: bool = True
) -> Model:
    """Load a model exported by `simmat export`.

    Args:
        folder: the folder with manifest.json.
        providers: onnxruntime's execution providers, in order of preference.
        threads: threads of one call; None leaves it to onnxruntime.
        check: compare the files with their sha256.

    Raises:
        ModelError: the folder has no complete exported model, or onnxruntime cannot load it.
    """
    return Model(folder, providers=providers, threads=threads, check=check)


class Model:
    """An exported model.

    Attributes:
        folder: folder of the model.
        manifest: description of the model.
    """

    def __init__(
        self, folder: Path | str, *, providers: Sequence[str] = CPU, threads: int | None = None, check: bool = True
    ) -> None:
        """Load a model; arguments as for `load`."""
        self.folder, self.manifest = Path(folder), read_manifest(folder)
        if check:
            check_files(folder, self.manifest)
        self._providers, self._threads = tuple(providers), threads
        self._sessions: dict[str, onnxruntime.InferenceSession] = {}
        self._image: FloatArray | None = None  # (C, H, W)
        self._valid: BoolArray = np.zeros((0, 0), np.bool_)  # (H, W)
        self._windows: list[Box] = []
        self._window: Box | None = None  # the one that is encoded
        self._encoded: Encoded | None = None
        self._dense: tuple[FloatArray, FloatArray] | None = None

    def __repr__(self) -> str:
        """Return folder, sensor and channels as text."""
        names = ", ".join(f"{channel.name} [{channel.unit}]" for channel in self.channels)
        return f"<Model {self.folder}: {self.manifest.modality}, {names}>"

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The planes that `set_image` takes, in order."""
        return self.manifest.channels

    @property
    def encoded(self) -> Encoded:
        """The current image, of a large one the window looked at last; ValueError if there is none."""
        if self._encoded is None:
            raise ValueError("no image is set; call set_image first")
        return self._encoded

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the current image; ValueError if there is none."""
        if self._image is None:
            raise ValueError("no image is set; call set_image first")
        return self._image.shape[1], self._image.shape[2]

    def set_image(self, image: npt.NDArray[Any]) -> None:
        """Encode an image; `predict`, `everything` and `semantic` then work on it.

        An image that the network's input would shrink more than twice is cut into windows, which overlap by an eighth
        and are encoded when they are asked about.

        Args:
            image: (C, H, W), or (H, W) for one channel, in the units of `channels`; NaN where missing.

        Raises:
            ValueError: it has another shape, or no valid pixel.
        """
        self._image = self._window = self._encoded = None  # after an error there must not be the former image
        planes = self._planes(image)
        self._valid = self._measured(planes)
        self._image = planes
        longest = max(self.size_hw)
        tile = self._tile()
        self._windows = plan_windows(self.size_hw, tile, min(tile, longest) // 8)
        if len(self._windows) == 1:
            self._look(self._windows[0])

    def _tile(self) -> int:
        """Return the side of the windows of the current image; its own where it is not cut."""
        longest = max(self.size_hw)
        return longest if longest <= self.manifest.largest else self.manifest.window

    def _look(self, window: Box) -> bool:
        """Encode a part of the image, unless it is encoded already; return False where nothing is measured."""
        assert self._image is not None  # those who call have asked `size_hw`
        y0, x0, y1, x1 = window
        measured = self._valid[y0:y1, x0:x1]
        if window != self._window and measured.any():
            self._encoded = self._dense = self._window = None
            frame = Frame((y1 - y0, x1 - x0), self.manifest.image_size, self.manifest.aspect)
            session = self.session(ENCODER)
            names = [output.name for output in session.get_outputs()]
            levels = session.run(names, {"image": np.ascontiguousarray(self._image[None, :, y0:y1, x0:x1])})
            self._encoded, self._window = Encoded(frame, measured, dict(zip(names, levels, strict=True))), window
        return bool(measured.any())

    def predict(
        self,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        mask: FloatArray | None = None,
        *,
        choice: Choice = "single",
    ) -> Prediction:
        """Segment the object that a prompt marks in the current image.

        Args:
            points: (x, y) in pixels of the image; (0, 0) is the centre of the top-left pixel.
            labels: one for each point, 1 on the object, 0 beside it; None means that all are on it.
            box: (x0, y0, x1, y1), outer edges of the object, from 0 to width and height.
            mask: (h, w) logits of an earlier mask, `Prediction.low_res`.
            choice: "single" selects the single mask; "best" the alternative with the highest predicted IoU.

        Raises:
            ValueError: no image is set, there is no prompt, or it does not fit the image.
        """
        if choice not in get_args(Choice):
            raise ValueError(f"choice must be one of {', '.join(map(repr, get_args(Choice)))}, got {choice!r}")
        coords = np.asarray(points, np.float32).reshape(-1, 2)
        marks = np.ones(len(coords), np.int64) if labels is None else np.asarray(labels, np.int64).reshape(-1)
        corners = np.zeros((0, 4), np.float32) if box is None else np.asarray(box, np.float32).reshape(1, 4)
        earlier = None if mask is None else np.asarray(mask, np.float32)
        self._check_prompt(coords, marks, corners, earlier)
        if len(self._windows) == 1:
            return self._predict_in(self._windows[0], coords, marks, corners, earlier, choice)
        every = np.concatenate([coords[marks == 1], corners.reshape(-1, 2)])
        if not len(every):
            raise ValueError("no point is on the object; add one, or its box")
        low, high, tile = every.min(0), every.max(0), self._tile()
        side = max(tile, math.ceil(1.5 * float((high - low).max())))
        window = window_around(low, high, self.size_hw, side)
        while True:
            found = self._predict_in(window, coords, marks, corners, earlier, choice)
            side *= 2
            wider = window_around(low, high, self.size_hw, side)
            if wider == window or side > GROWN * tile or not reaches_border(found.mask, window, self.size_hw):
                break
            window = wider
        inside = slice(window[0], window[2]), slice(window[1], window[3])
        whole = np.zeros(self.size_hw, np.bool_)
        logits = np.full(self.size_hw, min(float(found.logits.min()), -1.0), np.float32)
        whole[inside], logits[inside] = found.mask, found.logits
        return replace(found, mask=whole, logits=logits)

    def _predict_in(
        self,
        window: Box,
        coords: FloatArray,
        marks: npt.NDArray[np.int64],
        corners: FloatArray,
        earlier: FloatArray | None,
        choice: Choice,
    ) -> Prediction:
        """Answer a prompt of the image, as `predict` checked it, in a window; the mask has the window's size."""
        y0, x0, y1, x1 = window
        if not self._look(window):
            raise ValueError("no pixel around the prompt holds a measurement")
        frame, first = self.encoded.frame, np.asarray([x0, y0], np.float32)
        kept = ((coords >= first) & (coords < (x1, y1))).all(1) | (marks == 1)
        low, scores = self.decode(
            frame.points_to_input(coords[kept] - first)[None],
            marks[kept][None],
            frame.box_to_input(corners[0] - np.tile(first, 2))[None] if len(corners) else None,
            None if earlier is None else earlier[None, None],
        )
        picked = 0 if choice == "single" or scores.shape[1] == 1 else 1 + int(scores[0, 1:].argmax())
        logits = self.restore(low[:, picked])[0]
        if not (np.isfinite(logits).all() and np.isfinite(scores[0, picked])):
            raise ModelError(f"{self.folder} computes NaN or infinity for this image; export the model again")
        value, chance = self._class_of(low[0, picked]) or (None, None)
        return Prediction(logits > 0, logits, float(scores[0, picked]), low[0, picked], value, chance)

    def everything(self, settings: Settings | None = None) -> list[FoundObject]:
        """Find every object of the current image, best first, with its class if the model distinguishes classes.

        Objects that a border of a window cuts become one.

        Args:
            settings: settings of the search; by default those of `Settings`.

        Raises:
            ValueError: no image is set.
        """
        size_hw, wanted = self.size_hw, settings or Settings()

        def found() -> Iterator[tuple[Box, list[FoundObject]]]:
            for window in self._windows:
                if self._look(window):
                    objects = find_objects(self, self._dense_answer(), wanted)
                    yield window, [one.shifted(window[0], window[1], size_hw) for one in objects]

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
                f"{self.folder} has no dense head, so it gives no class map; train one (--heads prompt,dense)"
            )
        objects = [1 if value is None else value for value in spec.classes]
        kind = next(kind for kind in (np.uint8, np.uint16, np.uint32) if max(objects) < np.iinfo(kind).max)
        values, nodata = np.asarray([0, *objects] if spec.background else objects, kind), int(np.iinfo(kind).max)
        labels, probability = np.full(size_hw, nodata, kind), np.zeros(size_hw, np.float32)
        answers = (self._chances() if self._look(window) else None for window in self._windows)
        for y0, chances in blended(size_hw, self._windows, answers, len(values)):
            rows = slice(y0, y0 + chances.shape[1])
            measured = self._valid[rows]
            labels[rows][measured] = values[chances.argmax(0)][measured]
            probability[rows] = chances.max(0) * measured
        return ClassMap(labels, probability, nodata)

    def _chances(self) -> FloatArray:
        """Return the (K, h, w) class probabilities of the window looked at, 0 where nothing is measured."""
        dense = self._dense_answer()
        assert dense is not None  # `semantic`
        return softmax(self.restore(dense[0])) * self.encoded.measured

    def decode(
        self,
        coords: FloatArray,
        labels: npt.NDArray[np.int64],
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
        feeds = {
            **self.encoded.levels,
            "image_index": np.zeros(len(coords), np.int64),
            "point_coords": np.asarray(coords, np.float32),
            "point_labels": np.asarray(labels, np.int64),
            "boxes": np.zeros((0, 4), np.float32) if boxes is None else boxes,
            "mask_input": np.zeros((0, 1, *self.manifest.mask_size), np.float32) if masks is None else masks,
        }
        logits, scores = self.session(DECODER).run(["logits", "iou"], feeds)
        return logits, scores

    def restore(self, logits: FloatArray) -> FloatArray:
        """Resize logits (N, h, w) of the S×S input to the image: (N, H, W)."""
        height, width = self.encoded.frame.original_hw
        step = max(_VALUES_AT_ONCE // max(height * width, self.manifest.image_size**2), 1)
        size, session = np.asarray([height, width], np.int64), self.session(MASKS)
        parts = [
            session.run(["masks"], {"logits": logits[start : start + step], "original_hw": size})[0]
            for start in range(0, len(logits), step)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, height, width), np.float32)

    def _dense_answer(self) -> tuple[FloatArray, FloatArray] | None:
        """Return class logits (K, h, w) and distance logits (h, w); None without a dense head."""
        levels = self.encoded.levels
        if self.manifest.dense is None:
            return None
        if self._dense is None:
            classes, distance = self.session(DENSE).run(["classes", "distance"], levels)
            self._dense = classes[0], distance[0, 0]
        return self._dense

    def _class_of(self, low: FloatArray) -> tuple[int, float] | None:
        """Return class and probability of a mask (h, w); None without classes of objects or for an empty mask."""
        dense, spec, inside = self._dense_answer(), self.manifest.dense, low > 0
        if dense is None or spec is None or spec.classes == (None,) or not inside.any():
            return None
        first = int(spec.background)
        mean = resized(softmax(dense[0]), (low.shape[0], low.shape[1]))[:, inside].mean(1)[first:]
        value = spec.classes[int(mean.argmax())]
        return None if value is None else (value, float(mean.max() / mean.sum().clip(1e-6, 1)))

    def _planes(self, image: npt.NDArray[Any]) -> FloatArray:
        """Return a checked (C, H, W) float32 array."""
        wanted = f"({len(self.channels)}, H, W) of " + ", ".join(f"{one.name} [{one.unit}]" for one in self.channels)
        planes = np.asarray(image)
        if planes.dtype.kind not in "buif":
            raise ValueError(f"the image must be an array of numbers, {wanted}; got dtype {planes.dtype}")
        if planes.ndim == 2 and len(self.channels) == 1:
            planes = planes[None]  # (1, H, W)
        if planes.ndim != 3 or len(planes) != len(self.channels) or 0 in planes.shape:
            raise ValueError(f"the image must be an array {wanted}; got shape {planes.shape}")
        with np.errstate(over="ignore"):  # values beyond float32 become infinite and therefore invalid
            planes = np.ascontiguousarray(planes, np.float32)
        return planes

    def _measured(self, planes: FloatArray) -> BoolArray:
        """Return (H, W) bool, True where a channel is valid; raise ValueError if there is no such pixel."""
        measured = np.zeros(planes.shape[1:], np.bool_)
        for plane, channel in zip(planes, self.channels, strict=True):
            low, high = channel.valid_range or (-np.inf, np.inf)
            measured |= np.isfinite(plane) & (plane >= low) & (plane <= high)
        if measured.any():
            return measured
        ranges = ", ".join(
            f"{one.name}, {one.valid_range[0]:g} to {one.valid_range[1]:g} {one.unit}"
            for one in self.channels
            if one.valid_range is not None
        )
        raise ValueError("no pixel has a valid measurement" + (f"; valid are {ranges}" if ranges else ""))

    def _check_prompt(
        self, coords: FloatArray, labels: npt.NDArray[np.int64], boxes: FloatArray, mask: FloatArray | None
    ) -> None:
        height, width = self.size_hw
        if not len(coords) and not len(boxes) and mask is None:
            raise ValueError("a prompt needs at least one point, a box or a mask")
        if labels.shape != (len(coords),) or not np.isin(labels, (0, 1)).all():
            raise ValueError(f"labels must be 0 or 1, one for each of {len(coords)} points; got {labels.tolist()}")
        if not ((coords >= 0) & (coords < (width, height))).all():
            raise ValueError(f"points {coords.tolist()} must be on the image, which is {width} wide and {height} high")
        if len(boxes) and not (
            (boxes[0, :2] < boxes[0, 2:]).all() and (boxes >= 0).all() and (boxes[0, 2:] <= (width, height)).all()
        ):
            raise ValueError(
                f"box must be x0, y0, x1, y1 with x0 < x1 <= {width} and y0 < y1 <= {height}; got {boxes[0].tolist()}"
            )
        if mask is not None and mask.shape != self.manifest.mask_size:
            raise ValueError(
                f"mask must be {self.manifest.mask_size} logits, the low_res of an earlier prediction; "
                f"got shape {mask.shape}"
            )

    def session(self, name: str) -> onnxruntime.InferenceSession:
        """Return the session of one file, which is loaded when it is first needed.

        Raises:
            ModelError: onnxruntime cannot load it, or is not installed.
        """
        if name not in self._sessions:
            try:
                import onnxruntime
            except ModuleNotFoundError as error:
                raise ModelError(
                    f"{self.folder} runs in onnxruntime, which is missing; pip install onnxruntime"
                ) from error
            options = onnxruntime.SessionOptions()
            if self._threads is not None:
                options.intra_op_num_threads = self._threads
            try:
                self._sessions[name] = onnxruntime.InferenceSession(
                    self.folder / name, options, providers=list(self._providers)
                )
            except Exception as error:  # onnxruntime's errors have no common base class
                raise ModelError(f"onnxruntime cannot load {self.folder / name} ({error})") from error
        return self._sessions[name]
