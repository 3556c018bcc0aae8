"""Encode images by a network, and hold what it answers: the masks of prompts, and the class of every pixel."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from simmat.bundle import Bundle, content_digest, trained_tensors
from simmat.data.instances import FoundObject, region_from_mask
from simmat.data.pipeline import Pipeline, PreparedImage, prompt_batch, restore_logits
from simmat.drawing.display import display_rgb
from simmat.errors import ConfigError
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec, ModelSpec
from simmat.nn.dense_head import DenseAnswer, classes_of
from simmat.nn.device import threads_for_load
from simmat.predictor.cache import embedding_file, read_embedding, write_embedding
from simmat.predictor.input_check import domain_shift_warning, image_warning
from simmat.predictor.open import check_channels, picture_of
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import (
    BoolArray,
    FloatArray,
    ImageReader,
    Prompt,
    SensorImage,
    Window,
    max_untiled_side,
)

if TYPE_CHECKING:
    import PIL.Image


@threads_for_load()
@torch.inference_mode()
def embed(model: SimMAT, planes: Tensor, content: Tensor) -> ImageEmbedding:
    """Return the embedding of a batch of images: (B, C, S, S) planes and (B, S, S) content, see `PreparedImage`."""
    device = next(model.parameters()).device
    return model.encode(planes.to(device), content.to(device))


def encode_image(
    model: SimMAT, prepared: PreparedImage, dense_spec: DenseSpec | None = None
) -> EncodedImage:
    """Encode an image.

    Args:
        model: the network.
        prepared: its input.
        dense_spec: what its dense head distinguishes; None without one.
    """
    embedding = embed(model, prepared.planes[None], prepared.content[None])
    return EncodedImage(model, prepared, embedding, dense_spec)


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """The embedding of an image, or of a window of one, and what the network answers; no score is calibrated.

    Attributes:
        model: the network.
        prepared: its input.
        embedding: of a batch of this image.
        dense_spec: what the dense head distinguishes; None without one.
        warning: how the values differ from those of training, see `domain_shift_warning`; "" if they do not.
    """

    model: SimMAT
    prepared: PreparedImage
    embedding: ImageEmbedding
    dense_spec: DenseSpec | None = None
    warning: str = ""

    @property
    def nbytes(self) -> int:
        """Bytes of the embedding and of the network's input."""
        parts = (*self.embedding.levels, self.prepared.planes, self.prepared.content)
        return sum(part.nbytes for part in parts)

    @cached_property
    def dense_answer(self) -> DenseAnswer | None:
        """The maps of the dense head; None without one."""
        if self.model.dense is None:
            return None
        with threads_for_load(), torch.inference_mode():
            answer: DenseAnswer = self.model.dense(self.embedding)
        return answer

    @threads_for_load()
    @torch.inference_mode()
    def decode(
        self, prompts: Sequence[Prompt], *, mask_input: Tensor | None = None
    ) -> MaskPrediction:
        """Decode K prompts of one kind: all with as many points, and all with or without box and mask.

        Args:
            prompts: in pixels of the original image.
            mask_input: (K, 1, h, w) logits of earlier masks, in place of the prompts' own.

        Returns:
            (K, M, h, w) logits of M masks for each prompt at the decoder's own size, and (K, M) predicted IoUs.

        Raises:
            ValueError: a mask of the prompts is not of the decoder's size.
        """
        batch = prompt_batch(prompts, self.prepared.letterbox, self._device)
        if mask_input is not None:
            batch = replace(batch, mask_input=mask_input)
        answer = self.model.decode(self.embedding, batch)
        given = prompts[0].mask_input
        # only an answer tells the decoder's size
        size_hw = tuple(answer.logits.shape[-2:])
        if given is not None and given.shape != size_hw:
            raise ValueError(
                f"mask must be {size_hw} logits, the low_res_logits of an earlier prediction of this model, "
                f"got {given.shape}"
            )
        return answer

    @threads_for_load()
    @torch.inference_mode()
    def decode_clicks(self, points: FloatArray) -> MaskPrediction:
        """Decode K prompts of one click each, as `decode` does.

        Args:
            points: (K, 2) xy in pixels of the S×S input.
        """
        count = len(points)
        batch = PromptBatch(
            image_index=torch.zeros(count, dtype=torch.int64, device=self._device),
            # (K, 1, 2)
            point_coords=torch.from_numpy(points[:, None]).to(self._device),
            point_labels=torch.ones(count, 1, dtype=torch.int64, device=self._device),
        )
        return self.model.decode(self.embedding, batch)

    @threads_for_load()
    @torch.inference_mode()
    def class_map(self) -> FloatArray | None:
        """Return (K, H, W) class probabilities of the original image; None without a dense head."""
        if self.dense_answer is None or self.dense_spec is None:
            return None
        logits = restore_logits(
            self.dense_answer.class_logits, self.prepared.letterbox
        )[0]
        probabilities: FloatArray = logits.softmax(0).cpu().numpy()
        return probabilities

    @threads_for_load()
    @torch.inference_mode()
    def class_probabilities(
        self, low_res_logits: FloatArray
    ) -> Mapping[int, float] | None:
        """Return the probability of each class of objects for a mask; None without such classes, or a pixel.

        Args:
            low_res_logits: (h, w) logits of the mask at the decoder's own size.
        """
        inside = low_res_logits > 0  # (h, w)
        if self.dense_spec is None or self.dense_answer is None or not inside.any():
            return None
        probabilities = self.dense_answer.class_logits[0].softmax(0)  # (K, h', w')
        (found,), _ = classes_of(
            inside[None], probabilities, self.dense_spec.background
        )
        return self.dense_spec.by_class(found.tolist())

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


