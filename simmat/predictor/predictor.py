"""The predictor of a network and its sensor."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simmat.bundle import Bundle, trained_tensors
from simmat.data.pipeline import Pipeline
from simmat.errors import BundleError
from simmat.foundation import MaskPrediction
from simmat.io.files import with_home
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.nn.device import threads_for_load
from simmat.nn.resize import restore_logits
from simmat.predictor.cache import CachedEmbedding, digest_of
from simmat.predictor.encoded import EncodedImage
from simmat.predictor.prediction import (
    Choice,
    Prediction,
    as_numbers,
    check_choice,
    check_inside,
    check_mask_size,
    of_one_kind,
    unlike_training,
)
from simmat.predictor.reading import Files, Inputs, LoadedImage
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import FloatArray, ImageReader, Prompt, SensorImage, Window, largest_whole

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject
    from simmat.everything import ClassMap, EverythingSettings
    from simmat.predictor.large import LargeImage


class Predictor:
    """A network and its sensor: `set_image` once, then `predict` any number of times.

    Attributes:
        model: the network, in eval mode.
        pipeline: image in physical units -> network input.
        bundle: what it was loaded from, or None.
        inputs: the images that it takes.
        channels: the C channels of the sensor's images; empty if only a file can tell.
        dense: what its dense head tells apart; None without one.
        image_side: longer side of the training images in pixels; None if it is not known.
        image: the current image in physical units, or None.
        fitted_to: stands for the large image whose values `fit` saw last; None for any other image.
        encoding: held while a `LargeImage` is encoded, so that several threads may ask one predictor, each about
            `LargeImage`s of its own.
    """

    def __init__(
        self,
        model: SimMAT,
        pipeline: Pipeline,
        *,
        bundle: Bundle | None = None,
        dense: DenseSpec | None = None,
        image_side: int | None = None,
    ) -> None:
        """Make a predictor.

        Args:
            model: the network; it is put into eval mode.
            pipeline: image -> network input.
            bundle: which both come from; its card and channels then apply to files and images.
            dense: what a dense head of the network tells apart; by default as the bundle says.
            image_side: longer side of the training images in pixels, by which large images are cut; by default as the
                bundle says.
        """
        self.model = model.eval()
        self.pipeline = pipeline
        self.bundle = bundle
        self.inputs = Inputs(pipeline.adapter, bundle)
        self.channels = self.inputs.channels
        self.dense = dense or (bundle.spec.dense if bundle else None)
        self.image_side = image_side or (bundle.spec.image_side if bundle else None)
        self.image: SensorImage | None = None
        self._encoded: EncodedImage | None = None
        self._large: LargeImage | None = None
        self._fitted = ""  # what `fit` set, in words
        self.fitted_to: object = None
        self.encoding = threading.RLock()

    def __repr__(self) -> str:
        """Name the sensor, what it was loaded from, and the image."""
        loaded = self.bundle.path if self.bundle else "untuned"
        return f"<{type(self).__name__} of {self.adapter.name}: {loaded}, image {self.image!r}>"

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Predictor:
        """Return the predictor of a loaded bundle."""
        return cls(bundle.model, bundle.pipeline, bundle=bundle)

    @property
    def adapter(self) -> ModalityAdapter:
        """The sensor."""
        return self.pipeline.adapter

    @cached_property
    def digest(self) -> str:
        """A sha256 of the weights and, of a bundle, its spec: the model as it is when this is asked first."""
        if self.bundle is None:
            return digest_of("", self.model.state_dict())
        return digest_of(self.bundle.spec.model_dump(mode="json"), trained_tensors(self.model))

    def set_image(
        self,
        image: Path | str | Files | SensorImage | npt.NDArray[np.generic],
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
        folder = None if cache is None else with_home(cache)
        self.image = self._encoded = self._large = None  # after an error there is no image, not the one before
        loaded = self.inputs.load(image, missing)
        if self.tile_of(loaded.size_hw) < max(loaded.size_hw):
            from simmat.predictor.large import LargeImage

            self._large = LargeImage(self, LoadedImage(loaded), cache=folder)
        else:
            self.fit(lambda: loaded)
            self.fitted_to = None
            self._encoded = self.encode(loaded, folder)
        self.image = loaded
        return loaded

    def open_image(
        self,
        image: Path | str | Files,
        *,
        missing: Sequence[str | int] = (),
        tile: int | None = None,
        overlap: int | None = None,
        cache: Path | str | None = None,
    ) -> LargeImage:
        """Open an image of any size, to segment it window by window; only windows of it are in memory where possible.

        Args:
            image: a file, or {source: file} of a sensor with several.
            missing: as for `set_image`.
            tile: side of a window in pixels; None as `LargeImage`.
            overlap: overlap of neighbouring windows in pixels; None is an eighth of a window.
            cache: as for `set_image`.

        Raises:
            SimMATError: as `set_image` raises it.
        """
        from simmat.predictor.large import LargeImage

        folder = None if cache is None else with_home(cache)
        return LargeImage(self, self.reader(image, missing=missing), tile=tile, overlap=overlap, cache=folder)

    def open_mosaic(
        self,
        tiles: Sequence[Path | str | Files],
        *,
        missing: Sequence[str | int] = (),
        tile: int | None = None,
        overlap: int | None = None,
    ) -> LargeImage:
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
        from simmat.predictor.large import LargeImage

        return LargeImage(self, self.inputs.mosaic(tiles, missing), tile=tile, overlap=overlap)

    def reader(self, image: Path | str | Files, *, missing: Sequence[str | int] = ()) -> ImageReader:
        """Load an image, or open one that is too large for one look where its files can be read in parts.

        Args:
            image: a file, or {source: file} of a sensor with several.
            missing: as for `set_image`.

        Raises:
            SimMATError: as `set_image` raises it.
        """
        return self.inputs.reader(image, missing, self.largest_whole)

    @property
    def largest_whole(self) -> int:
        """The longest side in pixels of an image that is not cut into windows."""
        return largest_whole(self.pipeline.size, self.image_side)

    def tile_of(self, size_hw: tuple[int, int]) -> int:
        """Return the side of the windows into which an image is cut by default; of the whole image if it is not.

        An image longer than `largest_whole` is cut. A window then has the size of the training images, whose resolution
        the model knows.
        """
        longest = max(size_hw)
        return longest if longest <= self.largest_whole else self.image_side or self.pipeline.size

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
            mask: (h, w) logits of an earlier mask, `Prediction.low_res`.
            choice: "single" takes the model's single mask; "best" the alternative with the highest predicted IoU,
                which suits one ambiguous click.

        Raises:
            TypeError: points, labels or box are not numbers.
            ValueError: no image is set, `choice` is unknown, or `mask` is not of the decoder's size.
            DataError: there is no prompt, labels and points do not match, or `mask` does not hold logits.
            ConfigError: a point or the box is outside of the image.
        """
        coords = as_numbers(points, "points", "(x, y) pairs, such as [(320, 240)]", -1, 2)
        marks = np.ones(len(coords)) if labels is None else as_numbers(labels, "labels", "0 or 1 for each point", -1)
        corners = None if box is None else as_numbers(box, "box", "(x0, y0, x1, y1)", -1)
        prompt = Prompt(coords, marks.astype(np.int64), corners, None if mask is None else np.asarray(mask))
        return self.predict_prompts([prompt], choice=choice)[0]

    def predict_prompts(self, prompts: Sequence[Prompt], *, choice: Choice = "single") -> list[Prediction]:
        """Segment the objects that several prompts mark in the current image; those of one kind are decoded together.

        Raises:
            ValueError: no image is set, or `choice` is unknown.
            ConfigError: a point or a box is outside of the image.
            BundleError: the network's output is not finite.
        """
        check_choice(choice)
        if self.image is None:
            raise ValueError("no image is set; call set_image first")
        for prompt in prompts:
            check_inside(prompt, self.image)
        if self._large is not None:
            return [self._pasted(self._large.predict(prompt, choice)) for prompt in prompts]
        assert self._encoded is not None  # set_image has set one of the two
        found: dict[int, Prediction] = {}
        whole = Window(0, 0, *self.image.size_hw)
        for places in of_one_kind(prompts):
            decoded = self._encoded.decode([prompts[place] for place in places])
            check_mask_size(prompts[places[0]].mask_input, decoded)
            for row, place in enumerate(places):
                local = self.local_prediction(self._encoded, decoded, row, choice, self.image, whole)
                found[place] = self._pasted(local)
        return [found[place] for place in range(len(prompts))]

    def segment_semantic(self) -> ClassMap:
        """Return the class of every pixel of the current image; a large one is cut into windows, see `tile_of`.

        Raises:
            ValueError: no image is set.
            ConfigError: the network has no dense head.
        """
        return self._current().segment_semantic()

    def segment_everything(self, settings: EverythingSettings | None = None) -> list[FoundObject]:
        """Find every object of the current image, best first, each with its class where the network knows classes.

        With a dense head the clicks are the peaks of its distance map; without one, a grid. A large image is cut into
        windows, see `tile_of`.

        Args:
            settings: how objects are found; by default as `EverythingSettings` says.

        Raises:
            ValueError: no image is set.
        """
        return self._current().segment_everything(settings)

    def classify(self, mask: npt.NDArray[np.floating]) -> tuple[int, float] | None:
        """Return the class (label value) of a mask of the current image, and its probability.

        Args:
            mask: (h, w) logits at the decoder's size, the `low_res` of its prediction.

        Returns:
            None if the model does not distinguish classes of objects, or the image is cut into windows (its
            predictions hold their class).
        """
        return None if self._encoded is None else self._encoded.class_of(np.asarray(mask, np.float32))

    def _current(self) -> LargeImage:
        """Return the current image, as one window if it fits."""
        if self.image is None:
            raise ValueError("no image is set; call set_image first")
        if self._large is not None:
            return self._large
        assert self._encoded is not None
        from simmat.predictor.large import LargeImage

        return LargeImage(self, LoadedImage(self.image), encoded=self._encoded)

    @threads_for_load()
    def local_prediction(
        self,
        encoded: EncodedImage,
        decoded: MaskPrediction,
        row: int,
        choice: Choice | int,
        image: SensorImage,
        window: Window,
    ) -> Prediction:
        """Return one of the masks that were decoded, at the resolution of the image.

        `row` is the prompt; `choice` as in `predict`, or the number of the mask. `image` is the part of the whole in
        `window`. Raises BundleError if the network's output is not finite.
        """
        scores = decoded.iou[row].tolist()
        best = 0 if choice == "single" or len(scores) == 1 else 1 + int(np.argmax(scores[1:]))
        picked = choice if isinstance(choice, int) else best
        low = decoded.logits[row : row + 1, picked : picked + 1].float()  # (1, 1, h, w)
        logits: FloatArray = restore_logits(low, encoded.prepared.frame)[0, 0].cpu().numpy()
        if not (np.isfinite(logits).all() and math.isfinite(scores[picked])):
            model = self.bundle.path if self.bundle else "the model"
            raise BundleError(f"{model} gives NaN or infinity for {image.origin}; its weights are damaged")
        doubt = self.doubt_of(encoded)
        low_res: FloatArray = low[0, 0].cpu().numpy()
        value, chance = encoded.class_of(low_res) or (None, None)
        return Prediction(logits > 0, logits, scores[picked], low_res, image, window, doubt, value, chance)

    def _pasted(self, found: Prediction) -> Prediction:
        """Return a mask at the size of the whole image; outside of its window its logits are the smallest ones."""
        assert self.image is not None
        if found.window.size_hw == self.image.size_hw:
            return found
        size_hw = self.image.size_hw
        logits = np.full(size_hw, min(float(found.logits.min()), -1.0), np.float32)
        logits[found.window.slices] = found.logits
        mask, whole = found.whole_mask(size_hw), Window(0, 0, *size_hw)
        return replace(found, mask=mask, logits=logits, image=self.image, window=whole)

    def doubt_of(self, encoded: EncodedImage) -> str:
        """Return how the values of an image differ from those of training; "" if they do not."""
        return unlike_training(encoded.prepared, self.pipeline.channels) if self.bundle else ""

    @property
    def class_names(self) -> Mapping[int, str]:
        """Label value -> name, for the names that training knew; objects without a class are 1, "object"."""
        if self.dense is not None and self.dense.classes == (None,):
            return {1: "object"}
        return self.inputs.card.class_names

    def fit(self, sample: Callable[[], SensorImage]) -> None:
        """Set what depends on an image's values before parts of it are encoded; nothing for a tuned model.

        `sample` reads pixels that show what the values are like; it is called only where they are needed.
        """

    @threads_for_load()
    def encode(self, image: SensorImage, cache: Path | None = None) -> EncodedImage:
        """Encode an image, or a part of one; `cache` is a folder that keeps the embedding."""
        prepared = self.pipeline(image)
        cached = None if cache is None else CachedEmbedding.of(cache, prepared, self.digest, self._fitted)
        return EncodedImage(self.model.for_image(image), prepared, self.dense, cached)
