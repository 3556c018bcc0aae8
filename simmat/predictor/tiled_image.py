"""An image of any size, cut into windows that are encoded as they are needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor

from simmat.calibration import Kind, calibrated, calibrated_classes
from simmat.data.instances import FoundObject
from simmat.data.pipeline import restore_logits
from simmat.errors import BundleError, ConfigError
from simmat.nn.device import threads_for_load
from simmat.predictor.encoded import ClassMap, EncodedImage, Encoder, Prediction
from simmat.predictor.input_check import domain_shift_warning, image_warning, sampled
from simmat.predictor.objects import EverythingSettings, FoundObjects, find_objects
from simmat.predictor.open import NoValidPixelsError
from simmat.predictor.prompts import (
    MaskSelection,
    check_inside,
    check_mask_selection,
    chosen_mask,
    groups_of_one_kind,
    prompt_in,
)
from simmat.predictor.reference import Reference, find_by_reference
from simmat.predictor.tiles import (
    ClassMapBlender,
    WindowResult,
    by_next_window,
    merge_objects,
    most_likely,
    prompt_windows,
    reaches_border,
)
from simmat.predictor.uncertainty import (
    Uncertainty,
    mean_and_std,
    object_probability,
    views_of,
)
from simmat.types import (
    FloatArray,
    ImageReader,
    Prompt,
    SensorImage,
    Window,
    max_untiled_side,
)

Answer = TypeVar("Answer")

_MAX_CACHED_WINDOWS = 16
"""Windows of an image with at most so many are cached, as objects and classes may be asked for one after the other."""
MAX_WINDOW_VALUES = 2**26
"""Most pixels times channels of a window around a prompt that is larger than a tile."""
CACHE_BYTES = 2**28
"""Windows with their embeddings that an image keeps in memory; the one used longest ago is dropped."""


class TiledImage:
    """An image of any size, cut into windows, with their embeddings: what `Predictor.open_image` returns.

    It reads each window that it needs, encodes it unless its embedding is cached, decodes it, and merges what was
    found by the functions of `simmat.predictor.tiles`.

    Attributes:
        encoder: encodes its windows.
        reader: reads its windows.
        windows: its parts in raster order; a single one if the whole image fits.
        tile: side of a window in pixels.
        overlap: smallest overlap of neighbouring windows in pixels.
        cache_folder: folder that keeps the embeddings of the windows around prompts; None keeps none.
        warning: how the values of a window differ from the training values; "" if they do not.
    """

    def __init__(
        self,
        encoder: Encoder,
        reader: ImageReader,
        windows: Sequence[Window],
        *,
        tile: int,
        overlap: int,
        cache_folder: Path | None = None,
    ) -> None:
        self.encoder = encoder
        self.reader = reader
        self.windows = windows
        self.tile = tile
        self.overlap = overlap
        self.cache_folder = cache_folder
        self.warning = ""
        # name of a view -> flips and shifts of one window, for `uncertainty`
        self._views: dict[Window, dict[str, EncodedImage]] = {}
        # the window used last is at the end
        self._encoded: dict[Window, tuple[SensorImage, EncodedImage]] = {}
        # of the loaded image alone, as no window is encoded yet
        self._image_bytes = self.cached_bytes

    @property
    def size_hw(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.reader.size_hw

    @cached_property
    def channel_count(self) -> int:
        """Number of planes, which an untuned model learns from the image."""
        return len(self.reader.read(Window(0, 0, 1, 1)).channels)

    @property
    def cached_bytes(self) -> int:
        """Memory of the image, if it was loaded as a whole, and of the windows and embeddings that are cached."""
        pixels = {}  # a window may be the image itself
        if isinstance(self.reader, SensorImage):
            pixels[id(self.reader)] = self.reader
        for image, _ in self._encoded.values():
            pixels[id(image)] = image
        used = sum(image.data.nbytes + image.valid.nbytes for image in pixels.values())
        return used + sum(encoded.nbytes for _, encoded in self._encoded.values())

    def encode_untiled(self) -> bool:
        """Encode the image if it is one window, so that the first prompt is fast; return whether it is."""
        is_untiled = len(self.windows) == 1
        if is_untiled:
            self.encode_window(self.windows[0], cache_folder=self.cache_folder)
        return is_untiled

    def values_warning(self) -> str:
        """Return how the values of the image, or in its middle, differ from those of training; "" if they do not."""
        middle = self.windows[len(self.windows) // 2]
        if middle in self._encoded:
            _, encoded = self._encoded[middle]
            return encoded.warning
        # only a bundle knows the values of training
        if self.encoder.bundle is None:
            return ""
        warning = image_warning(self.encoder.bundle, sampled(self.reader))
        if warning:
            return warning
        prepared = self.encoder.pipeline(self.reader.read(middle))
        return domain_shift_warning(prepared, self.encoder.pipeline.channels)

    def encode_around_prompt(self, window: Window) -> tuple[SensorImage, EncodedImage]:
        """Return the pixels of a window and its embedding, see `encode_window`; DataError if nothing is measured."""
        pixels, encoded = self.encode_window(window, cache_folder=self.cache_folder)
        if encoded is None:
            raise NoValidPixelsError(
                f"{self.reader.origin}: no pixel around the prompt holds a measurement"
            )
        return pixels, encoded

    def encode_window(
        self, window: Window, *, keep: bool = True, cache_folder: Path | None = None
    ) -> tuple[SensorImage, EncodedImage | None]:
        """Return the pixels of a window and its embedding; None as the embedding where nothing is measured.

        Args:
            window: the window.
            keep: keep both in memory, see `cache`.
            cache_folder: folder that keeps embeddings between sessions; None keeps none.

        Raises:
            SimMATError: it cannot be read, or has other channels than the model.
            OutputError: the embedding cannot be written.
        """
        known = self._encoded.pop(window, None)
        if known is not None:
            self._encoded[window] = known
            return known
        pixels = self.reader.read(window)
        self.encoder.check_channels(pixels)
        if not pixels.valid.any():
            return pixels, None
        encoded = self.encoder.encode(pixels, self.reader, cache_folder)
        if keep:
            self.cache(window, pixels, encoded)
        return pixels, encoded

    def cache(self, window: Window, pixels: SensorImage, encoded: EncodedImage) -> None:
        """Cache the pixels of a window and its embedding; drop the windows used longest ago if there are too many."""
        self._encoded[window] = pixels, encoded
        while (
            len(self._encoded) > 1
            and self.cached_bytes - self._image_bytes > CACHE_BYTES
        ):
            del self._encoded[next(iter(self._encoded))]

    def shrink_warning(self) -> str:
        """Warn that windows are shrunk too much on their way into the network, see `max_untiled_side`; "" if not so."""
        size = self.encoder.pipeline.size
        largest = max_untiled_side(size, self.encoder.image_side)
        side = min(self.tile, max(self.size_hw))
        if side <= largest:
            return ""
        return (
            f"windows of {self.tile} pixels are shrunk {side / size:.3g} times to the network's {size}, so small "
            f"objects are lost; --tile {largest} or less keeps them"
        )

    def windows_in(self, box: Window) -> list[Window]:
        """Return the windows that a part of the image touches, in raster order."""
        return [
            window for window in self.windows if window.intersection(box) is not None
        ]

    def check_measured(self, empty_windows: int) -> None:
        """Raise NoValidPixelsError if so many windows without a measurement are all that there are."""
        if empty_windows == len(self.windows):
            raise NoValidPixelsError(
                f"{self.reader.origin}: no pixel holds a measurement"
            )

    def predict(
        self, prompt: Prompt, mask_selection: MaskSelection = "single"
    ) -> Prediction:
        """Segment the object that a prompt marks, in a window around the prompt.

        The window is widened while the mask reaches its border, up to four times its side. Points that are not on the
        object count where they lie in the window.

        Raises:
            ConfigError: a point or the box is outside of the image, or the prompt takes a window larger than memory.
            DataError: no pixel around the prompt holds a measurement.
            BundleError: the network's output is not finite.
            OutputError: an embedding cannot be written.
        """
        check_mask_selection(mask_selection)
        ((found,),) = self._predict_widening([prompt], mask_selection)
        return found

    def predict_all(self, prompt: Prompt) -> list[Prediction]:
        """Return every mask that the model has for a prompt: the single one first, then by falling score.

        All are of the window in which the single mask does not reach the border.

        Raises:
            SimMATError: as `predict` raises it.
        """
        ((single, *others),) = self._predict_widening([prompt], None)
        return [single, *sorted(others, key=lambda one: -one.score)]

    def predict_prompts(
        self, prompts: Sequence[Prompt], mask_selection: MaskSelection = "single"
    ) -> list[Prediction]:
        """Return the mask of each prompt, see `predict`; prompts of one kind in one window are decoded together.

        If the image is one window, a prompt may have points only beside the object.

        Raises:
            SimMATError: as `predict` raises it; a prompt outside of the image before any is answered.
        """
        check_mask_selection(mask_selection)
        if len(self.windows) > 1:
            answers = self._predict_widening(prompts, mask_selection)
        else:
            for prompt in prompts:
                check_inside(prompt, self.reader)
            answers = self._predict_in_window(self.windows[0], prompts, mask_selection)
        return [one for (one,) in answers]

    def _predict_widening(
        self, prompts: Sequence[Prompt], mask_selection: MaskSelection | None
    ) -> list[list[Prediction]]:
        """Return the chosen mask of each prompt, or with None all of them, in a window widened as `predict` says."""
        for prompt in prompts:
            self._check_prompt(prompt)

        def is_cut(answer: list[Prediction]) -> bool:
            return reaches_border(answer[0].mask, answer[0].window, self.size_hw)

        predict = partial(self._predict_in_window, mask_selection=mask_selection)
        return self.answer_widening(prompts, predict, is_cut)

    def answer_widening(
        self,
        prompts: Sequence[Prompt],
        answer_in: Callable[[Window, Sequence[Prompt]], Sequence[Answer]],
        is_cut: Callable[[Answer], bool],
    ) -> list[Answer]:
        """Return the answer to each prompt in a window around it, which is widened while the answer is cut off.

        Args:
            prompts: each with a point on the object or a box.
            answer_in: answers prompts in one window.
            is_cut: whether the mask of an answer reaches a border of its window inside of the image, see
                `reaches_border`.

        Raises:
            ConfigError: a prompt takes a window larger than memory.
        """
        searches = [
            prompt_windows(prompt, self.size_hw, self.tile) for prompt in prompts
        ]
        found: dict[int, Answer] = {}
        unfinished = list(range(len(prompts)))
        while unfinished:
            by_window = by_next_window(searches, unfinished)
            unfinished = []
            for window, rows in by_window.items():
                if self._takes_too_much(window):
                    # the answers in smaller windows stay
                    if found.keys() >= set(rows):
                        continue
                    raise ConfigError(
                        f"{self.reader.origin}: the prompt needs a window of {window.size_hw[1]}x{window.size_hw[0]} "
                        "pixels, which takes too much memory; mark the object by one point, or by a smaller box"
                    )
                answers = answer_in(window, [prompts[row] for row in rows])
                for row, answer in zip(rows, answers, strict=True):
                    found[row] = answer
                    if is_cut(answer):
                        unfinished.append(row)
        return [found[row] for row in range(len(prompts))]

    def _check_prompt(self, prompt: Prompt) -> None:
        """Check that a prompt marks an object of this image."""
        check_inside(prompt, self.reader)
        if prompt.box is None and not (prompt.point_labels == 1).any():
            raise ConfigError(
                f"{self.reader.origin}: no point is on the object; add one, or its box"
            )
        if (
            prompt.mask_input is not None
            and prompt.mask_window is None
            and len(self.windows) > 1
        ):
            raise ConfigError(
                f"{self.reader.origin}: logits do not say which window of the image they cover; give the "
                "earlier prediction itself (mask=found), or a Prompt with its mask_window"
            )

    def _takes_too_much(self, window: Window) -> bool:
        """Return whether a window that is larger than a tile takes too much memory."""
        if max(window.size_hw) <= self.tile:
            return False
        return math.prod(window.size_hw) * self.channel_count > MAX_WINDOW_VALUES

    @threads_for_load()
    def _predict_in_window(
        self,
        window: Window,
        prompts: Sequence[Prompt],
        mask_selection: MaskSelection | None,
    ) -> list[list[Prediction]]:
        """Return the chosen mask of each prompt in a window, or with None all masks."""
        pixels, encoded = self.encode_around_prompt(window)
        moved = [
            prompt_in(prompt, window, encoded.prepared.letterbox) for prompt in prompts
        ]
        found: dict[int, list[Prediction]] = {}
        for group in groups_of_one_kind(moved):
            answer = encoded.decode([moved[row] for row in group])
            for place, row in enumerate(group):
                kind: Kind = "click" if prompts[row].box is None else "box"
                ious = answer.iou[place].tolist()  # predicted, of M masks
                if mask_selection is None:
                    masks = list(range(len(ious)))
                else:
                    masks = [chosen_mask(ious, mask_selection)]
                found[row] = []
                for mask in masks:
                    # (1, 1, h, w)
                    logits = answer.logits[place : place + 1, mask : mask + 1].float()
                    found[row].append(
                        self._prediction(
                            encoded, pixels, window, logits, ious[mask], kind
                        )
                    )
        return [found[row] for row in range(len(prompts))]

    def _prediction(
        self,
        encoded: EncodedImage,
        pixels: SensorImage,
        window: Window,
        mask_logits: Tensor,
        iou: float,
        kind: Kind,
    ) -> Prediction:
        """Return a mask of the decoder at the resolution of the image, with calibrated scores.

        Args:
            encoded: the window, encoded.
            pixels: of the window.
            window: the part of the image that the mask covers.
            mask_logits: (1, 1, h, w) of the decoder.
            iou: predicted IoU of the mask.
            kind: of the prompt, which has a calibration of its own.

        Raises:
            BundleError: logits or IoU are not finite.
        """
        logits: FloatArray = (
            restore_logits(mask_logits, encoded.prepared.letterbox)[0, 0].cpu().numpy()
        )
        if not (np.isfinite(logits).all() and math.isfinite(iou)):
            source = self.encoder.bundle.path if self.encoder.bundle else "the model"
            raise BundleError(
                f"{source} gives NaN or infinity for {pixels.origin}; its weights are damaged"
            )
        low_res_logits: FloatArray = mask_logits[0, 0].cpu().numpy()
        return Prediction(
            mask=logits > 0,
            logits=logits,
            score=calibrated(self.encoder.calibration, kind, iou),
            low_res_logits=low_res_logits,
            image=pixels,
            window=window,
            low_res_window=window,
            warning=encoded.warning,
            class_probabilities=calibrated_classes(
                self.encoder.calibration, encoded.class_probabilities(low_res_logits)
            ),
        )

    def uncertainty(
        self,
        prompt: Prompt,
        mask_selection: MaskSelection = "single",
        window: Window | None = None,
    ) -> Uncertainty:
        """Return how much the mask of a prompt differs between up to five views of its window: flips and small shifts.

        Args:
            prompt: its mask is left out.
            mask_selection: as for `predict`.
            window: that of the mask, `Prediction.window`; None finds it first.

        Raises:
            SimMATError: as `predict` raises it.
        """
        if window is None:
            window = self.predict(prompt, mask_selection).window
        pixels, encoded = self.encode_around_prompt(window)
        known = self._views.get(window, {})
        self._views = {window: known}  # those of one window are enough
        probabilities = []
        for view in views_of(
            self.encoder.adapter, pixels, prompt_in(prompt, window, None)
        ):
            if view.pixels is pixels:
                encoded_view = encoded
            else:
                if view.name not in known:
                    known[view.name] = self.encoder.encode(view.pixels, self.reader)
                encoded_view = known[view.name]
            probabilities.append(
                object_probability(encoded_view, view, mask_selection, window.size_hw)
            )
        return mean_and_std(probabilities, window, self.size_hw)

    def segment_everything(
        self,
        settings: EverythingSettings | None = None,
        *,
        reference: Reference | None = None,
        box: Window | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> FoundObjects:
        """Find every object, best first.

        Args:
            settings: how objects are found.
            reference: find only what a reference shows, see `Predictor.reference`.
            box: part of the image to search; only the windows that it touches are segmented.
            progress: called with the number of windows that are done; what it raises ends the search.

        Raises:
            NoValidPixelsError: no pixel of the image holds a measurement.
        """
        windows = self.windows if box is None else self.windows_in(box)
        found = []
        empty = 0
        for index, window in enumerate(windows):
            result = self.segment_window(
                window, settings or EverythingSettings(), reference=reference
            )
            found.append(result.objects)
            empty += result.is_empty
            if progress is not None:
                progress(index + 1)
        self.check_measured(empty)
        objects = merge_objects(windows, found)
        if box is not None:
            objects = [
                one
                for one in objects
                if one.instance.window.intersection(box) is not None
            ]
        return FoundObjects(objects, self.reader, self.encoder.class_names)

    def segment_semantic(self, *, probabilities: bool = False) -> ClassMap:
        """Return the class of every pixel, see `Predictor.segment_semantic`."""
        spec = self.encoder.required_dense()
        dtype, nodata = self.encoder.label_type()
        labels = np.zeros(self.size_hw, dtype)
        probability = np.zeros(self.size_hw, np.float32)
        every = (
            np.zeros((spec.count, *self.size_hw), np.float32) if probabilities else None
        )
        blender = self.class_map_blender()
        empty = 0
        for window in self.windows:
            result = self.segment_window(window, semantic=True)
            empty += result.is_empty
            for y0, band in blender.add(result.probabilities):
                rows = slice(y0, y0 + band.shape[1])
                labels[rows], probability[rows] = most_likely(
                    band, spec.label_values, nodata
                )
                if every is not None:
                    every[:, rows] = band
        self.check_measured(empty)
        return ClassMap(
            labels=labels,
            probability=probability,
            values=spec.label_values,
            reader=self.reader,
            class_names=self.encoder.class_names,
            background=0 if spec.background else None,
            nodata=nodata,
            probabilities=every,
        )

    def class_map_blender(self) -> ClassMapBlender:
        """Return what blends the class maps of the windows; ConfigError without a dense head."""
        return ClassMapBlender(
            self.size_hw, self.tile, self.overlap, self.encoder.required_dense().count
        )

    def segment_window(
        self,
        window: Window,
        settings: EverythingSettings | None = None,
        *,
        reference: Reference | None = None,
        semantic: bool = False,
    ) -> WindowResult:
        """Find objects, classes or both in one window.

        Args:
            window: the window.
            settings: how objects are found; None finds none.
            reference: find what a reference shows only.
            semantic: find the class of every pixel.

        Raises:
            SimMATError: it cannot be read, or has other channels than the model.
        """
        pixels, encoded = self.encode_window(
            window, keep=len(self.windows) <= _MAX_CACHED_WINDOWS
        )
        if encoded is None:
            return WindowResult(is_empty=True)
        self.warning = self.warning or encoded.warning
        objects = []
        if settings is not None:
            for one in self._objects_in(encoded, settings, reference):
                objects.append(one.shifted(window.y0, window.x0))
        probabilities = None
        if semantic:
            probabilities = encoded.class_map()
        if probabilities is not None:
            probabilities = probabilities * np.any(pixels.valid, axis=0)
        return WindowResult(tuple(objects), probabilities)

    def _objects_in(
        self,
        encoded: EncodedImage,
        settings: EverythingSettings,
        reference: Reference | None,
    ) -> list[FoundObject]:
        """Find the objects of a window, best first: every one, or those that a reference shows."""
        if reference is not None:  # the calibration is of scores without a reference
            return find_by_reference(reference, encoded, settings)
        calibration = self.encoder.calibration
        found = []
        for one in find_objects(encoded, settings):
            score = calibrated(calibration, "object", one.score)
            classes = calibrated_classes(calibration, one.class_probabilities)
            found.append(replace(one, score=score, class_probabilities=classes))
        return found
