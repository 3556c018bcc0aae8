"""A network and its sensor: what encodes an image, or a window of one."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch

from simmat.bundle import Bundle, trained_tensors
from simmat.data.instances import FoundObject
from simmat.data.pipeline import Pipeline, PreparedImage
from simmat.errors import ConfigError
from simmat.foundation import ImageEmbedding
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.nn.device import threads_for_load
from simmat.predictor.cache import digest_of, embedding_file, read_embedding, write_embedding
from simmat.predictor.encoded import EncodedImage, domain_shift_warning, embed
from simmat.predictor.objects import EverythingSettings, find_objects
from simmat.predictor.reading import ImageLoader
from simmat.predictor.reference import Reference, find_like
from simmat.sensors.adapter import ModalityAdapter
from simmat.types import ImageReader, SensorImage, max_untiled_side


class ImageEncoder:
    """A network and its sensor.

    Attributes:
        model: the network, in eval mode.
        pipeline: image in physical units -> network input.
        bundle: what it was loaded from, or None.
        inputs: the images that it takes.
        channels: the C channels of the sensor's images; empty if only a file can tell.
        dense: what its dense head tells apart; None without one.
        image_side: longer side of the training images in pixels; None if it is not known.
        normalizes_by_image: whether `normalize_by` changes the network.
        calibration: what scores are worth; None leaves them as the network gives them.
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
    ) -> None:
        """Take a network and its sensor.

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
        self.image_loader = ImageLoader(pipeline.adapter, bundle)
        self.channels = self.image_loader.channels
        self.dense = dense or (bundle.spec.dense if bundle else None)
        self.image_side = image_side or (bundle.spec.image_side if bundle else None)
        self.calibration = bundle.spec.calibration if bundle else None
        self._fitted = ""  # what `normalize_by` set, in words
        self._encoding = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: the network and its sensor, without an image."""
        left_out = ("_encoding", "_current", "_fitted_to")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._encoding = threading.RLock()

    def uncalibrated(self) -> Self:
        """Return the same without calibration: its scores are those of the network."""
        if self.calibration is None:
            return self
        found = copy(self)
        found.calibration = None
        return found

    @property
    def adapter(self) -> ModalityAdapter:
        """The sensor."""
        return self.pipeline.adapter

    @cached_property
    def digest(self) -> str:
        """A sha256 of the weights and, of a bundle, its spec; computed on first access."""
        if self.bundle is None:
            return digest_of("", self.model.state_dict())
        return digest_of(self.bundle.spec.model_dump(mode="json"), trained_tensors(self.model))

    def required_dense(self) -> DenseSpec:
        """Return what the dense head tells apart; ConfigError without one."""
        if self.dense is None:
            raise ConfigError("this model has no class map: it has no dense head; train one with --heads prompt,dense")
        return self.dense

    @property
    def max_untiled_side(self) -> int:
        """The longest side in pixels of an image that is not cut into windows."""
        return max_untiled_side(self.pipeline.size, self.image_side)

    def tile_size(self, size_hw: tuple[int, int]) -> int:
        """Return the side of the windows into which an image is cut by default; of the whole image if it is not.

        An image longer than `max_untiled_side` is cut. A window then has the size of the training images, whose
        resolution the model knows.
        """
        longest = max(size_hw)
        return longest if longest <= self.max_untiled_side else self.image_side or self.pipeline.size

    @property
    def class_names(self) -> Mapping[int, str]:
        """Annotation value -> name, for the names that training knew; objects without a class are 1, "object"."""
        if self.dense is not None and self.dense.classes == (None,):
            return {1: "object"}
        return self.image_loader.card.class_names

    @threads_for_load()
    def encode(self, image: SensorImage, reader: ImageReader, cache: Path | None = None) -> EncodedImage:
        """Encode an image, or a window of one; threads may call this at once.

        Args:
            image: the pixels of the window.
            reader: the image that they are of.
            cache: folder that keeps the embedding.

        Raises:
            OutputError: the embedding cannot be written.
        """
        with self._encoding:
            self.normalize_by(reader)
            prepared, model = self.pipeline(image), self.model.for_image(image)
            file = None if cache is None else embedding_file(cache, prepared, self.digest, self._fitted)
            found = None if file is None else read_embedding(file)
            if found is None:
                found = embed(model, prepared.planes[None], prepared.content[None])
                found = found if file is None else write_embedding(file, found)
            if file is not None:
                weight = next(model.parameters())
                found = replace(found, levels=tuple(level.to(weight) for level in found.levels))
            return self._encoded(model, prepared, found)

    @threads_for_load()
    def encode_batch(self, images: Sequence[SensorImage], readers: Sequence[ImageReader]) -> list[EncodedImage]:
        """Encode B images in one pass of the network; one by one where the network depends on the image.

        Args:
            images: the pixels of each, as `encode` takes them.
            readers: the image that each is of.
        """
        if len(images) < 2 or self.normalizes_by_image or self.model.for_image(images[0]) is not self.model:
            return [self.encode(image, reader) for image, reader in zip(images, readers, strict=True)]
        prepared = [self.pipeline(image) for image in images]
        planes, content = [one.planes for one in prepared], [one.content for one in prepared]
        batch = embed(self.model, torch.stack(planes), torch.stack(content))
        return [
            self._encoded(self.model, one, replace(batch, levels=tuple(level[row : row + 1] for level in batch.levels)))
            for row, one in enumerate(prepared)
        ]

    def _encoded(self, model: SimMAT, prepared: PreparedImage, embedding: ImageEmbedding) -> EncodedImage:
        warning = domain_shift_warning(prepared, self.pipeline.channels) if self.bundle else ""
        return EncodedImage(model, prepared, embedding, self.dense, warning)

    def objects_in(
        self, encoded: EncodedImage, settings: EverythingSettings, like: Reference | None
    ) -> list[FoundObject]:
        """Find the objects of a window, best first: every one, or those that a reference shows."""
        if like is not None:
            return find_like(like, encoded, settings)
        return find_objects(encoded, settings)

    def normalize_by(self, reader: ImageReader) -> None:
        """Set what depends on an image's values; nothing for a tuned model."""
