"""The method as torch modules, without a data set: `MAT`, a transfer layer alone, and `build`, a whole network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from simmat.assemble import Parts, assemble, check_image_size
from simmat.data.card import DataCard
from simmat.errors import ConfigError
from simmat.io.weights import check_digest, find_weights, sha256_of
from simmat.model import SimMAT
from simmat.model_spec import ModelSpec, complete_options
from simmat.plugins.loader import installed
from simmat.plugins.registry import Modality, Registry, import_from_string
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.channel_selection import parse_channels
from simmat.sensors.normalize import (
    Moments,
    Statistics,
    fit_channels,
    zero_shot_map,
)
from simmat.types import Channel, SensorImage


class MAT(nn.Module):
    """A transfer layer alone, to put before any network for RGB images: (B, C, H, W) planes to (B, 3, H, W).

    The planes are normalized: zero mean, unit variance, 0 where nothing was measured.

        network = nn.Sequential(simmat.MAT.fitted(planes), timm.create_model("resnet18", pretrained=True))

    With `statistics`, or by `MAT.fitted`, the zero-shot map gives the first three principal components of the planes,
    scaled to unit variance; those below a hundredth of the first, which are mostly noise, stay below it. Without them
    the planes are treated as independent: the map then gives three equal images, the sum of the planes over the root of
    their number. For correlated planes, such as the bands of a camera, the result is a grey image of high contrast.

    Args:
        channels: the number of channels, or the channels; those named red, green and blue with quantity "srgb"
            pass through the zero-shot map unchanged.
        kind: name of a transfer layer whose output is an image.
        statistics: mean, std and correlation of the channels, by which the planes are normalized, see
            `simmat.sensors.normalize`; a channel that states mean and std is normalized by its own.
        seed: of its random weights; torch's global state is not changed.
        registry: what is installed; None loads the plugins.
        options: of the layer: width=32, contrast=0.33.

    Raises:
        ConfigError: the layer needs the first layer of a backbone (use `build`), or an option is unknown.
        SpecError: the statistics are of another number of channels.
    """

    def __init__(
        self,
        channels: int | Sequence[Channel],
        kind: str = "mat-residual",
        *,
        statistics: Statistics | None = None,
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
        planes = plain_channels(channels)
        if statistics is None:
            found = independent(len(planes))
            fitted = tuple(channel.with_statistics(0.0, 1.0) for channel in planes)
        else:
            found = statistics
            fitted = fit_channels(
                planes, found, pixel_mean=(0,) * 3, pixel_std=(1,) * 3
            )
        self.layer: nn.Module = import_from_string(spec.build)(
            channels=fitted,
            zero_shot=torch.from_numpy(zero_shot_map(fitted, found)),
            backbone=None,
            generator=torch.Generator().manual_seed(seed),
            **complete_options(spec, options),
        )

    @classmethod
    def fitted(
        cls,
        planes: Tensor,
        kind: str = "mat-residual",
        *,
        channels: Sequence[Channel] | None = None,
        seed: int = 0,
        registry: Registry | None = None,
        **options: Any,
    ) -> MAT:
        """Return a layer whose zero-shot map gives the principal components of planes, scaled to unit variance.

        Args:
            planes: (B, C, H, W) or (C, H, W), normalized like the planes that the layer will get, such as a batch of
                training images; a plane must not be constant.
            channels: the C channels; None for planes without names.

        Raises:
            ConfigError: the planes have another shape, are constant or not finite, or as `MAT`.
        """
        batch = planes[None] if planes.ndim == 3 else planes
        if batch.ndim != 4 or not batch.numel():
            raise ConfigError(
                f"planes must be (B, C, H, W), got shape {tuple(planes.shape)}"
            )
        values = (
            batch.detach().cpu().movedim(1, 0).flatten(1).double().numpy()
        )  # (C, P)
        found = Moments.of_pixels(values, np.ones(values.shape, np.bool_)).statistics()
        wrong = [
            i for i, std in enumerate(found.std) if not (std > 0 and np.isfinite(std))
        ]
        if wrong:
            raise ConfigError(
                f"planes {wrong} are constant or not finite, so they have no components; leave them out, and give 0 "
                "where nothing was measured"
            )
        named = plain_channels(len(values) if channels is None else channels)
        # the planes come as they are, so they are scaled by nothing but the map
        unscaled = [channel.with_statistics(0.0, 1.0) for channel in named]
        return cls(
            unscaled, kind, statistics=found, seed=seed, registry=registry, **options
        )

    def forward(self, planes: Tensor) -> Tensor:
        """Map normalized planes (B, C, H, W) to an image (B, 3, H, W)."""
        image: Tensor = self.layer(planes)
        return image


def plain_channels(channels: int | Sequence[Channel]) -> tuple[Channel, ...]:
    """Return channels without a sensor, given themselves or as their number.

    Raises:
        ConfigError: they are none of the two, or there is none.
    """
    if isinstance(channels, int) and channels > 0:
        return tuple(Channel(f"plane{i}", "value", "1") for i in range(channels))
    given = channels if isinstance(channels, Sequence) else ()
    if given and all(isinstance(one, Channel) for one in given):
        return tuple(given)
    raise ConfigError(
        f"a transfer layer takes a number of channels, at least 1, or simmat.Channel objects, got {channels!r}"
    )


def independent(count: int) -> Statistics:
    """Return the statistics of channels of zero mean and unit variance that do not depend on each other."""
    rows = tuple(map(tuple, np.eye(count).tolist()))
    return Statistics((0.0,) * count, (1.0,) * count, rows, (1,) * count)


def build(
    *,
    foundation: str,
    modality: Modality | None = None,
    modality_options: Mapping[str, Any] | None = None,
    channels: int | str | Sequence[str | int] | Sequence[Channel] | None = None,
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
    `simmat.foundation.PromptBatch`. `network(planes, content, prompts)` does both, which
    `torch.nn.parallel.DistributedDataParallel` needs: it synchronizes only the gradients of `forward`. Only the
    transfer layer and what the tuner trains require gradients.

    Args:
        foundation: name of the foundation model.
        modality: the sensor: a name, an adapter, or its class. It must declare its channels. None for planes of no
            sensor, whose number, or `simmat.Channel` objects, are then `channels`.
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
        statistics: mean, std and correlation of the channels, which the zero-shot map uses; None treats the channels as
            independent.
        registry: what is installed; None loads the plugins.

    Raises:
        SimMATError: a name, an option or the weight file is wrong.
    """
    known = registry or installed()
    if modality is None:
        name = "planes"
        planes = sensor_channels = _channels_without_sensor(channels, modality_options)
    else:
        sensor = _sensor(known, modality, modality_options, channels)
        name = sensor.name
        sensor_channels = sensor.channels
        planes = _transformed(sensor)
    file = None if checkpoint is None else Path(checkpoint)
    spec = known.foundation(foundation, fetch=True)
    layer = known.transfer_layer(mat or spec.mat)
    tuner = known.tuner(tune or spec.tune)
    size = image_size or spec.image_size
    check_image_size(spec, size)
    weights = None if from_scratch else find_weights(spec, file)
    if weights is not None and file is None:
        check_digest(spec, weights, sha256_of(weights))
    found = statistics or independent(len(planes))
    fitted = fit_channels(
        planes, found, pixel_mean=spec.pixel_mean, pixel_std=spec.pixel_std
    )
    model = ModelSpec(
        modality=name,
        sensor_channels=sensor_channels,
        channels=fitted,
        statistics=found,
        zero_shot=tuple(
            map(tuple, zero_shot_map(fitted, found, spec.pixel_std).tolist())
        ),
        foundation=spec.name,
        seed=seed,
        image_size=size,
        mat=layer.name,
        mat_options={
            **(spec.mat_options if mat is None else {}),
            **(mat_options or {}),
        },
        tune=tuner.name,
        tune_options=dict(tune_options or {}),
        card=DataCard(regions="instances"),
    )
    return assemble(model, Parts(spec, layer, tuner, weights))


