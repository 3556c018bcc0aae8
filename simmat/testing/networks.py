"""Tiny networks and batches that the checks train, the same every time."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from simmat.data.batches import DRAWS, Batch
from simmat.data.card import DataCard
from simmat.data.clicks import tight_box
from simmat.data.pipeline import Pipeline
from simmat.foundations.sam import SAM_VIT_TINY
from simmat.model import Parts, SimMAT, assemble
from simmat.model_spec import ModelSpec
from simmat.nn.losses import SAM2_LOSS
from simmat.nn.resize import resize_planes
from simmat.nn.tuners import set_train_mode
from simmat.plugins.builtin import TRANSFER_LAYERS, TUNERS
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.normalize import Statistics
from simmat.specs import FoundationSpec, TransferLayerSpec, TunerSpec, resolve
from simmat.training.step import TrainingStep
from simmat.types import BoolArray, Channel, SensorImage

SIZE = 64
"""Side of the tiny network's input, in pixels."""
CHANNELS = tuple(Channel(name, "counts", "count", mean=0.0, std=1.0) for name in ("one", "two"))
"""Two channels of a sensor that is not a camera."""
TRANSFER = {layer.name: layer for layer in TRANSFER_LAYERS}
TUNER = {tuner.name: tuner for tuner in TUNERS}


def tiny_step(channels: tuple[Channel, ...]) -> TrainingStep:
    """Return the paper's MAT for C channels before a tiny, frozen SAM, with the losses of training."""
    model = build_network(SAM_VIT_TINY, image_size=SIZE, channels=channels)
    step = TrainingStep(model, SAM2_LOSS, box_fraction=0.0, corrections=1)
    set_train_mode(step)
    return step


def apply_tuner(model: nn.Module, spec: FoundationSpec, tuner: TunerSpec) -> nn.Module:
    """Return a tuned copy of a foundation model; raise ConfigError where the tuner refuses it."""
    copied = copy.deepcopy(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    resolve(tuner.apply)(copied, targets=spec.targets, generator=generator, **tuner.options)
    return copied


def build_network(foundation: FoundationSpec, **values: Any) -> SimMAT:
    """Build a network, see `network_of`.

    Raises:
        ConfigError: an option is unknown or out of range, or the tuner refuses the model.
    """
    return assemble(*network_of(foundation, **values))


def network_of(
    foundation: FoundationSpec,
    *,
    image_size: int,
    channels: int | tuple[Channel, ...] = 3,
    transfer: str | TransferLayerSpec = "mat",
    tuner: str | TunerSpec = "frozen",
    weights: Path | None = None,
    **more: Any,
) -> tuple[ModelSpec, Parts]:
    """Return spec and parts of a network: a transfer layer before a foundation model, tuned.

    Args:
        foundation: the foundation model.
        image_size: S.
        channels: C, or the channels of the sensor, with mean and std.
        transfer: the transfer layer, or the name of a built-in one.
        tuner: the tuner, or the name of a built-in one.
        weights: the foundation model's weight file; None is random weights.
        more: further fields of `ModelSpec`: seed, zero_shot, mat_options, tune_options.
    """
    own = TRANSFER[transfer] if isinstance(transfer, str) else transfer
    tuned_by = TUNER[tuner] if isinstance(tuner, str) else tuner
    if isinstance(channels, int):
        channels = tuple(Channel(f"c{i}", "counts", "count", mean=0.0, std=1.0) for i in range(channels))
    count = len(channels)
    values: dict[str, Any] = {
        "modality": "made-up",
        "sensor_channels": channels,
        "channels": channels,
        "statistics": Statistics((0.0,) * count, (1.0,) * count, ((0.0,) * count,) * count, (1,) * count),
        "zero_shot": ((1 / count,) * count,) * 3,
        "foundation": foundation.name,
        "seed": 0,
        "image_size": image_size,
        "mat": own.name,
        "tune": tuned_by.name,
        "card": DataCard(regions="instances"),
    }
    return ModelSpec(**{**values, **more}), Parts(foundation, own, tuned_by, weights)


def batch_of(
    adapter: ModalityAdapter, channels: tuple[Channel, ...], image: SensorImage, region: BoolArray | None
) -> Batch:
    """Return one image as a training batch with one prompt, on a region or else on the middle of the image."""
    planes, content, frame = Pipeline(adapter, channels, SIZE)(image)
    if region is None or region.shape != image.size_hw:
        region = np.zeros(image.size_hw, dtype=np.bool_)
        height, width = image.size_hw
        region[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    mask = torch.from_numpy(region[None].astype(np.float32))  # (1, H, W)
    target = resize_planes(mask, torch.ones_like(mask, dtype=torch.bool), frame)[0] >= 0.5  # (S, S)
    rows, columns = torch.nonzero(target, as_tuple=True)
    middle = len(rows) // 2
    return Batch(
        planes=planes[None],
        content=content[None],
        targets=target[None, None],
        ignore=~content[None],
        clicks=torch.tensor([[[float(columns[middle]), float(rows[middle])]]]),
        boxes=torch.from_numpy(np.asarray(tight_box(target.numpy()), dtype=np.float32)).reshape(1, 1, 4),
        draws=torch.full((1, 1, DRAWS), 0.5),
        step_draw=torch.tensor([0.5]),
    )


def first_convolution(mat: nn.Module, channels: int) -> nn.Conv2d:
    """Return the convolution of a MAT over the sensor's channels."""
    return next(m for m in mat.modules() if isinstance(m, nn.Conv2d) and m.in_channels == channels)
