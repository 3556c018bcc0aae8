"""Prompt a network, tuned or not, for the objects of an image: `set_image` once, then `predict` as often as asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simmat.bundle import Bundle
from simmat.data.instances import LabelArray
from simmat.io.files import with_home
from simmat.model_spec import ModelSpec
from simmat.predictor.encoder import ImageEncoder
from simmat.predictor.following import FollowedFrame, installed_follow
from simmat.predictor.found import ClassMap, FoundObjects, Prediction
from simmat.predictor.large_image import TiledImage
from simmat.predictor.objects import EverythingSettings
from simmat.predictor.prompts import Choice, prompt_of
from simmat.predictor.reading import ImageFiles, ImageLike, LoadedImage
from simmat.predictor.reference import Reference
from simmat.predictor.uncertainty import Uncertainty
from simmat.types import BoolArray, FloatArray, ImageReader, Prompt, SensorImage, Window

if TYPE_CHECKING:
    from simmat.predictor.reference_images import LabelMask


class Predictor(ImageEncoder):
    """A network and its sensor, with a current image: `set_image` once, then `predict` any number of times."""

    _current: TiledImage | None = None

    @property
    def image(self) -> SensorImage | None:
        """The current image in physical units."""
        reader = None if self._current is None else self._current.reader
        return reader.image if isinstance(reader, LoadedImage) else None

    @property
    def spec(self) -> ModelSpec:
        """Everything that determines the network; ValueError of a network without a bundle."""
        if self.bundle is None:
            raise ValueError("this predictor was made of a network alone")
        return self.bundle.spec

    def __repr__(self) -> str:
        """Name the sensor, what it was loaded from, and the image."""
        loaded = self.bundle.path if self.bundle else "untuned"
        return f"<{type(self).__name__} of {self.adapter.name}: {loaded}, image {self.image!r}>"

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Predictor:
        """Return the predictor of a loaded bundle."""
        return cls(bundle.model, bundle.pipeline, bundle=bundle)

    def set_image(
        self,
        image: ImageLike,
        *,
        missing: Sequence[str | int] = (),
        cache: Path | str | None = None,
    ) -> SensorImage:
        """Load and encode an image; `predict` then works on it.

        Args:
            image: a file, {source: file} of a sensor with several, a loaded image, or an array (C, H, W), or (H, W) for
                one channel, in the units of `channels` with NaN where nothing was measured. Options such as the unit
                apply to files only; `Dataset.image` returns what `Dataset.from_arrays` wrote in these units.
            missing: channels that the files lack, by name, 0-based index or wavelength.
            cache: folder that keeps embeddings, so that the next session with this model and image needs no encoder;
                of a large image those of the windows around prompts. Nothing in it is ever removed.

        Returns:
            The image in physical units.

        Raises:
            TypeError: the files given are not those of the sensor's sources, or `image` is of another type.
            ValueError: an array has another number of planes than the sensor.
            DataError: a file cannot be read, no pixel is valid, or an array is in another unit.
            BundleError: the image has other channels than the bundle was trained on.
            ConfigError: the bundle's transfer layer needs the missing channels.
            OutputError: an embedding cannot be written to `cache`.
        """
        self._current = None  # after an error there is no image, not the one before
        loaded = self.image_loader.load(image, missing)
        current = TiledImage(self, LoadedImage(loaded), cache=None if cache is None else with_home(cache))
        current.encode()
        self._current = current
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
        """Open an image of any size, to segment it window by window; only windows of it are in memory where possible.

        Args:
            image: as for `set_image`.
            missing: as for `set_image`.
            tile: side of a window in pixels; None as `TiledImage`.
            overlap: overlap of neighbouring windows in pixels; None is an eighth of a window.
            cache: as for `set_image`.

        Raises:
            SimMATError: as `set_image` raises it.
        """
        folder = None if cache is None else with_home(cache)
        return TiledImage(self, self.reader(image, missing=missing), tile=tile, overlap=overlap, cache=folder)

    def open_images(
        self,
        images: Iterable[ImageLike],
        *,
        missing: Sequence[str | int] = (),
        batch_size: int = 1,
    ) -> Iterator[TiledImage]:
        """Open images one after the other, encoded in batches, to predict in each, or to find its objects or classes.

        Those that are cut into windows, and all of an untuned or exported model, are encoded one by one. A batch, with
        its embeddings, is in memory at a time, and the network's activations are those of `batch_size` images.

        Args:
            images: what `set_image` takes.
            missing: as for `set_image`.
            batch_size: images that are encoded together, which is hardly faster on a CPU.

        Raises:
            TypeError: one name in place of several images.
            ValueError: the batch size is less than 1.
            SimMATError: as `set_image` raises it.
        """
        if isinstance(images, str | Path | Mapping):
            raise TypeError(f"open_images takes several images, such as a list; got {images!r}, see open_image")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        left = iter(images)
        while group := list(itertools.islice(left, batch_size)):
            opened = [TiledImage(self, self.reader(image, missing=missing)) for image in group]
            whole = [(one, one.reader.read(one.windows[0])) for one in opened if len(one.windows) == 1]
            for _, pixels in whole:
                self.image_loader.check_channels(pixels)
            whole = [(one, pixels) for one, pixels in whole if pixels.valid.any()]
            encoded = self.encode_batch([pixels for _, pixels in whole], [one.reader for one, _ in whole])
            for (one, pixels), embedding in zip(whole, encoded, strict=True):
                one.keep(one.windows[0], pixels, embedding)
            del whole, encoded
            while opened:
                yield opened.pop(0)

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
            tiles: a file each, or {source: file}. Where they overlap, the first one with a measurement counts.
            missing: as for `set_image`.
            tile: as for `open_image`, as is `overlap`.
            overlap: see `tile`.

        Raises:
            DataError: files cannot be read, or are not on one pixel grid.
            SimMATError: as `set_image` raises it.
        """
        return TiledImage(self, self.image_loader.mosaic(tiles, missing), tile=tile, overlap=overlap)

    def reader(self, image: ImageLike, *, missing: Sequence[str | int] = ()) -> ImageReader:
        """Load an image, or open one that is too large for one look where its files can be read in parts.

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
        mask: FloatArray | None = None,
        *,
        choice: Choice = "single",
    ) -> Prediction:
        """Segment the object that a prompt marks in the current image.

        Args:
            points: (x, y) in pixels of the original image; (0, 0) is the centre of the top-left pixel.
            labels: one for each point, 1 on the object, 0 not on it; None means that all are on it.
            box: (x0, y0, x1, y1) of its outer edges, from 0 to width and height.
            mask: (h, w) logits of an earlier mask, `Prediction.low_res_logits`.
            choice: "single" takes the model's single mask; "best" the alternative with the highest predicted IoU,
                which suits one ambiguous click.

        Raises:
            TypeError: points, labels or box are not numbers.
            ValueError: no image is set, `choice` is unknown, or `mask` is not of the decoder's size.
            DataError: there is no prompt, labels and points do not match, or `mask` does not hold logits.
            ConfigError: a point or the box is outside of the image.
        """
        return self.predict_prompts([prompt_of(points, labels, box, mask)], choice=choice)[0]

    def uncertainty(
        self,
        points: Sequence[tuple[float, float]] = (),
        labels: Sequence[int] | None = None,
        box: Sequence[float] | None = None,
        *,
        choice: Choice = "single",
    ) -> Uncertainty:
        """Return how much the mask of a prompt differs between up to five views of the image: flips and small shifts.

        Four views are encoded besides the image, so it takes as long as five images. Arguments and errors are those of
        `predict`.
        """
        return self._require_image().uncertainty(prompt_of(points, labels, box, None), choice)

    def predict_prompts(self, prompts: Sequence[Prompt], *, choice: Choice = "single") -> list[Prediction]:
        """Segment the objects that several prompts mark in the current image; those of one kind are decoded together.

        Raises:
            ValueError: no image is set, or `choice` is unknown.
            ConfigError: a point or a box is outside of the image.
            BundleError: the network's output is not finite.
        """
        current = self._require_image()
        return [_whole(found, current.reader) for found in current.predict_prompts(prompts, choice)]

    def follow(
        self,
        frames: Sequence[ImageLike],
        masks: Mapping[int, LabelArray | Mapping[int, BoolArray]],
        *,
        tile: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[FollowedFrame]:
        """Find the objects of some frames in all others, and yield frame by frame, without training.

        The first frame with masks comes first, then those after it, then those before it, the nearest first. Between
        two frames with masks the answers of both are blended. In a frame without a measurement nothing is found.
        Memory does not grow with the number of frames, but for compressed labels of the frames between two with masks.

        Args:
            frames: T frames, each as `set_image` takes it, such as a `simmat.FrameSequence`; all of one size.
            masks: frame number from 0 -> (H, W) whole numbers, the id of the object of each pixel, 0 for none; or
                object id -> (H, W) bool mask. An object that a label image lacks is not in that frame (likewise one
                whose mask is False everywhere); one without a mask in a mapping is looked for there, too.
            tile: side of the windows in pixels into which frames are cut; None cuts them where the smallest given
                object is too small for the network.
            progress: called with the steps done and those of the whole work.

        Raises:
            ConfigError: no plugin that follows objects is installed.
            DataError: no mask has an object, a frame number is unknown, a mask is not of the frame's size, or frames
                are of different sizes.
            SimMATError: as `set_image` raises it.
        """
        return installed_follow()(self, frames, masks, tile=tile, progress=progress)

    def segment_semantic(self, *, probabilities: bool = False) -> ClassMap:
        """Return the class of every pixel of the current image; a large one is cut into windows, see `tile_size`.

        Args:
            probabilities: give the probability of every class at each pixel, too: 4·K bytes a pixel.

        Raises:
            ValueError: no image is set.
            ConfigError: the network has no dense head.
        """
        return self._require_image().segment_semantic(probabilities=probabilities)

    def segment_everything(
        self, settings: EverythingSettings | None = None, *, like: Reference | None = None
    ) -> FoundObjects:
        """Find every object of the current image, best first, each with its class where the network knows classes.

        With a dense head the clicks are the peaks of its distance map; without one, a grid. A large image is cut into
        windows, see `tile_size`.

        Args:
            settings: how objects are found; by default as `EverythingSettings` says.
            like: find what a reference shows only, see `reference`.

        Raises:
            ValueError: no image is set.
        """
        return self._require_image().segment_everything(settings, like=like)

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
                integers or bool. 0 is beside all objects; a mask marks every object of its image.
            classes: label values of a mask to look for, by name or number, each a class; what has another value is
                background. By default everything that is marked, with the meaning that values have for the model.
            missing: as for `set_image`.
            tile: as for `open_image`, and the same as for the images to search.

        Raises:
            ConfigError: a class is unknown.
            DataError: a mask cannot be read, has another size than its image, or marks no object or everything.
            SimMATError: as `set_image` raises it.
        """
        from simmat.predictor.reference_images import make_reference  # imports scipy, and masks need none

        return make_reference(
            self, [(self.reader(image, missing=missing), mask) for image, mask in images], classes, tile
        )

    def _require_image(self) -> TiledImage:
        if self._current is None:
            raise ValueError("no image is set; call set_image first")
        return self._current


def _whole(found: Prediction, reader: ImageReader) -> Prediction:
    """Return a mask at the size of the whole image; outside of its window its logits are the smallest ones."""
    if found.window.size_hw == reader.size_hw:
        return found
    whole = Window(0, 0, *reader.size_hw)
    logits = np.full(reader.size_hw, min(float(found.logits.min()), -1.0), np.float32)
    logits[found.window.slices] = found.logits
    mask, image = found.whole_mask(reader.size_hw), reader.read(whole)
    return replace(found, mask=mask, logits=logits, image=image, window=whole)