def _channels_without_sensor(
    channels: object, options: Mapping[str, Any] | None
) -> tuple[Channel, ...]:
    """Return the channels of `build` without a modality."""
    if options:
        raise ConfigError(
            f"modality_options {dict(options)} belong to a sensor; give the modality, or leave them out"
        )
    if channels is None or isinstance(channels, str):
        raise ConfigError(
            f"without a modality, channels is the number of planes, or simmat.Channel objects, got {channels!r}"
        )
    return plain_channels(cast("int | Sequence[Channel]", channels))


def _sensor(
    known: Registry,
    modality: Modality,
    options: Mapping[str, Any] | None,
    channels: int | str | Sequence[str | int] | Sequence[Channel] | None,
) -> ModalityAdapter:
    """Return the sensor of `build`."""
    registry, name = known.with_modality(modality)
    if isinstance(channels, int):
        raise ConfigError(
            f'channels of a sensor are given by name or index, as "0-6" or [0, 1], got {channels}'
        )
    selected = parse_channels(channels) if isinstance(channels, str) else channels
    return registry.modality(
        name or "", options, channels=cast("Sequence[str | int] | None", selected)
    )


def _transformed(sensor: ModalityAdapter) -> tuple[Channel, ...]:
    """Return a sensor's channels as they reach the network.

    Raises:
        ConfigError: only its files say how many it has.
    """
    if not sensor.channels:
        raise ConfigError(
            f"modality {sensor.name!r} learns its channels from its files; give a sensor that declares them, or use "
            "simmat.MAT(channels), or build(channels=NUMBER) without a modality"
        )
    planes = np.zeros((len(sensor.channels), 1, 1), np.float32)
    return sensor.transform(SensorImage.from_planes(planes, sensor.channels)).channels
