"""Networks, images and prompts that the checks train and ask; tiny, and the same every time."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn

from simmat.builtin.sam import SAM_VIT_TINY
from simmat.builtin.transfer import TRANSFER_LAYERS
from simmat.builtin.tuners import TUNERS
from simmat.data.batches import DRAWS, Batch
from simmat.data.clicks import tight_box
from simmat.data.pipeline import Pipeline
from simmat.foundation import FoundationSpec, resolve
from simmat.modality import ModalityAdapter
from simmat.model import ModelPlan, SimMAT, assemble
from simmat.nn.losses import SAM2_LOSS
from simmat.nn.resize import resize_planes
from simmat.nn.tuners import set_train_mode
from simmat.testing.models import FoundationCase
from simmat.training.step import Asking, TrainingStep
from simmat.transfer import TunerSpec
from simmat.types import BoolArray, Channel, SensorImage

SIZE = 64
"""Side of the tiny network's input, in pixels."""
CHANNELS = tuple(Channel(name, "counts", "count", mean=0.0, std=1.0) for name in ("one", "two"))
"""Two channels of a sensor that is no camera."""
TRANSFER = {layer.name: layer for layer in TRANSFER_LAYERS}
TUNER = {tuner.name: tuner for tuner in TUNERS}


def tiny_step(channels: tuple[Channel, ...]) -> TrainingStep:
    """Return the paper's MAT for C channels before a tiny, frozen SAM, with the losses of training."""
    model = assemble(plan(SAM_VIT_TINY, TUNER["frozen"], image_size=SIZE, channels=channels))
    step = TrainingStep(model, SAM2_LOSS, Asking(box_fraction=0.0, corrections=1))
    set_train_mode(step)
    return step


def tuned(case: FoundationCase, tuner: TunerSpec) -> SimMAT:
    """Return the paper's MAT before the model of a case, tuned; raises ConfigError where the tuner refuses it."""
    return assemble(plan(case.spec, tuner, image_size=case.image_size, channels=CHANNELS))


def apply_tuner(model: nn.Module, spec: FoundationSpec, tuner: TunerSpec) -> nn.Module:
    """Return a copy of a foundation model, tuned; raises ConfigError where the tuner refuses it."""
    copied = copy.deepcopy(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    resolve(tuner.apply)(copied, targets=spec.targets, generator=generator, **tuner.options)
    return copied


def plan(spec: FoundationSpec, tuner: TunerSpec, *, image_size: int, channels: tuple[Channel, ...]) -> ModelPlan:
    """Return the plan of a network with random weights."""
    zero_shot = np.full((3, len(channels)), 1 / len(channels), dtype=np.float32)
    return ModelPlan(
        foundation=spec,
        transfer=TRANSFER["mat"],
        tuner=tuner,
        channels=channels,
        zero_shot=zero_shot,
        image_size=image_size,
        weights=None,
        seed=0,
    )


def batch_of(
    adapter: ModalityAdapter, channels: tuple[Channel, ...], image: SensorImage, region: BoolArray | None
) -> Batch:
    """Return one image as a training batch that asks about one region; without one, about the middle of the image."""
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
    """Return the convolution of a MAT that sees the sensor's channels."""
    return next(m for m in mat.modules() if isinstance(m, nn.Conv2d) and m.in_channels == channels)
