"""The teacher's embeddings as targets of the student's, where the two have the same shape."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from simmat.assemble import build_foundation, embedding_layout
from simmat.bundle import read_bundle_spec, read_bundle_specs
from simmat.config import TrainConfig
from simmat.errors import ConfigError, DataError
from simmat.foundation import FoundationModel, ImageEmbedding
from simmat.io.files import atomic_write_bytes, atomic_write_json
from simmat.io.reading import read_json
from simmat.nn.losses import Batch, Loss, Outputs
from simmat.nn.tensor_files import read_safetensors
from simmat.plugin_specs import FoundationSpec
from simmat.plugins.loader import installed
from simmat.plugins.registry import Registry, import_from_string
from simmat.predictor import Predictor

NAME = "teacher-embeddings"
"""Name of the loss."""
LEVEL = "level{}"
EMBEDDINGS = "embeddings"
"""Folder of the teacher's embeddings, beside its masks."""
MATCHING = "matching.json"
"""What a resumed run needs to know, beside the embeddings."""


def write_embedding(path: Path, embedding: ImageEmbedding) -> None:
    """Write the embedding of one image in fp16, level by level."""
    levels = {
        LEVEL.format(index): level[0].half().cpu().contiguous()
        for index, level in enumerate(embedding.levels)
    }
    atomic_write_bytes(path, save(levels))


@dataclass(frozen=True)
class TeacherEmbeddings(Loss):
    """Mean squared error of each level, as a share of the variance of the teacher's: 1 for a constant.

    Attributes:
        folder: has NAME.safetensors of each sample.
        masks: the name of the loss that is added; "" for none, which decodes no prompts.
        shift: how far the images of a pair may be shifted, as a share of their longer side. Of the shifts by whole
            positions of a level, that with the smallest error counts.
    """

    folder: Path
    masks: str = ""
    shift: float = 0.0
    whole_images: ClassVar[bool] = True

    def save(self) -> None:
        """Write beside the folder what `saved_loss` reads."""
        atomic_write_json(
            self.folder.parent / MATCHING, {"masks": self.masks, "shift": self.shift}
        )

    @cached_property
    def added(self) -> Loss | None:
        """The loss that is added."""
        if not self.masks:
            return None
        loss: Loss = import_from_string(installed().loss(self.masks).build)(
            self.folder.parent
        )
        return loss

    def item(self, sample_id: str) -> Tensor:
        """Return (N,) float16, all levels of the teacher's embedding."""
        name = sample_id.partition("/")[2]  # ids of `write_masks` are SPLIT/NAME
        levels = read_safetensors(self.folder / f"{name}.safetensors", error=DataError)
        return torch.cat(
            [levels[LEVEL.format(index)].flatten() for index in range(len(levels))]
        )

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean over the images, as "embedding", and the terms of the loss that is added."""
        matched = self.of_images(outputs.embedding, batch.extra, batch.content).mean()
        terms = {} if self.added is None else self.added(outputs, batch)
        return {
            **terms,
            "loss": matched + terms.get("loss", 0.0),
            "embedding": matched.detach(),
        }

    def of_images(
        self, embedding: ImageEmbedding, targets: Tensor, content: Tensor
    ) -> Tensor:
        """Return the (B,) means over the levels, by (B, N) targets; `content` is False in the padding."""
        parts = torch.split(
            targets, [level[0].numel() for level in embedding.levels], dim=1
        )
        errors = []
        for level, part, stride in zip(
            embedding.levels, parts, embedding.strides, strict=True
        ):
            # (B, 1, h, w)
            inside = (
                F.interpolate(content[:, None].float(), level.shape[2:], mode="area")
                > 0.5
            )
            wanted = part.reshape(level.shape).to(level.device, torch.float32)
            reach = math.ceil(self.shift * content.shape[1] / stride)
            errors.append(relative_error(level.float(), wanted, inside, reach))
        return torch.stack(errors).mean(0)


def saved_loss(data: Path) -> Loss:
    """Return the loss that `TeacherEmbeddings.save` wrote to a data set; ConfigError if there is none."""
    path = data / MATCHING
    if not path.is_file():
        raise ConfigError(
            f"--loss {NAME}: {data} has no embeddings of a teacher ({path}); `simmat distill --match embeddings` makes "
            "them"
        )
    known = read_json(path, "how embeddings are matched")
    return TeacherEmbeddings(
        data / EMBEDDINGS, known["masks"] or "", float(known["shift"])
    )


def student_of(config: TrainConfig, registry: Registry) -> tuple[FoundationSpec, int]:
    """Return the student's foundation model, and the side of its input."""
    if config.init is not None:
        sensors = (
            read_bundle_specs(config.init)
            if config.new_sensor
            else {"": read_bundle_spec(config.init)}
        )
        start = next(iter(sensors.values()))
        return registry.foundation(start.foundation, fetch=True), start.image_size
    spec = registry.foundation(
        config.foundation or registry.default_foundation(), fetch=True
    )
    return spec, config.image_size or spec.image_size


def shapes_differ(teacher: Predictor, config: TrainConfig, registry: Registry) -> str:
    """Return in which way the student's embeddings cannot be compared with the teacher's; "" if they can."""
    spec, size = student_of(config, registry)
    seen = teacher.pipeline
    if (seen.size, seen.aspect) != (size, config.aspect):
        return f"the teacher's input is of {seen.size} px ({seen.aspect}), the student's of {size} px ({config.aspect})"
    models = (
        teacher.model.foundation,
        build_foundation(spec, image_size=size, weights=None, seed=0),
    )
    theirs, own = (
        [
            tuple(level.shape[1:])
            for level in embedding_layout(cast(FoundationModel, model), size).levels
        ]
        for model in models
    )
    return (
        ""
        if theirs == own
        else f"the teacher's embeddings are {theirs}, the student's {own}"
    )


def relative_error(level: Tensor, wanted: Tensor, inside: Tensor, reach: int) -> Tensor:
    """Return the squared error as a share of the target's variance, the least over shifts.

    Args:
        level: (B, D, h, w).
        wanted: (B, D, h, w).
        inside: (B, 1, h, w) bool, False in the padding.
        reach: largest shift along each axis, at most as much as leaves a position; so many positions at each border,
            and beside the padding, are left out.

    Returns:
        (B,).
    """
    reach = min(reach, (min(level.shape[2:]) - 1) // 2)
    height, width = level.shape[2] - 2 * reach, level.shape[3] - 2 * reach
    own = level[:, :, reach : reach + height, reach : reach + width]
    # (B, 1, height, width)
    seen = 1 - F.max_pool2d(1 - inside.float(), 2 * reach + 1, stride=1)
    shifts = list(itertools.product(range(2 * reach + 1), repeat=2))

    def moved(dy: int, dx: int) -> Tensor:
        return wanted[:, :, dy : dy + height, dx : dx + width]

    def error(target: Tensor) -> Tensor:
        return ((own - target) ** 2 * seen).sum((1, 2, 3))

    with torch.no_grad():  # the backward pass needs one shift of each image, not all
        best = (
            torch.stack([error(moved(*shift)) for shift in shifts]).argmin(0).tolist()
        )
    fitting = torch.stack(
        [moved(*shifts[number])[image] for image, number in enumerate(best)]
    )
    size = inside.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (wanted * inside).sum((2, 3), keepdim=True) / size  # (B, D, 1, 1)
    variance = (
        ((wanted - mean) ** 2 * inside).sum((1, 2, 3))
        * seen.sum((1, 2, 3))
        / size[:, 0, 0, 0]
    )
    return error(fitting) / variance.clamp(min=1e-6)
