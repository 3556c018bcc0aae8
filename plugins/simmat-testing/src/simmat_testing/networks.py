"""Networks that the checks train: random, small where the check does not bring the model, the same every time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from simmat_plugin_baselines import TUNERS as OTHER_TUNERS
from torch import Tensor

from simmat.assemble import Parts, assemble
from simmat.data.card import DataCard
from simmat.foundation import PromptBatch
from simmat.model import SimMAT
from simmat.model_spec import ModelSpec
from simmat.nn.losses import mask_loss
from simmat.nn.tuners import set_train_mode
from simmat.plugin_specs import FoundationSpec, TransferLayerSpec, TunerSpec
from simmat.plugins.builtin import TRANSFER_LAYERS, TUNERS
from simmat.sensors.normalize import Statistics
from simmat.types import Channel

TRANSFER = {layer.name: layer for layer in TRANSFER_LAYERS}
TUNER = {tuner.name: tuner for tuner in (*TUNERS, *OTHER_TUNERS)}


def build_network(
    foundation: FoundationSpec,
    *,
    image_size: int,
    channels: int | tuple[Channel, ...] = 3,
    transfer: str | TransferLayerSpec = "mat",
    tuner: str | TunerSpec = "frozen",
    weights: Path | None = None,
    **more: Any,
) -> SimMAT:
    """Build a network: a transfer layer before a foundation model, tuned.

    Args:
        image_size: S.
        channels: C, or the channels of the sensor, with mean and std.
        transfer: the transfer layer, or the name of a built-in one.
        tuner: the tuner, or the name of a built-in one or one of simmat-plugin-baselines.
        more: further fields of `ModelSpec`: seed, zero_shot, mat_options, tune_options.

    Raises:
        ConfigError: an option is unknown or out of range, or the tuner refuses the model.
    """
    if isinstance(transfer, str):
        transfer = TRANSFER[transfer]
    if isinstance(tuner, str):
        tuner = TUNER[tuner]
    if isinstance(channels, int):
        channels = tuple(
            Channel(f"c{i}", "counts", "count", mean=0.0, std=1.0)
            for i in range(channels)
        )
    count = len(channels)
    values: dict[str, Any] = {
        "modality": "made-up",
        "sensor_channels": channels,
        "channels": channels,
        "statistics": Statistics(
            (0.0,) * count, (1.0,) * count, ((0.0,) * count,) * count, (1,) * count
        ),
        "zero_shot": ((1 / count,) * count,) * 3,
        "foundation": foundation.name,
        "seed": 0,
        "image_size": image_size,
        "mat": transfer.name,
        "tune": tuner.name,
        "card": DataCard(regions="instances"),
    }
    return assemble(
        ModelSpec(**{**values, **more}), Parts(foundation, transfer, tuner, weights)
    )


def backpropagate(
    network: SimMAT, planes: Tensor, content: Tensor, prompts: Iterable[PromptBatch]
) -> Tensor:
    """Compute the gradients of batches of prompts whose object is a square of the input; return the loss, a scalar.

    `planes` are (B, C, S, S), `content` (B, S, S).
    """
    set_train_mode(network)
    side = planes.shape[-1]
    target = torch.zeros(1, side, side, dtype=torch.bool)
    target[:, side // 4 : side // 2, side // 4 : side // 2] = True
    answers = [
        (network(planes, content, batch), target.repeat(len(batch.image_index), 1, 1))
        for batch in prompts
    ]
    loss = torch.stack([mask_loss(*each)[0].sum() for each in answers]).sum()
    if loss.requires_grad:
        torch.autograd.backward(loss)
    return loss