class Encoder:
    """A network and its sensor: it encodes images, or windows of them.

    Attributes:
        model: the network, in eval mode.
        pipeline: image in physical units -> network input.
        bundle: what it was loaded from, or None.
        channels: the C channels of the sensor's images; empty if only a file can tell.
        dense: spec of its dense head, which says what it tells apart; None without one.
        image_side: longer side of the training images in pixels; None if it is not known.
        takes_windows: whether they were windows of images, so that an image longer than that is cut into windows.
        normalizes_by_image: whether `normalize_by` changes the network.
        calibration: maps of scores; None leaves them as the network returns them.
    """

    normalizes_by_image: ClassVar[bool] = False

    def __init__(
        self,
        model: SimMAT,
        pipeline: Pipeline,
        *,
        bundle: Bundle | None = None,
        dense: DenseSpec | None = None,
        image_side: int | None = None,
        takes_windows: bool = False,
    ) -> None:
        """Take a network and its sensor.

        Args:
            model: the network; it is put into eval mode.
            pipeline: image -> network input.
            bundle: which both come from; its card and channels then apply to files and images.
            dense: what a dense head of the network tells apart; by default as the bundle says.
            image_side: longer side of the training images in pixels, by which large images are cut; by default as the
                bundle says.
            takes_windows: whether the training images were windows; by default as the bundle says.
        """
        self.model = model.eval()
        self.pipeline = pipeline
        self.bundle = bundle
        self.channels = pipeline.adapter.channels
        self.dense = dense
        self.image_side = image_side
        self.takes_windows = takes_windows
        self.calibration = None
        if bundle is not None:
            self.channels = bundle.spec.sensor_channels
            self.dense = dense or bundle.spec.dense
            self.image_side = image_side or bundle.spec.image_side
            self.takes_windows = takes_windows or bool(bundle.spec.card.crop)
            self.calibration = bundle.spec.calibration
        self._normalized_by = ""  # what `normalize_by` set, in words
        self._normalizing = threading.RLock()  # see `encode`

    def uncalibrated(self) -> Self:
        """Return the same without calibration: its scores are those of the network."""
        if self.calibration is None:
            return self
        found = copy(self)
        found.calibration = None
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: the network and its sensor."""
        # neither a lock nor a weak reference, see `ZeroShotPredictor`, can be pickled
        left_out = ("_normalizing", "_fitted_to")
        return {
            name: value for name, value in self.__dict__.items() if name not in left_out
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._normalizing = threading.RLock()

    @property
    def spec(self) -> ModelSpec:
        """Everything that determines the network; ValueError of a network without a bundle."""
        if self.bundle is None:
            raise ValueError("this predictor was made from a network, without a bundle")
        return self.bundle.spec

    @property
    def adapter(self) -> ModalityAdapter:
        """The sensor."""
        return self.pipeline.adapter

    @cached_property
    def digest(self) -> str:
        """A sha256 of the weights and, of a bundle, its spec; computed on first access."""
        if self.bundle is None:
            return content_digest("", self.model.state_dict())
        return content_digest(
            self.bundle.spec.model_dump(mode="json"), trained_tensors(self.model)
        )

    @property
    def class_names(self) -> Mapping[int, str]:
        """Label value -> name, for the names that training knew; objects without a class are 1, "object"."""
        if self.dense is not None and self.dense.classes == (None,):
            return {1: "object"}
        if self.bundle is None:
            return {}
        return self.bundle.spec.card.class_names

    def required_dense(self) -> DenseSpec:
        """Return what the dense head tells apart; ConfigError without one."""
        if self.dense is None:
            raise ConfigError(
                "this model has no class map: it has no dense head; train one with --heads prompt,dense"
            )
        return self.dense

    def label_type(self) -> tuple[npt.DTypeLike, int]:
        """Return the dtype of class maps, and the label value of pixels without a measurement: its largest number.

        Raises:
            ConfigError: the network has no dense head.
        """
        largest = max(self.required_dense().label_values)
        for dtype in (np.uint8, np.uint16):
            if largest < np.iinfo(dtype).max:
                return dtype, int(np.iinfo(dtype).max)
        return np.uint32, int(np.iinfo(np.uint32).max)

    @property
    def max_untiled_side(self) -> int:
        """The longest side in pixels of an image that is not cut into windows."""
        return max_untiled_side(
            self.pipeline.size, self.image_side, takes_windows=self.takes_windows
        )

    def tile_size(self, size_hw: tuple[int, int]) -> int:
        """Return the side of the windows into which an image is cut by default; of the whole image if it is not.

        An image longer than `max_untiled_side` is cut. A window then has the size of the training images, whose
        resolution the model knows.
        """
        longest = max(size_hw)
        if longest <= self.max_untiled_side:
            return longest
        return self.image_side or self.pipeline.size

    def check_channels(self, image: SensorImage) -> None:
        """Raise BundleError if an image has other channels than the bundle."""
        check_channels(self.bundle, image)

    @threads_for_load()
    def encode(
        self, image: SensorImage, reader: ImageReader, cache_folder: Path | None = None
    ) -> EncodedImage:
        """Encode an image, or a window of one; threads may call this at once.

        Args:
            image: the pixels of the window.
            reader: the image that they are of.
            cache_folder: folder that keeps the embedding.

        Raises:
            OutputError: the embedding cannot be written.
        """
        # an untuned model is changed for each image, so it encodes one image at a time
        with self._normalizing:
            self.normalize_by(reader)
            prepared = self.pipeline(image)
            model = self.model.for_image(image)
            if cache_folder is None:
                embedding = embed(model, prepared.planes[None], prepared.content[None])
            else:
                embedding = self._cached_embedding(model, prepared, cache_folder)
            return self._with_warning(model, image, reader, prepared, embedding)

    def _cached_embedding(
        self, model: SimMAT, prepared: PreparedImage, folder: Path
    ) -> ImageEmbedding:
        """Return an embedding from a folder; one that is not there is computed and written."""
        file = embedding_file(folder, prepared, self.digest, self._normalized_by)
        found = read_embedding(file)
        if found is None:
            found = write_embedding(
                file, embed(model, prepared.planes[None], prepared.content[None])
            )
        weight = next(model.parameters())
        return replace(found, levels=tuple(level.to(weight) for level in found.levels))

    @threads_for_load()
    def encode_batch(
        self, images: Sequence[SensorImage], readers: Sequence[ImageReader]
    ) -> list[EncodedImage]:
        """Encode B images in one pass of the network; one by one where the network depends on the image.

        Args:
            images: the pixels of each, as `encode` takes them.
            readers: the image that each is of.
        """
        if (
            len(images) < 2
            or self.normalizes_by_image
            or self.model.for_image(images[0]) is not self.model
        ):
            return [
                self.encode(image, reader)
                for image, reader in zip(images, readers, strict=True)
            ]
        # from here on nothing changes the network, so that no lock is needed
        prepared = [self.pipeline(image) for image in images]
        planes = torch.stack([one.planes for one in prepared])  # (B, C, S, S)
        content = torch.stack([one.content for one in prepared])  # (B, S, S)
        batch = embed(self.model, planes, content)
        encoded = []
        for row, one in enumerate(prepared):
            levels = tuple(level[row : row + 1] for level in batch.levels)
            own = replace(batch, levels=levels)
            encoded.append(
                self._with_warning(self.model, images[row], readers[row], one, own)
            )
        return encoded

    def _with_warning(
        self,
        model: SimMAT,
        image: SensorImage,
        reader: ImageReader,
        prepared: PreparedImage,
        embedding: ImageEmbedding,
    ) -> EncodedImage:
        """Return an image with its embedding, and how its values differ from those of training."""
        warning = ""
        # a window of an image may be unlike whole ones
        if image.size_hw == reader.size_hw:
            warning = image_warning(self.bundle, image)
        if self.bundle and not warning:
            warning = domain_shift_warning(prepared, self.pipeline.channels)
        return EncodedImage(model, prepared, embedding, self.dense, warning)

    def normalize_by(self, reader: ImageReader) -> None:
        """Fit the network to the values of an image; a tuned one stays as training left it."""


@dataclass(frozen=True)
class Prediction:
    """A mask of one image; a mask from `TiledImage` covers a window of it.

    Attributes:
        mask: (H, W) bool at the original resolution.
        logits: (H, W) float32; the mask is where they are above 0.
        score: predicted IoU of the mask, calibrated where the bundle has a calibration.
        low_res_logits: (h, w) float32, the same logits at the decoder's own size.
        image: what was loaded, of the size of the mask.
        window: the part of the whole image that the mask covers; all of it from `Predictor.predict`.
        low_res_window: the part of the whole image that `low_res_logits` cover.
        warning: how the values differ from the training values, so that the mask may be meaningless; "" if they do not.
        class_probabilities: label value -> probability, of all classes but the background, calibrated as `score` is;
            None if the model does not distinguish classes, or the mask is empty.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    low_res_logits: FloatArray
    image: SensorImage
    window: Window
    low_res_window: Window
    warning: str = ""
    class_probabilities: Mapping[int, float] | None = None

    @property
    def class_id(self) -> int | None:
        """The class that the object most likely has; None without classes."""
        if self.class_probabilities is None:
            return None
        return max(self.class_probabilities, key=self.class_probabilities.__getitem__)

    @property
    def class_probability(self) -> float | None:
        """The probability of that class; None without classes."""
        if self.class_probabilities is None:
            return None
        return max(self.class_probabilities.values())

    def __repr__(self) -> str:
        """Give the size of the mask and its score, not half a million numbers."""
        return f"<Prediction: {int(self.mask.sum())} of {self.mask.size} pixels, score {self.score:.3f}>"

    def plot(self, prompt: Prompt | None = None) -> PIL.Image.Image:
        """Return a picture of the image with the mask over it, and a prompt's points and box; a notebook shows it."""
        from simmat.drawing.overlay import draw_overlay

        return draw_overlay(display_rgb(self.image), self.mask, prompt)

    def whole_mask(self, size_hw: tuple[int, int]) -> BoolArray:
        """Return the mask at the (height, width) of the whole image, False outside of its window."""
        mask = np.zeros(size_hw, np.bool_)
        mask[self.window.slices] = self.mask
        return mask

    def over_whole_image(self, reader: ImageReader) -> Prediction:
        """Return the mask at the size of the whole image; outside of its window its logits are the smallest ones."""
        if self.window.size_hw == reader.size_hw:
            return self
        logits = np.full(
            reader.size_hw, min(float(self.logits.min()), -1.0), np.float32
        )
        logits[self.window.slices] = self.logits
        whole = Window(0, 0, *reader.size_hw)
        mask = self.whole_mask(reader.size_hw)
        return replace(
            self, mask=mask, logits=logits, image=reader.read(whole), window=whole
        )

    def found_object(self, point_xy: tuple[float, float]) -> FoundObject | None:
        """Return the mask in pixels of the whole image; None if it is empty."""
        region = region_from_mask(
            self.mask, self.class_id, (self.window.y0, self.window.x0)
        )
        if region is None:
            return None
        return FoundObject(region, self.score, point_xy, self.class_probabilities)


