"""Segment images of any size, window by window.

A window has the resolution that the model was trained at. Each is read, encoded and segmented by itself, in any order
and any process. The results are merged in raster order: class probabilities are blended over the overlap, and objects
that a border cuts become one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simmat.calibration import calibrated, calibrated_classes
from simmat.data.instances import FoundObject
from simmat.errors import BundleError, ConfigError
from simmat.nn.device import threads_for_load
from simmat.nn.resize import restore_logits
from simmat.predictor.encoded import EncodedImage
from simmat.predictor.encoder import ImageEncoder
from simmat.predictor.found import ClassMap, FoundObjects, Prediction
from simmat.predictor.objects import EverythingSettings
from simmat.predictor.prompts import (
    Choice,
    check_choice,
    check_inside,
    chosen_mask,
    groups_of_one_kind,
    prompt_in,
    prompt_windows,
    reaches_border,
)
from simmat.predictor.reading import LoadedImage, NoValidPixelsError
from simmat.predictor.reference import Reference
from simmat.predictor.tiles import (
    ClassMapBlender,
    SegmentOptions,
    WindowResult,
    merge_objects,
    most_likely,
    plan_windows,
)
from simmat.predictor.uncertainty import Uncertainty, uncertainty_in
from simmat.types import FloatArray, ImageReader, Prompt, SensorImage, Window

_CACHE_BYTES = 2**28
"""Windows with their embeddings that an image keeps in memory; the one used longest ago is dropped."""
_CACHED_WINDOWS = 16
"""Windows of an image with at most so many are kept, as objects and classes may be asked for one after the other."""
_MAX_VALUES = 2**26
"""Pixels times channels of the window around a prompt, at most, if it is not a single one."""


class TiledImage:
    """An image of any size, ready to be segmented.

    Attributes:
        reader: reads its windows.
        windows: its parts in raster order; one where the whole image fits.
        tile: side of a window in pixels.
        overlap: smallest overlap of neighbouring windows in pixels.
        warning: how the values of a window differ from those of training; "" if no window's did.
    """

    def __init__(
        self,
        encoder: ImageEncoder,
        reader: ImageReader,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        cache: Path | None = None,
    ) -> None:
        """Cut an image into windows.

        Args:
            tile: side of a window in pixels; None as `ImageEncoder.tile_size` says.
            overlap: overlap of neighbouring windows in pixels; None is an eighth of a window.
            cache: folder that keeps the embeddings of the windows around prompts; None keeps none.

        Raises:
            ConfigError: the overlap is not smaller than the window, or they are not positive.
        """
        self._encoder, self.reader, self._cache = encoder, reader, cache
        self.tile = encoder.tile_size(reader.size_hw) if tile is None else tile
        if self.tile < 1:
            raise ConfigError(f"--tile must be at least 1 pixel, got {self.tile}")
        self.overlap = min(self.tile, max(reader.size_hw)) // 8 if overlap is None else overlap
        if not 0 <= self.overlap < self.tile:
            raise ConfigError(
                f"--overlap must be from 0 to {self.tile - 1}, less than the window's side of {self.tile} pixels; "
                f"got {self.overlap}"
            )
        self.windows = plan_windows(reader.size_hw, self.tile, self.overlap)
        self.warning = ""
        self._encoded: dict[Window, tuple[SensorImage, EncodedImage]] = {}  # the one used last is at the end
        self._views: tuple[Window | None, dict[str, EncodedImage]] = (None, {})  # of the last window, see `uncertainty`
        self._loaded_bytes = self.cached_bytes  # there is no window yet

    @property
    def cached_bytes(self) -> int:
        """Memory of the image, if it was loaded as a whole, and of the windows and embeddings that are kept."""
        loaded = [self.reader.image] if isinstance(self.reader, LoadedImage) else []
        images = {id(image): image for image in (*loaded, *(image for image, _ in self._encoded.values()))}
        pixels = sum(image.data.nbytes + image.valid.nbytes for image in images.values())
        return pixels + sum(one.nbytes for _, one in self._encoded.values())

    @property
    def shrink_warning(self) -> str:
        """Warn that windows are shrunk too much on their way into the network, see `max_untiled_side`; "" if not so."""
        size, largest = self._encoder.pipeline.size, self._encoder.max_untiled_side
        side = min(self.tile, max(self.reader.size_hw))
        if side <= largest:
            return ""
        return (
            f"windows of {self.tile} pixels are shrunk {side / size:.3g} times to the network's {size}, so small "
            f"objects are lost; --tile {largest} or less keeps them"
        )

    def encode(self) -> bool:
        """Encode an image if it fits in one window, so that the first prompt is fast; return whether it fits."""
        if len(self.windows) == 1:
            self.encoded(self.windows[0], cache=self._cache)
        return len(self.windows) == 1

    def encoded(
        self, window: Window, *, keep: bool = True, cache: Path | None = None
    ) -> tuple[SensorImage, EncodedImage | None]:
        """Return the pixels of a window and its embedding; None as the embedding where nothing is measured.

        Args:
            keep: keep both in memory.
            cache: folder that keeps embeddings.

        Raises:
            SimMATError: it cannot be read, or has other channels than the model.
            OutputError: the embedding cannot be written.
        """
        if window in self._encoded:
            self._encoded[window] = self._encoded.pop(window)
            return self._encoded[window]
        image = self.reader.read(window)
        self._encoder.image_loader.check_channels(image)
        if not image.valid.any():
            return image, None
        found = self._encoder.encode(image, self.reader, cache)
        if keep:
            self.keep(window, image, found)
        return image, found

    def keep(self, window: Window, image: SensorImage, encoded: EncodedImage) -> None:
        """Keep the pixels of a window and its embedding in memory."""
        self._encoded[window] = image, encoded
        while len(self._encoded) > 1 and self.cached_bytes - self._loaded_bytes > _CACHE_BYTES:
            del self._encoded[next(iter(self._encoded))]

    def segment_window(self, window: Window, options: SegmentOptions) -> WindowResult:
        """Segment one window; raise SimMATError if it cannot be read or has other channels than the model."""
        image, encoded = self.encoded(window, keep=len(self.windows) <= _CACHED_WINDOWS)
        if encoded is None:
            return WindowResult(is_empty=True)
        self.warning = self.warning or encoded.warning
        found: list[FoundObject] = []
        if options.objects is not None:
            found = self._encoder.objects_in(encoded, options.objects, options.like)
        calibration = self._encoder.calibration if options.like is None else None  # it is measured without a reference
        objects = tuple(
            replace(
                one.shifted(window.y0, window.x0),
                score=calibrated(calibration, "object", one.score),
                class_probabilities=calibrated_classes(calibration, one.class_probabilities),
            )
            for one in found
        )
        probabilities = encoded.class_map() if options.classes else None
        return WindowResult(objects, None if probabilities is None else probabilities * np.any(image.valid, axis=0))

    def label_type(self) -> tuple[npt.DTypeLike, int]:
        """Return the dtype of class maps, and the label value of pixels without a measurement: its largest number."""
        largest = max(self._encoder.required_dense().label_values)
        for dtype in (np.uint8, np.uint16):
            if largest < np.iinfo(dtype).max:
                return dtype, int(np.iinfo(dtype).max)
        return np.uint32, int(np.iinfo(np.uint32).max)

    def class_map_blender(self) -> ClassMapBlender:
        """Return what blends the class maps of the windows; ConfigError without a dense head."""
        classes = self._encoder.required_dense().count
        return ClassMapBlender(self.reader.size_hw, self.tile, self.overlap, classes)

    def windows_in(self, box: Window) -> list[Window]:
        """Return the windows that a part of the image touches, in raster order."""
        return [window for window in self.windows if window.intersection(box) is not None]

    def segment_everything(
        self,
        settings: EverythingSettings | None = None,
        *,
        like: Reference | None = None,
        box: Window | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> FoundObjects:
        """Find every object, best first.

        Args:
            settings: how objects are found.
            like: find what a reference shows only, see `Predictor.reference`.
            box: part of the image to search; only the windows that it touches are segmented.
            progress: called with the number of windows that are done; what it raises ends the search.

        Raises:
            NoValidPixelsError: no pixel of the image holds a measurement.
        """
        options = SegmentOptions(settings or EverythingSettings(), like=like)
        windows = self.windows if box is None else self.windows_in(box)
        found = []
        empty = 0
        for index, window in enumerate(windows):
            result = self.segment_window(window, options)
            found.append(result.objects)
            empty += result.is_empty
            if progress is not None:
                progress(index + 1)
        self.check_measured(empty)
        objects = merge_objects(windows, found)
        if box is not None:
            objects = [one for one in objects if one.instance.window.intersection(box) is not None]
        return FoundObjects(objects, self.reader, self._encoder.class_names)

    def segment_semantic(self, *, probabilities: bool = False) -> ClassMap:
        """Return the class of every pixel, see `Predictor.segment_semantic`."""
        spec = self._encoder.required_dense()
        dtype, nodata = self.label_type()
        size_hw = self.reader.size_hw
        labels = np.zeros(size_hw, dtype)
        probability = np.zeros(size_hw, np.float32)
        every = np.zeros((spec.count, *size_hw), np.float32) if probabilities else None
        blender = self.class_map_blender()
        empty = 0
        for window in self.windows:
            result = self.segment_window(window, SegmentOptions(classes=True))
            empty += result.is_empty
            for y0, band in blender.add(result.probabilities):
                rows = slice(y0, y0 + band.shape[1])
                labels[rows], probability[rows] = most_likely(band, spec.label_values, nodata)
                if every is not None:
                    every[:, rows] = band
        self.check_measured(empty)
        background = 0 if spec.background else None
        names = self._encoder.class_names
        return ClassMap(labels, probability, spec.label_values, self.reader, names, background, nodata, every)

    def check_measured(self, empty: int) -> None:
        """Raise NoValidPixelsError if all windows are empty."""
        if empty == len(self.windows):
            raise NoValidPixelsError(f"{self.reader.origin}: no pixel holds a measurement")

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

    def predict_prompts(self, prompts: Sequence[Prompt], choice: Choice = "single") -> list[Prediction]:
        """Return the mask of each prompt; those of one kind are decoded together if the image is one window.

        Raises:
            SimMATError: as `predict` raises it; a prompt outside of the image before any is answered.
        """
        check_choice(choice)
        for prompt in prompts:
            check_inside(prompt, self.reader)
        if len(self.windows) > 1:
            return [self._predict(prompt, choice)[0] for prompt in prompts]
        found: dict[int, Prediction] = {}
        for group in groups_of_one_kind(prompts):
            answers = self._predict_in(self.windows[0], [prompts[index] for index in group], choice)
            found |= {index: one for index, (one,) in zip(group, answers, strict=True)}
        return [found[index] for index in range(len(prompts))]

    def uncertainty(self, prompt: Prompt, choice: Choice = "single", window: Window | None = None) -> Uncertainty:
        """Return how much the mask of a prompt differs between up to five views of its window: flips and small shifts.

        Args:
            prompt: its mask is left out.
            window: that of the mask, `Prediction.window`; None finds it first.

        Raises:
            SimMATError: as `predict` raises it.
        """
        window = self.predict(prompt, choice).window if window is None else window
        image, encoded = self._measured(window)
        if self._views[0] != window:
            self._views = window, {}
        own = prompt_in(prompt, window)
        part = uncertainty_in(self._encoder, encoded, image, self.reader, own, choice, self._views[1])
        mean, std = (np.full(self.reader.size_hw, np.nan, np.float32) for _ in range(2))
        mean[window.slices], std[window.slices] = part.mean, part.std
        return Uncertainty(mean, std)

    def _predict(self, prompt: Prompt, choice: Choice | None) -> list[Prediction]:
        """Return the chosen mask, or with None all of them, in a window that is widened as `predict` says."""
        check_inside(prompt, self.reader)
        if prompt.box is None and not (prompt.point_labels == 1).any():
            raise ConfigError(f"{self.reader.origin}: no point is on the object; add one, or its box")
        found: list[Prediction] = []
        for window in prompt_windows(prompt, self.reader.size_hw, self.tile):
            values = math.prod(window.size_hw) * len(self._encoder.channels)
            if max(window.size_hw) > self.tile and values > _MAX_VALUES:
                if found:
                    break
                raise ConfigError(
                    f"{self.reader.origin}: the prompt needs a window of {window.size_hw[1]}x{window.size_hw[0]} "
                    "pixels, which takes too much memory; mark the object by one point, or by a smaller box"
                )
            (found,) = self._predict_in(window, [prompt], choice)
            if not reaches_border(found[0].mask, window, self.reader.size_hw):
                break
        return found

    @threads_for_load()
    def _predict_in(self, window: Window, prompts: Sequence[Prompt], choice: Choice | None) -> list[list[Prediction]]:
        """Return the chosen mask of each prompt in a window, or with None all masks; the prompts are of one kind."""
        image, encoded = self._measured(window)
        calibration, bundle = self._encoder.calibration, self._encoder.bundle
        answer = encoded.decode([prompt_in(prompt, window) for prompt in prompts])
        found: list[list[Prediction]] = [[] for _ in prompts]
        for row, prompt in enumerate(prompts):
            scores = answer.iou[row].tolist()
            for mask in range(len(scores)) if choice is None else [chosen_mask(scores, choice)]:
                low = answer.logits[row : row + 1, mask : mask + 1].float()  # (1, 1, h, w)
                logits: FloatArray = restore_logits(low, encoded.prepared.letterbox)[0, 0].cpu().numpy()
                if not (np.isfinite(logits).all() and math.isfinite(scores[mask])):
                    source = bundle.path if bundle else "the model"
                    raise BundleError(f"{source} gives NaN or infinity for {image.origin}; its weights are damaged")
                low_res_logits: FloatArray = low[0, 0].cpu().numpy()
                classes = calibrated_classes(calibration, encoded.class_probabilities(low_res_logits))
                score = calibrated(calibration, "click" if prompt.box is None else "box", scores[mask])
                one = Prediction(logits > 0, logits, score, low_res_logits, image, window, encoded.warning, classes)
                found[row].append(one)
        return found

    def _measured(self, window: Window) -> tuple[SensorImage, EncodedImage]:
        image, encoded = self.encoded(window, cache=self._cache)
        if encoded is None:
            raise NoValidPixelsError(f"{self.reader.origin}: no pixel around the prompt holds a measurement")
        return image, encoded
