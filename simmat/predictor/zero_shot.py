"""The predictor of an untuned foundation model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import cast

import torch

from simmat.data.card import DataCard
from simmat.data.pipeline import Pipeline
from simmat.data.statistics import image_moments
from simmat.foundation import FoundationModel
from simmat.model import Parts, assemble, assemble_transfer
from simmat.model_spec import ModelSpec
from simmat.predictor.cache import digest_of
from simmat.predictor.predictor import Predictor
from simmat.sensors.adapter import ModalityAdapter, options_of
from simmat.sensors.normalize import Statistics, fit_channels, zero_shot_map
from simmat.types import SensorImage


class ZeroShotPredictor(Predictor):
    """An untuned foundation model on any sensor, without a bundle.

    Channels are normalized by the statistics of each image itself, and shown to the model as three planes by
    `simmat.sensors.normalize.zero_shot_map`.
    """

    def __init__(self, parts: Parts, adapter: ModalityAdapter, image_size: int, device: torch.device) -> None:
        """Make a predictor of a model, a transfer layer that applies the zero-shot map, and the frozen tuner."""
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
            card=DataCard(regions="instances"),
        )
        super().__init__(assemble(self._spec, parts).to(device), Pipeline(adapter, (), image_size))

    @cached_property
    def digest(self) -> str:
        """A sha256 of the foundation model and the sensor's options; it does not depend on the image."""
        said = [self._spec.model_dump(mode="json"), options_of(self.adapter)]
        return digest_of(said, self.model.foundation.state_dict())

    def fit(self, sample: Callable[[], SensorImage]) -> None:
        """Normalize by the statistics of this image from now on."""
        seen = self.adapter.transform(sample())
        statistics = image_moments(seen).statistics()
        spread = tuple(value if value > 0 else 1.0 for value in statistics.std)  # a flat channel stays 0
        channels = fit_channels(
            seen.channels,
            replace(statistics, std=spread),
            pixel_mean=self._parts.foundation.pixel_mean,
            pixel_std=self._parts.foundation.pixel_std,
        )
        rows = tuple(map(tuple, zero_shot_map(channels, statistics).tolist()))
        spec = self._spec.model_copy(update={"channels": channels, "zero_shot": rows})
        device = next(self.model.parameters()).device
        built = assemble_transfer(spec, self._parts, cast(FoundationModel, self.model.foundation))
        self.model.mat = built.to(device).eval()
        self.pipeline = replace(self.pipeline, channels=channels)
        self._fitted = repr((channels, rows))