@dataclass(frozen=True)
class ClassMap:
    """The class of every pixel of an image.

    Attributes:
        labels: (H, W) label values, unsigned integers; 0 where the background is a class and the pixel is of it.
        probability: (H, W) float32 of that class; 0 where nothing was measured.
        values: K label values of the classes, the background among them.
        reader: the image.
        class_names: label value -> name.
        background: label value that is no class; None if every value is one.
        nodata: label value of pixels where nothing was measured.
        probabilities: (K, H, W) float32 of every class, in the order of `values`; they add up to 1 at each pixel, and
            are 0 where nothing was measured. None if not asked for.
    """

    labels: npt.NDArray[Any]
    probability: FloatArray
    values: tuple[int, ...]
    reader: ImageReader
    class_names: Mapping[int, str]
    background: int | None = None
    nodata: int | None = None
    probabilities: FloatArray | None = None

    def __repr__(self) -> str:
        """Give size and classes, not half a million numbers."""
        height, width = self.labels.shape
        return f"<ClassMap: {width}x{height} pixels, classes {', '.join(map(str, self.values))}>"

    def plot(self) -> PIL.Image.Image:
        """Return a picture of the image with the classes over it; a notebook shows it."""
        from simmat.drawing.found import draw_classes

        ignored = {
            value for value in (self.background, self.nodata) if value is not None
        }
        return draw_classes(
            picture_of(self.reader), self.labels, ignored, self.class_names
        )
