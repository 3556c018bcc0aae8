"""Find what prompts mark in an image, every object, or the class of every pixel.

A `Predictor` opens images, a `TiledImage` answers for one of them, and both ask an `Encoder` for embeddings.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from simmat.bundle import Bundle
from simmat.data.instances import LabelArray
from simmat.errors import ConfigError
from simmat.io.paths import with_home
from simmat.plugins.loader import installed
from simmat.plugins.registry import import_from_string
from simmat.predictor.encoded import ClassMap, Encoder, Prediction
from simmat.predictor.objects import EverythingSettings, FoundObjects
from simmat.predictor.open import ImageFiles, ImageLike, ImageLoader
from simmat.predictor.prompts import MaskSelection, prompt_of
from simmat.predictor.reference import (
    LabelMask,
    Reference,
    ReferenceSums,
    annotations_of_classes,
    read_annotations,
)
from simmat.predictor.tiled_image import TiledImage
from simmat.predictor.tiles import plan_windows
from simmat.predictor.uncertainty import Uncertainty
from simmat.types import BoolArray, FloatArray, ImageReader, Prompt, SensorImage


@dataclass(frozen=True)
class FollowedFrame:
    """The objects of a frame.

    Attributes:
        index: number of the frame.
        masks: object id -> (H, W) bool; False everywhere where the object is not found.
        scores: object id -> 0 to 1, how certain it is that its mask is the same object: the mean propagated label
            inside of it; 1 where it is given, 0 where nothing is found.
    """

    index: int
    masks: dict[int, BoolArray]
    scores: dict[int, float]


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
        registry = installed()
        followers = registry.all("follower")
        if not followers:
            hint = registry.hint("follower", "follow", ())
            raise ConfigError(
                f"no loaded plugin follows objects through frames. {hint}"
            )
        # the first one by name
        follow: Callable[..., Iterator[FollowedFrame]] = import_from_string(
            followers[0].function
        )
        return follow(self, frames, masks, tile=tile, progress=progress)

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
