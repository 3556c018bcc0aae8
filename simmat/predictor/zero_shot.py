"""An untuned foundation model on any sensor, normalized by the statistics of each image itself."""

from __future__ import annotations

import weakref
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, cast

import numpy as np
import torch

from simmat.assemble import Parts, assemble, assemble_transfer
from simmat.bundle import content_digest
from simmat.data.card import DataCard
from simmat.data.pipeline import Pipeline
from simmat.foundation import FoundationModel
from simmat.model_spec import ModelSpec
from simmat.predictor.open import ImageLoader
from simmat.predictor.predictor import Predictor
from simmat.sensors.adapter import ModalityAdapter, options_of
from simmat.sensors.normalize import (
    Statistics,
    fit_channels,
    image_moments,
    zero_shot_map,
)
from simmat.types import ImageReader, SensorImage, Window

_SAMPLES = 4
"""Windows along each side that show what the values of a large image are like."""


class ZeroShotPredictor(Predictor):
    """An untuned foundation model on any sensor, without a bundle.

    Channels are normalized by the statistics of each image itself, and shown to the model as three planes by
    `simmat.sensors.normalize.zero_shot_map`.
    """

    normalizes_by_image: ClassVar[bool] = True
    # the image by whose values the network is normalized; it may be released meanwhile
    _fitted_to: weakref.ref[ImageReader] | None = None

    def __init__(
        self,
        parts: Parts,
        adapter: ModalityAdapter,
        image_size: int,
        device: torch.device,
        card: DataCard | None = None,
    ) -> None:
        """Make a predictor of a model, a transfer layer that applies the zero-shot map, and the frozen tuner.

        `card` is that for which `adapter` is configured; None for none.
        """
        self._parts = parts
        self._spec = ModelSpec(
            modality=adapter.name,
            sensor_channels=adapter.channels,
            channels=(),
            statistics=Statistics((), (), (), ()),
            zero_shot=((0.0,),) * 3,
            foundation=parts.foundation.name,
            seed=0,
            image_size=image_size,
            mat=parts.transfer.name,
            tune=parts.tuner.name,
            card=card or DataCard(regions="instances"),
        )
        super().__init__(
            assemble(self._spec, parts).to(device), Pipeline(adapter, (), image_size)
        )

    @property
    def spec(self) -> ModelSpec:
        """Everything that determines the network; channels and zero-shot map follow from each image."""
        return self._spec

    @cached_property
    def image_loader(self) -> ImageLoader:
        """The images that it takes."""
        return ImageLoader(self.adapter, None, self._spec.card)

    @cached_property
    def digest(self) -> str:
        """A sha256 of the foundation model and the sensor's options; it does not depend on the image."""
        identity = [self._spec.model_dump(mode="json"), options_of(self.adapter)]
        return content_digest(identity, self.model.foundation.state_dict())

    def normalize_by(self, reader: ImageReader) -> None:
        """Normalize by the statistics of this image from now on."""
        if self._fitted_to is not None and self._fitted_to() is reader:
            return
        foundation = self._parts.foundation
        seen = self.adapter.transform(self._typical_pixels(reader))
        statistics = image_moments(seen).statistics()
        # a flat channel stays 0
        std = tuple(value if value > 0 else 1.0 for value in statistics.std)
        channels = fit_channels(
            seen.channels,
            replace(statistics, std=std),
            pixel_mean=foundation.pixel_mean,
            pixel_std=foundation.pixel_std,
        )
        # (3, C)
        rows = tuple(
            map(
                tuple,
                zero_shot_map(channels, statistics, foundation.pixel_std).tolist(),
            )
        )
        spec = self._spec.model_copy(update={"channels": channels, "zero_shot": rows})
        device = next(self.model.parameters()).device
        built = assemble_transfer(
            spec, self._parts, cast(FoundationModel, self.model.foundation)
        )
        self.model.mat = built.to(device).eval()
        self.pipeline = replace(self.pipeline, channels=channels)
        self._normalized_by = repr((channels, rows))
        self._fitted_to = weakref.ref(reader)

    def _typical_pixels(self, reader: ImageReader) -> SensorImage:
        """Return an image, or of one that is cut into windows pixels from all over it, side by side."""
        height, width = reader.size_hw
        if self.tile_size(reader.size_hw) >= max(height, width):
            return reader.read(Window(0, 0, height, width))
        side = min(self.pipeline.size, height, width)
        data = []
        valid = []
        for y in np.linspace(0, height - side, _SAMPLES).astype(int).tolist():
            for x in np.linspace(0, width - side, _SAMPLES).astype(int).tolist():
                part = reader.read(Window(y, x, y + side, x + side))
                # every second pixel is enough for statistics; a view would keep all in memory
                data.append(part.data[:, ::2, ::2].copy())
                valid.append(part.valid[:, ::2, ::2].copy())
        return SensorImage(
            np.concatenate(data, axis=2),
            np.concatenate(valid, axis=2),
            part.channels,
            reader.origin,
        )
