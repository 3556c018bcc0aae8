"""Find what prompts mark in an image, every object, or the class of every pixel.

A `Predictor` opens images, a `TiledImage` answers for one of them, and both ask an `Encoder` for embeddings.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from simmat.bundle import Bundle
from simmat.calibration import Kind, calibrated, calibrated_classes
from simmat.data.instances import FoundObject, LabelArray
from simmat.data.pipeline import restore_logits
from simmat.documents import former_keywords
from simmat.errors import BundleError, ConfigError
from simmat.io.files import with_home
from simmat.nn.device import threads_for_load
from simmat.predictor.encoded import (
    ClassMap,
    EncodedImage,
    Encoder,
    Prediction,
    domain_shift_warning,
)
from simmat.predictor.following import FollowedFrame, installed_follow
from simmat.predictor.input_check import image_warning, sampled
from simmat.predictor.objects import EverythingSettings, FoundObjects, find_objects
from simmat.predictor.open import ImageFiles, ImageLike, ImageLoader, NoValidPixelsError
from simmat.predictor.reference import (
    LabelMask,
    Reference,
    ReferenceSums,
    annotations_of_classes,
    find_by_reference,
    read_annotations,
)
from simmat.predictor.tiles import (
    ClassMapBlender,
    MaskSelection,
    WindowResult,
    by_next_window,
    check_inside,
    check_mask_selection,
    chosen_mask,
    groups_of_one_kind,
    merge_objects,
    most_likely,
    plan_windows,
    prompt_in,
    prompt_of,
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
    BoolArray,
    FloatArray,
    ImageReader,
    Prompt,
    SensorImage,
    Window,
    max_untiled_side,
)

_MAX_CACHED_WINDOWS = 16
"""Windows of an image with at most so many are cached, as objects and classes may be asked for one after the other."""
MAX_VALUES = 2**26
"""Pixels times channels of the window around a prompt, at most, if it is not a single one."""


CACHE_BYTES = 2**28
"""Windows with their embeddings that an image keeps in memory; the one used longest ago is dropped."""


class Predictor(Encoder):
    """A network and its sensor, with a current image: `set_image` once, then `predict` any number of times."""

    _current: TiledImage | None = None

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Predictor:
        """Return the predictor of a loaded bundle."""
        return cls(bundle.model, bundle.pipeline, bundle=bundle)

    def __repr__(self) -> str:
        """Name the sensor, what it was loaded from, and the image."""
        loaded = self.bundle.path if self.bundle else "untuned"
        return f"<{type(self).__name__} of {self.adapter.name}: {loaded}, image {self.image!r}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: the network and its sensor, without an image."""
        state = super().__getstate__()
        state.pop("_current", None)
        return state

    @cached_property
    def image_loader(self) -> ImageLoader:
        """The images that it takes."""
        return ImageLoader(self.adapter, self.bundle)

    @property
    def image(self) -> SensorImage | None:
        """The current image in physical units."""
        if self._current is None or not isinstance(self._current.reader, SensorImage):
            return None
        return self._current.reader

    def set_image(
        self,
        image: ImageLike,
        *,
        missing: Sequence[str | int] = (),
        cache: Path | str | None = None,
    ) -> SensorImage:
        """Load and encode an image; `predict` then works on it.

        It warns if values are far from the training values, for example in another unit or bit depth.

        Args:
            image: a file, {source: file} of a sensor with several, a loaded image, or an array (C, H, W), or (H, W) for
                one channel, in the units of `channels` with NaN where nothing was measured. Options such as the unit
                apply to files only; `Dataset.image` returns what `Dataset.from_arrays` wrote in these units.
            missing: channels that the files lack, by name, 0-based index or wavelength.
            cache: folder that keeps embeddings, so that the next session with this model and image needs no encoder;
                for a large image, the embeddings of the windows around prompts. Nothing in it is ever removed.

        Returns:
            The image in physical units.

        Raises:
            TypeError: the files are not the sensor's sources, or `image` has another type.
            ValueError: an array has another number of planes than the sensor.
            DataError: a file cannot be read, no pixel is valid, or an array is in another unit.
            BundleError: the image has other channels than the bundle was trained on.
            ConfigError: the bundle's transfer layer needs the missing channels.
            OutputError: an embedding cannot be written to `cache`.
        """
        self._current = None  # after an error there is no image, not the one before
        loaded = self.image_loader.load(image, missing)
        current = self.open_reader(loaded, cache=cache)
        current.encode_untiled()
        self._current = current
        if problem := current.values_warning():
            warnings.warn(problem, stacklevel=2)
        return loaded

    def open_image(
        self,
        image: ImageLike,
        *,
        missing: Sequence[str | int] = (),
        tile: int | None = None,
        overlap: int | None = None,
        cache: Path | str | None = None,
    ) -> TiledImage:
        """Open an image of any size, to segment it window by window; only windows of it are in memory if possible.

        Args:
            image: as for `set_image`.
            missing: as for `set_image`.
            tile: side of a window in pixels; None for the size of the training images, or for the whole image if it is
                small enough.
            overlap: overlap of neighbouring windows in pixels; None is an eighth of a window.
            cache: as for `set_image`.

        Raises:
            SimMATError: as `set_image` raises it.
        """
        return self.open_reader(
            self.reader(image, missing=missing), tile=tile, overlap=overlap, cache=cache
        )

    def open_images(
        self,
        images: Iterable[ImageLike],
        *,
        missing: Sequence[str | int] = (),
        batch_size: int = 1,
    ) -> Iterator[TiledImage]:
        """Open images one after the other, encoded in batches, to predict in each, or to find its objects or classes.

        Images that are cut into windows, and all images of an untuned or exported model, are encoded one by one. One
        batch with its embeddings is in memory at a time, and the activations of `batch_size` images.

        Args:
            images: what `set_image` takes.
            missing: as for `set_image`.
            batch_size: images that are encoded together, which is hardly faster on a CPU.

        Raises:
            TypeError: a single file name is given in place of several images.
            ValueError: the batch size is less than 1.
            SimMATError: as `set_image` raises it.
        """
        if isinstance(images, str | Path | Mapping):
            raise TypeError(
                f"open_images takes several images, such as a list; got {images!r}, see open_image"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        remaining = iter(images)
        while group := list(itertools.islice(remaining, batch_size)):
            opened = [self.open_image(image, missing=missing) for image in group]
            self._encode_together(opened)
            while opened:
                yield opened.pop(0)  # so that the batch does not keep it in memory

    def open_mosaic(
        self,
        tiles: Sequence[Path | str | ImageFiles],
        *,
        missing: Sequence[str | int] = (),
        tile: int | None = None,
        overlap: int | None = None,
    ) -> TiledImage:
        """Open georeferenced files of one map as one image, of any size, to segment it window by window.

        Args:
            tiles: a file each, or {source: file}. Where they overlap, the first one with a valid pixel is used.
            missing: as for `set_image`.
            tile: as for `open_image`.
            overlap: as for `open_image`.

        Raises:
            DataError: files cannot be read, or are not on one pixel grid.
            SimMATError: as `set_image` raises it.
        """
        return self.open_reader(
            self.image_loader.mosaic(tiles, missing), tile=tile, overlap=overlap
        )

    def open_reader(
        self,
        reader: ImageReader,
        *,
        tile: int | None = None,
        overlap: int | None = None,
        cache: Path | str | None = None,
    ) -> TiledImage:
        """Cut an image into windows; nothing of it is read.

        Args:
            reader: the image.
            tile: as for `open_image`.
            overlap: as for `open_image`.
            cache: as for `set_image`.

        Raises:
            ConfigError: the overlap is not smaller than the window, or they are not positive.
        """
        if tile is None:
            tile = self.tile_size(reader.size_hw)
        if tile < 1:
            raise ConfigError(f"--tile must be at least 1 pixel, got {tile}")
        if overlap is None:
            overlap = min(tile, max(reader.size_hw)) // 8
        if not 0 <= overlap < tile:
            raise ConfigError(
                f"--overlap must be from 0 to {tile - 1}, less than the window's side of {tile} pixels; got {overlap}"
            )
        windows = plan_windows(reader.size_hw, tile, overlap)
        folder = None if cache is None else with_home(cache)
        return TiledImage(
            self, reader, windows, tile=tile, overlap=overlap, cache_folder=folder
        )

    def reader(
        self, image: ImageLike, *, missing: Sequence[str | int] = ()
    ) -> ImageReader:
        """Load an image, or open one that is too large for one window if its files can be read in parts.

        Args:
            image: as for `set_image`.
            missing: as for `set_image`.

        Raises:
            SimMATError: as `set_image` raises it.
        """
        return self.image_loader.reader(image, missing, self.max_untiled_side)

    @former_keywords(choice="mask_selection")
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
            points: (x, y) in pixels of the original image; (0, 0) is the centre of the top-left pixel.
            labels: one for each point, 1 on the object, 0 not on it; None means that all are on it.
            box: (x0, y0, x1, y1) of its outer edges, from 0 to width and height.
            mask: an earlier answer to refine; or its `low_res_logits` (h, w), if the image is not cut into windows.
            mask_selection: "single" takes the model's single mask; "best" the alternative with the highest predicted
                IoU, which suits one ambiguous click.

        Raises:
            TypeError: points, labels or box are not numbers.
            ValueError: no image is set, `mask_selection` is unknown, or `mask` is not of the decoder's size.
            DataError: there is no prompt, labels and points do not match, or `mask` does not hold logits.
            ConfigError: a point or the box is outside of the image, or `mask` is logits and the image is cut into
                windows.
        """
        window = None
        if isinstance(mask, Prediction):
            window = mask.low_res_window
            mask = mask.low_res_logits
        prompt = prompt_of(points, labels, box, mask, window)
        return self.predict_prompts([prompt], mask_selection=mask_selection)[0]

    @former_keywords(choice="mask_selection")
    def predict_prompts(
        self, prompts: Sequence[Prompt], *, mask_selection: MaskSelection = "single"
    ) -> list[Prediction]:
        """Segment the objects that several prompts mark in the current image; prompts of one kind are decoded together.

        Raises:
            ValueError: no image is set, or `mask_selection` is unknown.
            ConfigError: a point or a box is outside of the image.
            BundleError: the network's output is not finite.
        """
        current = self._require_image()
        found = current.predict_prompts(prompts, mask_selection)
        return [one.over_whole_image(current.reader) for one in found]

    @former_keywords(choice="mask_selection")
    def uncertainty(
        self,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        *,
        mask_selection: MaskSelection = "single",
    ) -> Uncertainty:
        """Return how much the mask of a prompt differs between up to five views of the image: flips and small shifts.

        Four more views of the image are encoded, so it takes as long as five images. Arguments and errors are those of
        `predict`.
        """
        return self._require_image().uncertainty(
            prompt_of(points, labels, box), mask_selection
        )

    @former_keywords(like="reference")
    def segment_everything(
        self,
        settings: EverythingSettings | None = None,
        *,
        reference: Reference | None = None,
    ) -> FoundObjects:
        """Find every object of the current image, best first, each with its class if the network knows classes.

        With a dense head the clicks are the peaks of its distance map; without one, a grid. A large image is cut into
        windows, see `tile_size`.

        Args:
            settings: how objects are found; by default as `EverythingSettings` says.
            reference: find only what a reference shows, see `reference`.

        Raises:
            ValueError: no image is set.
        """
        return self._require_image().segment_everything(settings, reference=reference)

    def segment_semantic(self, *, probabilities: bool = False) -> ClassMap:
        """Return the class of every pixel of the current image; a large one is cut into windows, see `tile_size`.

        Args:
            probabilities: also return the probability of every class at each pixel: 4·K bytes per pixel.

        Raises:
            ValueError: no image is set.
            ConfigError: the network has no dense head.
        """
        return self._require_image().segment_semantic(probabilities=probabilities)

    def follow(
        self,
        frames: Sequence[ImageLike],
        masks: Mapping[int, LabelArray | Mapping[int, BoolArray]],
        *,
        tile: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[FollowedFrame]:
        """Find the objects of some frames in all others, and yield frame by frame, without training.

        The first frame with masks comes first, then the frames after it, then the frames before it, nearest first.
        Between two frames with masks, the masks tracked from both are blended. In a frame without a measurement nothing
        is found. Memory does not grow with the number of frames, except for compressed labels of the frames between
        two with masks.

        Args:
            frames: T frames, each as `set_image` takes it, such as a `simmat.FrameSequence`; all of one size.
            masks: frame number from 0 -> (H, W) whole numbers, the id of the object of each pixel, 0 for none; or
                object id -> (H, W) bool mask. An object missing from a label image is absent from that frame (likewise
                one whose mask is False everywhere); an object without a mask in a mapping is tracked there.
            tile: side of the windows in pixels into which frames are cut; None cuts them where the smallest given
                object is too small for the network.
            progress: called with the number of finished steps and the number of all steps.

        Raises:
            ConfigError: no plugin that follows objects is installed.
            DataError: no mask has an object, a frame number is unknown, a mask is not of the frame's size, or frames
                are of different sizes.
            SimMATError: as `set_image` raises it.
        """
        return installed_follow()(self, frames, masks, tile=tile, progress=progress)

    def reference(
        self,
        images: Sequence[tuple[ImageLike, Path | str | LabelMask]],
        *,
        classes: Sequence[str | int] = (),
        missing: Sequence[str | int] = (),
        tile: int | None = None,
    ) -> Reference:
        """Return what to look for in other images: the objects that masks of some images mark. Nothing is trained.

        Args:
            images: one to a few images, as `set_image` takes them, each with its mask: a file of labels, or (H, W)
                integers or bool. 0 is background; a mask marks every object of its image.
            classes: label values of a mask to look for, by name or number, each a class; what has another value is
                background. By default everything that is marked, with the meaning that values have for the model.
            missing: as for `set_image`.
            tile: as for `open_image`, and the same as for the images to search.

        Raises:
            ConfigError: a class is unknown.
            DataError: a mask cannot be read, has another size than its image, or marks no object or everything.
            SimMATError: as `set_image` raises it.
        """
        from simmat.data.augment import cut_label  # slow to import, as it imports scipy

        readers = [self.reader(image, missing=missing) for image, _ in images]
        card = self.image_loader.card
        if classes and card.regions == "instances":
            card = card.model_copy(update={"regions": "classes"})
        read = read_annotations([mask for _, mask in images], readers, card)
        values, annotations = annotations_of_classes(read, classes, self.class_names)
        sums = ReferenceSums(values)
        for reader, annotation in zip(readers, annotations, strict=True):
            image = self.open_reader(reader, tile=tile)
            for window in image.windows:
                part = cut_label(annotation, window, 0)
                if not part.regions:
                    continue
                pixels, encoded = image.encode_window(window, keep=False)
                if encoded is not None:
                    part = replace(part, ignore=part.ignore | ~pixels.valid.any(0))
                    sums.add(encoded.embedding, part, encoded.prepared)
        return sums.reference()

    def _require_image(self) -> TiledImage:
        if self._current is None:
            raise ValueError("no image is set; call set_image first")
        return self._current

    def _encode_together(self, images: Sequence[TiledImage]) -> None:
        """Encode those images that are one window in one pass of the network."""
        measured = []
        for image in images:
            if len(image.windows) > 1:
                continue
            pixels = image.reader.read(image.windows[0])
            self.check_channels(pixels)
            if pixels.valid.any():
                measured.append((image, pixels))
        encoded = self.encode_batch(
            [pixels for _, pixels in measured], [image.reader for image, _ in measured]
        )
        for (image, pixels), embedding in zip(measured, encoded, strict=True):
            image.cache(image.windows[0], pixels, embedding)


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
        # flips and shifts of a window, for `uncertainty`
        self._views: dict[Window, dict[str, EncodedImage]] = {}
        # the one used last is at the end
        self._encoded: dict[Window, tuple[SensorImage, EncodedImage]] = {}
        self._loaded_bytes = self.cached_bytes  # no window is encoded yet

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
            self.encode_window(self.windows[0], folder=self.cache_folder)
        return is_untiled

    def values_warning(self) -> str:
        """Return how the values of the image, or in its middle, differ from those of training; "" if they do not."""
        middle = self.windows[len(self.windows) // 2]
        if middle in self._encoded:
            _, encoded = self._encoded[middle]
            return encoded.warning
        if self.encoder.bundle is None:
            return ""
        warning = image_warning(self.encoder.bundle, sampled(self.reader))
        if warning:
            return warning
        prepared = self.encoder.pipeline(self.reader.read(middle))
        return domain_shift_warning(prepared, self.encoder.pipeline.channels)

    def _encode_around_prompt(self, window: Window) -> tuple[SensorImage, EncodedImage]:
        pixels, encoded = self.encode_window(window, folder=self.cache_folder)
        if encoded is None:
            raise NoValidPixelsError(
                f"{self.reader.origin}: no pixel around the prompt holds a measurement"
            )
        return pixels, encoded

    def encode_window(
        self, window: Window, *, keep: bool = True, folder: Path | None = None
    ) -> tuple[SensorImage, EncodedImage | None]:
        """Return the pixels of a window and its embedding; None as the embedding where nothing is measured.

        Args:
            window: the window.
            keep: keep both in memory, see `cache`.
            folder: folder that keeps embeddings.

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
        encoded = self.encoder.encode(pixels, self.reader, folder)
        if keep:
            self.cache(window, pixels, encoded)
        return pixels, encoded

    def cache(self, window: Window, pixels: SensorImage, encoded: EncodedImage) -> None:
        """Cache the pixels of a window and its embedding; drop the windows used longest ago if there are too many."""
        self._encoded[window] = pixels, encoded
        while (
            len(self._encoded) > 1
            and self.cached_bytes - self._loaded_bytes > CACHE_BYTES
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

    @former_keywords(choice="mask_selection")
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

    @former_keywords(choice="mask_selection")
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
        searches = [
            prompt_windows(prompt, self.size_hw, self.tile) for prompt in prompts
        ]
        found: dict[int, list[Prediction]] = {}
        left = list(range(len(prompts)))
        while left:
            by_window = by_next_window(searches, left)
            left = []
            for window, rows in by_window.items():
                if self._takes_too_much(window):
                    self._check_answered(window, rows, found)
                    continue
                answers = self._predict_in_window(
                    window, [prompts[row] for row in rows], mask_selection
                )
                for row, answer in zip(rows, answers, strict=True):
                    found[row] = answer
                    if reaches_border(answer[0].mask, window, self.size_hw):
                        left.append(row)
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
        return math.prod(window.size_hw) * self.channel_count > MAX_VALUES

    def _check_answered(
        self, window: Window, rows: Sequence[int], found: Mapping[int, Any]
    ) -> None:
        """Check that prompts were answered in smaller windows than one that takes too much memory."""
        if not found.keys() >= set(rows):
            raise ConfigError(
                f"{self.reader.origin}: the prompt needs a window of {window.size_hw[1]}x{window.size_hw[0]} "
                "pixels, which takes too much memory; mark the object by one point, or by a smaller box"
            )

    @threads_for_load()
    def _predict_in_window(
        self,
        window: Window,
        prompts: Sequence[Prompt],
        mask_selection: MaskSelection | None,
    ) -> list[list[Prediction]]:
        """Return the chosen mask of each prompt in a window, or with None all masks."""
        pixels, encoded = self._encode_around_prompt(window)
        moved = [
            prompt_in(prompt, window, encoded.prepared.letterbox) for prompt in prompts
        ]
        found: dict[int, list[Prediction]] = {}
        for group in groups_of_one_kind(moved):
            answer = encoded.decode([moved[row] for row in group])
            for place, row in enumerate(group):
                kind: Kind = "click" if prompts[row].box is None else "box"
                scores = answer.iou[place].tolist()
                if mask_selection is None:
                    masks = list(range(len(scores)))
                else:
                    masks = [chosen_mask(scores, mask_selection)]
                found[row] = []
                for mask in masks:
                    # (1, 1, h, w)
                    logits = answer.logits[place : place + 1, mask : mask + 1].float()
                    one = self._prediction(
                        encoded, pixels, window, logits, scores[mask]
                    )
                    score = calibrated(self.encoder.calibration, kind, one.score)
                    found[row].append(replace(one, score=score))
        return [found[row] for row in range(len(prompts))]

    def _prediction(
        self,
        encoded: EncodedImage,
        pixels: SensorImage,
        window: Window,
        mask_logits: Tensor,
        score: float,
    ) -> Prediction:
        """Return the mask of (1, 1, h, w) logits of the decoder; BundleError if they are not finite."""
        logits: FloatArray = (
            restore_logits(mask_logits, encoded.prepared.letterbox)[0, 0].cpu().numpy()
        )
        if not (np.isfinite(logits).all() and math.isfinite(score)):
            source = self.encoder.bundle.path if self.encoder.bundle else "the model"
            raise BundleError(
                f"{source} gives NaN or infinity for {pixels.origin}; its weights are damaged"
            )
        low_res_logits: FloatArray = mask_logits[0, 0].cpu().numpy()
        return Prediction(
            mask=logits > 0,
            logits=logits,
            score=score,
            low_res_logits=low_res_logits,
            image=pixels,
            window=window,
            low_res_window=window,
            warning=encoded.warning,
            class_probabilities=calibrated_classes(
                self.encoder.calibration, encoded.class_probabilities(low_res_logits)
            ),
        )

    @former_keywords(choice="mask_selection")
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
        pixels, encoded = self._encode_around_prompt(window)
        known = self._views.get(window, {})
        self._views = {window: known}  # those of one window are enough
        probabilities = []
        for view in views_of(
            self.encoder.adapter, pixels, prompt_in(prompt, window, None)
        ):
            if view.pixels is pixels:
                seen = encoded
            else:
                if view.name not in known:
                    known[view.name] = self.encoder.encode(view.pixels, self.reader)
                seen = known[view.name]
            probabilities.append(
                object_probability(seen, view, mask_selection, window.size_hw)
            )
        return mean_and_std(probabilities, window, self.size_hw)

    @former_keywords(like="reference")
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
        if reference is not None:  # the calibration was measured without
            return find_by_reference(reference, encoded, settings)
        calibration = self.encoder.calibration
        found = []
        for one in find_objects(encoded, settings):
            score = calibrated(calibration, "object", one.score)
            classes = calibrated_classes(calibration, one.class_probabilities)
            found.append(replace(one, score=score, class_probabilities=classes))
        return found
