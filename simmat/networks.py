"""The method as torch modules: a transfer layer for any network, and the whole network without a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from simmat.data.card import DataCard
from simmat.errors import ConfigError
from simmat.io.weights import check_digest, find_weights, sha256_of
from simmat.model import Parts, SimMAT, assemble
from simmat.model_spec import ModelSpec, complete_options
from simmat.plugin_specs import import_from_string
from simmat.plugins.loader import Modality, installed, with_modality
from simmat.plugins.registry import Registry
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.channel_selection import parse_channels
from simmat.sensors.normalize import Statistics, fit_channels, zero_shot_map
from simmat.types import Channel, SensorImage


class MAT(nn.Module):
    """A transfer layer alone, to put before any network for RGB images: (B, C, H, W) planes to (B, 3, H, W).

    The planes are normalized: zero mean, unit variance, 0 where nothing was measured. The layer's output is normalized
        in the same way.

        network = nn.Sequential(simmat.MAT(9), timm.create_model("resnet18", pretrained=True))

    Args:
        channels: the number of channels, or the channels; those named red, green and blue with quantity "srgb"
            pass through the zero-shot map unchanged.
        kind: name of a transfer layer whose output is an image.
        seed: of its random weights; torch's global state is not changed.
        registry: what is installed; None loads the plugins.
        options: of the layer: width=32, contrast=0.33.

    Raises:
        ConfigError: the layer needs the first layer of a backbone (use `build`), or an option is unknown.
    """

    def __init__(
        self,
        channels: int | Sequence[Channel],
        kind: str = "mat-residual",
        *,
        seed: int = 0,
        registry: Registry | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        spec = (registry or installed()).transfer_layer(kind)
        if spec.output != "image":
            raise ConfigError(
                f"transfer layer {kind!r} takes the place of a backbone's first layer, so it does not stand alone; use "
                "simmat.build(mat=…), or another kind (mat, mat-residual, linear)"
            )
        planes: Sequence[Channel]
        if isinstance(channels, int):
            planes = tuple(Channel(f"plane{i}", "value", "1") for i in range(channels))
        else:
            planes = channels
        if not (planes and isinstance(planes, Sequence) and all(isinstance(one, Channel) for one in planes)):
            raise ConfigError(
                f"a transfer layer takes a number of channels, at least 1, or simmat.Channel objects, got {channels!r}"
            )
        fitted = tuple(channel.with_statistics(0.0, 1.0) for channel in planes)
        self.layer: nn.Module = import_from_string(spec.build)(
            channels=fitted,
            zero_shot=torch.from_numpy(zero_shot_map(fitted, independent(len(fitted)))),
            backbone=None,
            generator=torch.Generator().manual_seed(seed),
            **complete_options(spec, options),
        )

    def forward(self, planes: Tensor) -> Tensor:
        """Map normalized planes (B, C, H, W) to an image (B, 3, H, W)."""
        image: Tensor = self.layer(planes)
        return image


def independent(count: int) -> Statistics:
    """Return the statistics of channels of zero mean and unit variance that do not depend on each other."""
    rows = tuple(map(tuple, np.eye(count).tolist()))
    return Statistics((0.0,) * count, (1.0,) * count, rows, (1,) * count)


def build(
    *,
    foundation: str,
    modality: Modality,
    modality_options: Mapping[str, Any] | None = None,
    channels: str | Sequence[str | int] | None = None,
    mat: str | None = None,
    mat_options: Mapping[str, Any] | None = None,
    tune: str | None = None,
    tune_options: Mapping[str, Any] | None = None,
    image_size: int | None = None,
    checkpoint: str | Path | None = None,
    from_scratch: bool = False,
    seed: int = 0,
    statistics: Statistics | None = None,
    registry: Registry | None = None,
) -> SimMAT:
    """Build the network of a sensor and a foundation model as an `nn.Module`, for a training loop of your own.

    `network.encode(planes)` takes normalized planes (B, C, S, S), and `network.decode(embedding, prompts)` a
    `simmat.foundation.PromptBatch`. Only the transfer layer and what the tuner trains require gradients.

    Args:
        foundation: name of the foundation model.
        modality: the sensor: a name, an adapter, or its class. It must declare its channels.
        modality_options: options of the sensor: {"unit": "cK"}.
        channels: channels of the sensor, as `--channels` takes them; None for all.
        mat: the transfer layer; None takes the foundation model's own.
        mat_options: options of the transfer layer: {"width": 32}.
        tune: which weights are trained; None takes the foundation model's own.
        tune_options: options of the tuner: {"rank": 8}.
        image_size: side S of the input in pixels; None takes the model's own.
        checkpoint: the foundation model's weight file; None looks in the cache and the packages.
        from_scratch: start from random weights.
        seed: of all random weights; torch's global state is not changed.
        statistics: mean, std and correlation of the channels, which the zero-shot map uses; None takes the channels for
            independent.
        registry: what is installed; None loads the plugins.

    Raises:
        SimMATError: a name, an option or the weight file is wrong.
    """
    known, name = with_modality(registry or installed(), modality)
    selected = parse_channels(channels) if isinstance(channels, str) else channels
    sensor = known.modality(name or "", modality_options, channels=selected)
    file = None if checkpoint is None else Path(checkpoint)
    spec = known.foundation(foundation, fetch=True)
    layer = known.transfer_layer(mat or spec.mat)
    tuner = known.tuner(tune or spec.tune)
    size = image_size or spec.image_size
    spec.check_image_size(size)
    weights = None if from_scratch else find_weights(spec, file)
    if weights is not None and file is None:
        check_digest(spec, weights, sha256_of(weights))
    planes = _transformed(sensor)
    found = statistics or independent(len(planes))
    fitted = fit_channels(planes, found, pixel_mean=spec.pixel_mean, pixel_std=spec.pixel_std)
    model = ModelSpec(
        modality=sensor.name,
        sensor_channels=sensor.channels,
        channels=fitted,
        statistics=found,
        zero_shot=tuple(map(tuple, zero_shot_map(fitted, found, spec.pixel_std).tolist())),
        foundation=spec.name,
        seed=seed,
        image_size=size,
        mat=layer.name,
        mat_options={**(spec.mat_options if mat is None else {}), **(mat_options or {})},
        tune=tuner.name,
        tune_options=dict(tune_options or {}),
        card=DataCard(regions="instances"),
    )
    return assemble(model, Parts(spec, layer, tuner, weights))


def _transformed(sensor: ModalityAdapter) -> tuple[Channel, ...]:
    """Return a sensor's channels as they reach the network.

    Raises:
        ConfigError: only its files say how many it has.
    """
    if not sensor.channels:
        raise ConfigError(
            f"modality {sensor.name!r} learns its channels from its files; give a sensor that declares them, or use "
            "simmat.MAT(channels)"
        )
    planes = np.zeros((len(sensor.channels), 1, 1), np.float32)
    return sensor.transform(SensorImage.from_planes(planes, sensor.channels)).channels
