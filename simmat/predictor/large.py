"""Segment images of any size, window by window.

A window has the resolution that the model was trained at. Each is read, encoded and answered by itself, in any order
and any process. The answers are joined in raster order: class probabilities are blended over the overlap, and objects
that a border cuts become one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject
from simmat.errors import ConfigError, DataError
from simmat.everything import ClassMap, EverythingSettings, label_values
from simmat.io.files.system import release_pages
from simmat.predictor.answers import AnswerStore, Wanted, WindowAnswer
from simmat.predictor.encoded import EncodedImage, EncodedWindows
from simmat.predictor.prediction import Choice, Prediction, check_choice, check_inside, check_mask_size
from simmat.predictor.prompt_windows import prompt_in, prompt_windows, reaches_border
from simmat.types import BoolArray, FloatArray, ImageReader, Prompt, SensorImage, Window
from simmat.windows import ClassMapBlender, InstanceJoiner, plan_windows

if TYPE_CHECKING:
    from simmat.predictor.predictor import Predictor


_SAMPLES = 4
"""Windows along each side that show what the values of a large image are like."""
_FEW = 16
"""The embeddings of so many windows are kept, as objects and classes may be asked for one after the other."""
_MOST_VALUES = 2**26
"""Pixels times channels of the window around a prompt, at most, if it is not a single one."""


@dataclass
class Joined:
    """What was found in a whole image.

    Attributes:
        objects: best first; None if they are not wanted.
        classes: (H, W) label values; None if they are not wanted.
        nodata: label value of pixels without a measurement.
        windows: number of windows.
        empty: number of windows without a measurement.
    """

    objects: list[FoundObject] | None
    classes: npt.NDArray[Any] | None
    nodata: int | None
    windows: int
    empty: int


class NothingMeasuredError(DataError):
    """No pixel of an image holds a measurement."""


def check_wanted(predictor: Predictor, wanted: Wanted) -> None:
    """Raise ConfigError if classes are wanted of a model without a dense head."""
    if wanted.classes and predictor.dense is None:
        raise ConfigError("this model has no class map: it has no dense head; train one with --heads prompt,dense")


class LargeImage:
    """An image of any size, ready to be segmented.

    Attributes:
        windows: its parts in raster order; one where the whole image fits.
        overlap: smallest overlap of neighbouring windows in pixels.
        doubt: how the values of a window differ from those of training; "" if no window did.
    """

    def __init__(
        self,
        predictor: Predictor,
        reader: ImageReader,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        encoded: EncodedImage | None = None,
        cache: Path | None = None,
    ) -> None:
        """Cut an image into windows.

        Args:
            tile: side of a window in pixels; None as `Predictor.tile_of` says.
            overlap: overlap of neighbouring windows in pixels; None is an eighth of a window.
            encoded: the embedding of the whole image, if it is known and fits.
            cache: folder that keeps the embeddings of the windows around prompts; None keeps none.

        Raises:
            ConfigError: the overlap is not smaller than the window, or they are not positive.
        """
        self._predictor, self.reader = predictor, reader
        longest = max(reader.size_hw)
        self.tile = predictor.tile_of(reader.size_hw) if tile is None else tile
        if self.tile < 1:
            raise ConfigError(f"--tile must be at least 1 pixel, got {self.tile}")
        self.overlap = min(self.tile, longest) // 8 if overlap is None else overlap
        if not 0 <= self.overlap < self.tile:
            raise ConfigError(
                f"--overlap must be from 0 to {self.tile - 1}, less than the window's side of {self.tile} pixels; "
                f"got {self.overlap}"
            )
        self.windows = plan_windows(reader.size_hw, self.tile, self.overlap)
        self.doubt = ""
        self._encoded = EncodedWindows(predictor, reader, self._sample, encoded)
        self._cache = cache

    @property
    def kept_bytes(self) -> int:
        """Memory of the windows and embeddings that are kept."""
        return self._encoded.nbytes

    @property
    def shrunk_note(self) -> str:
        """Warn that windows are shrunk too much on their way into the network, see `largest_whole`; "" if not so."""
        size, most = self._predictor.pipeline.size, self._predictor.largest_whole
        side = min(self.tile, max(self.reader.size_hw))
        if side <= most:
            return ""
        return (
            f"windows of {self.tile} pixels are shrunk {side / size:.3g} times to the network's {size}, so small "
            f"objects are lost; --tile {most} or less keeps them"
        )

    def answer(self, window: Window, wanted: Wanted) -> WindowAnswer:
        """Segment one window; raise SimMATError if it cannot be read or has other channels than the model."""
        image, encoded = self._encoded.look(window, keep=len(self.windows) <= _FEW)
        measured: BoolArray = np.any(image.valid, axis=0)
        if encoded is None:
            return WindowAnswer(measured)
        self.doubt = self.doubt or self._predictor.doubt_of(encoded)
        found = () if wanted.objects is None else encoded.find_objects(wanted.objects)
        objects = tuple(one.shifted(window.y0, window.x0) for one in found)
        if not wanted.classes:
            return WindowAnswer(measured, objects)
        chances = encoded.class_map()
        assert chances is not None  # `check_wanted`
        return WindowAnswer(measured, objects, chances)

    def answers(
        self,
        wanted: Wanted,
        *,
        only: set[Window] | None = None,
        store: AnswerStore | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> Iterator[WindowAnswer]:
        """Segment the windows in raster order.

        Args:
            only: windows to segment; nothing is found in the others. None for all.
            store: answers that are in it are read from it, the others are added to it.
            progress: called with the number of windows that are done; what it raises ends the search.
        """
        check_wanted(self._predictor, wanted)
        done = 0
        for index, window in enumerate(self.windows):
            if only is not None and window not in only:
                yield WindowAnswer(np.ones((1, 1), np.bool_))
                continue
            answer = None if store is None else store.read(index)
            if answer is None:
                answer = self.answer(window, wanted)
                answer = answer if store is None else store.write(index, answer)
            done += 1
            if progress is not None:
                progress(done)
            yield answer

    def label_type(self) -> tuple[npt.DTypeLike, int]:
        """Return the dtype of class maps, and the label value of pixels without a measurement: its largest number."""
        spec = self._predictor.dense
        assert spec is not None
        largest = int(label_values(spec.background, spec.classes).max())
        for dtype in (np.uint8, np.uint16):
            if largest < np.iinfo(dtype).max:
                return dtype, int(np.iinfo(dtype).max)
        return np.uint32, int(np.iinfo(np.uint32).max)

    def join(
        self,
        answers: Iterable[WindowAnswer],
        wanted: Wanted,
        *,
        classes: npt.NDArray[Any] | None = None,
        probability: FloatArray | None = None,
    ) -> Joined:
        """Join the answers to all windows, in raster order.

        Args:
            answers: results of `answer`, one for each window.
            classes: (H, W) of `label_type`, filled with the class map.
            probability: (H, W) float32, filled with the probability of each pixel's class.
        """
        size_hw, spec = self.reader.size_hw, self._predictor.dense
        blender, values = None, np.zeros(0, np.int64)
        nodata: int | None = None
        unmeasured = 0
        if wanted.classes and spec is not None:
            nodata = unmeasured = self.label_type()[1]
            values = label_values(spec.background, spec.classes)
            blender = ClassMapBlender(size_hw, self.tile, self.overlap, len(values))
        joiner = InstanceJoiner(size_hw, self.tile, self.overlap)
        objects: list[FoundObject] = []
        empty = 0
        for window, answer in zip(self.windows, answers, strict=True):
            empty += not answer.measured.any()
            objects += joiner.add(answer.objects)
            if blender is None:
                continue
            blank = np.zeros((len(values), *window.size_hw), np.float32)  # no class is likely where nothing is measured
            chances = blank if answer.chances is None else answer.chances * answer.measured
            for band in blender.add(chances):
                rows = slice(band.y0, band.y0 + len(band.classes))
                if classes is not None:
                    classes[rows] = np.where(band.probability > 0, values[band.classes], unmeasured)
                    release_pages(classes)
                if probability is not None:
                    probability[rows] = band.probability
        if empty == len(self.windows):
            raise NothingMeasuredError(
                f"{self.reader.origin}: no pixel holds a measurement, so there is nothing to segment"
            )
        found = None if wanted.objects is None else sorted(objects, key=lambda one: -one.score)
        return Joined(found, classes, nodata, len(self.windows), empty)

    def windows_in(self, box: Window) -> set[Window]:
        """Return the windows that a part of the image touches."""
        return {window for window in self.windows if _touch(window, box)}

    def segment_everything(
        self,
        settings: EverythingSettings | None = None,
        *,
        box: Window | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> list[FoundObject]:
        """Find every object, best first.

        Args:
            settings: how objects are found.
            box: part of the image to search; only the windows that it touches are segmented.
            progress: see `answers`.
        """
        wanted = Wanted(settings or EverythingSettings())
        only = None if box is None else self.windows_in(box)
        found = self.join(self.answers(wanted, only=only, progress=progress), wanted).objects or []
        return found if box is None else [one for one in found if _touch(one.instance.window, box)]

    def segment_semantic(self) -> ClassMap:
        """Return the class of every pixel."""
        wanted = Wanted(classes=True)
        check_wanted(self._predictor, wanted)
        dtype, _ = self.label_type()
        classes, probability = np.zeros(self.reader.size_hw, dtype), np.zeros(self.reader.size_hw, np.float32)
        found = self.join(self.answers(wanted), wanted, classes=classes, probability=probability)
        return ClassMap(classes, probability, found.nodata)

    def predict(self, prompt: Prompt, choice: Choice = "single") -> Prediction:
        """Segment the object that a prompt marks, in a window around the prompt.

        The window is widened while the mask reaches its border, up to four times its side. Points that are not on the
        object count where they lie in the window.

        Raises:
            ConfigError: a point or the box is outside of the image, or the prompt takes a window larger than memory.
            DataError: no pixel around the prompt holds a measurement.
            BundleError: the network's output is not finite.
            OutputError: an embedding cannot be written.
        """
        check_choice(choice)
        return self._predict(prompt, choice)[0]

    def predict_all(self, prompt: Prompt) -> list[Prediction]:
        """Return every mask that the model has for a prompt: the single one of `predict`, then by falling score.

        All are of the window in which the single mask does not reach the border.

        Raises:
            SimMATError: as `predict` raises it.
        """
        first, *others = self._predict(prompt, None)
        return [first, *sorted(others, key=lambda one: -one.score)]

    def encode(self) -> bool:
        """Encode an image if it fits in one window, so that the first prompt is fast; return whether it fits."""
        if len(self.windows) == 1:
            self._encoded.look(self.windows[0], cache=self._cache)
        return len(self.windows) == 1

    def _predict(self, prompt: Prompt, choice: Choice | None) -> list[Prediction]:
        """Return the chosen mask, or with None all of them, in a window that is widened as `predict` says."""
        check_inside(prompt, self.reader)
        if prompt.box is None and not (prompt.point_labels == 1).any():
            raise ConfigError(f"{self.reader.origin}: no point is on the object; add one, or its box")
        found: list[Prediction] = []
        for window in prompt_windows(prompt, self.reader.size_hw, self.tile):
            if max(window.size_hw) > self.tile and not self._fits_memory(window):
                if found:
                    break
                raise ConfigError(
                    f"{self.reader.origin}: the prompt needs a window of {window.size_hw[1]}x{window.size_hw[0]} "
                    "pixels, which takes too much memory; mark the object by one point, or by a smaller box"
                )
            found = self._predict_in(window, prompt, choice)
            if not reaches_border(found[0].mask, window, self.reader.size_hw):
                break
        return found

    def _fits_memory(self, window: Window) -> bool:
        return math.prod(window.size_hw) * len(self._predictor.channels) <= _MOST_VALUES

    def _predict_in(self, window: Window, prompt: Prompt, choice: Choice | None) -> list[Prediction]:
        image, encoded = self._encoded.look(window, cache=self._cache)
        if encoded is None:
            raise NothingMeasuredError(f"{self.reader.origin}: no pixel around the prompt holds a measurement")
        decoded = encoded.decode([prompt_in(prompt, window)])
        check_mask_size(prompt.mask_input, decoded)
        picks: Iterable[Choice | int] = range(decoded.iou.shape[1]) if choice is None else (choice,)
        return [self._predictor.local_prediction(encoded, decoded, 0, pick, image, window) for pick in picks]

    def _sample(self) -> SensorImage:
        """Return pixels from all over the image, side by side: what its values are like."""
        (height, width), size = self.reader.size_hw, self._predictor.pipeline.size
        if len(self.windows) == 1:
            return self.reader.read(self.windows[0])
        side = min(size, height, width)
        starts = [np.linspace(0, length - side, _SAMPLES).astype(int).tolist() for length in (height, width)]
        parts = []
        for y, x in itertools.product(*starts):
            part = self.reader.read(Window(y, x, y + side, x + side))
            parts.append((part.data[:, ::2, ::2].copy(), part.valid[:, ::2, ::2].copy()))
        data, valid = (np.concatenate(planes, axis=2) for planes in zip(*parts, strict=True))
        return SensorImage(data, valid, part.channels, self.reader.origin)


def _touch(one: Window, other: Window) -> bool:
    """Return whether two parts of an image have a pixel in common."""
    return one.y0 < other.y1 and other.y0 < one.y1 and one.x0 < other.x1 and other.x0 < one.x1
