"""A class for every pixel and a centre for every object, from an image embedding; no prompt is needed.

The head goes from the coarsest level to the finest as a feature pyramid does (Lin et al. 2017, arXiv 1612.03144), and
answers at stride 4 or finer. Objects are found where the normalized distance to their border has a peak, as StarDist
(Schmidt et al. 2018, arXiv 1806.03535) and micro-sam (Archit et al. 2025) learn distances instead of masks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import ImageEmbedding
from simmat.nn.resize import upsample_logits
from simmat.types import BoolArray, FloatArray

COARSEST_ANSWER = 4
"""Stride of the answer in input pixels, at most."""
WIDTHS = {8: 128, 4: 64, 0: 32}
"""Smallest stride -> channels from there on: what a thing is takes more of them than where its border is."""
GAIN = 5.0
"""Logits are multiplied by it, so that they reach their size in tens of steps at the learning rate of the rest."""
OBJECTS = 0.1
"""Probability of objects, and distance, that a new head answers everywhere, as RetinaNet starts (arXiv 1708.02002)."""


@dataclass(frozen=True)
class DenseAnswer:
    """What the head says of B images.

    Attributes:
        classes: (B, K, h, w) class logits over the whole S×S input.
        distance: (B, 1, h, w) logits of the distance to the border of an object, 1 at its middle, 0 outside of objects.
    """

    classes: Tensor
    distance: Tensor


class DenseHead(nn.Module):
    """Class logits and distances from the levels of an embedding.

    Attributes:
        widths: channels of each level, finest first.
        strides: of the levels in input pixels.
    """

    def __init__(
        self,
        widths: Sequence[int],
        strides: Sequence[float],
        classes: int,
        *,
        background: bool,
        generator: torch.Generator,
    ) -> None:
        """Make a head with random weights.

        Args:
            widths: channels of each level, finest first.
            strides: of the levels in input pixels.
            classes: K, the background among them.
            background: whether index 0 is no object.
            generator: of the random weights.
        """
        super().__init__()
        self.widths, self.strides = tuple(widths), tuple(float(stride) for stride in strides)
        finer = max(math.ceil(math.log2(strides[0] / COARSEST_ANSWER)), 0)
        steps = [strides[0] / 2**step for step in range(finer, 0, -1)] + list(strides)  # finest first
        channels = [next(width for least, width in WIDTHS.items() if stride >= least) for stride in steps]
        self.finer = finer
        self.lateral = nn.ModuleList(
            nn.Conv2d(width, out, 1) for width, out in zip(widths, channels[finer:], strict=True)
        )
        self.narrow = nn.ModuleList(
            nn.Identity() if own == above else nn.Conv2d(above, own, 1)
            for own, above in zip(channels, [*channels[1:], channels[-1]], strict=True)
        )
        self.mix = nn.ModuleList(nn.Sequential(_mix(own), _mix(own)) for own in channels)
        self.classes = nn.Conv2d(channels[0], classes, 1)
        self.distance = nn.Conv2d(channels[0], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for last in (self.classes, self.distance):
            nn.init.normal_(last.weight, std=0.01, generator=generator)
        odds = math.log((1 - OBJECTS) / OBJECTS)
        nn.init.constant_(_bias(self.distance), -odds / GAIN)
        if background:
            nn.init.constant_(_bias(self.classes)[:1], (odds + math.log(max(classes - 1, 1))) / GAIN)

    def forward(self, embedding: ImageEmbedding) -> DenseAnswer:
        """Answer for every image of an embedding."""
        x: Tensor | None = None
        for place in range(len(self.mix) - 1, -1, -1):
            level = place - self.finer
            own = self.lateral[level](embedding.levels[level]) if level >= 0 else None
            if x is not None:
                x = self.narrow[place](x)
                if own is None:
                    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
                else:
                    x = own + F.interpolate(x, own.shape[-2:], mode="bilinear", align_corners=False)
            else:
                x = own
            x = self.mix[place](x)
        return DenseAnswer(GAIN * self.classes(x).float(), GAIN * self.distance(x).float())


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _mix(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.GroupNorm(8, channels),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.GroupNorm(8, channels),
        nn.GELU(),
    )


class DenseLoss(NamedTuple):
    """Losses of a dense head over the pixels that have a truth.

    Attributes:
        total: scalar with gradient: cross-entropy, dice and distance.
        means: the three, detached.
    """

    total: Tensor
    means: dict[str, Tensor]


def dense_loss(answer: DenseAnswer, classes: Tensor, distance: Tensor) -> DenseLoss:
    """Compare an answer with the truth, on the grid of the truth.

    The loss is the mean of those of the images, so that a batch means the same however processes share it.

    Args:
        answer: of B images.
        classes: (B, S, S) int64 indices; -1 where there is no truth.
        distance: (B, S, S) float32 in 0..1.
    """
    with torch.autocast(classes.device.type, enabled=False):
        size = classes.shape[-2:]
        logits = upsample_logits(answer.classes.float(), (size[0], size[1]))  # (B, K, S, S)
        scored = (classes >= 0).float()  # (B, S, S)
        pixels = scored.sum((1, 2)).clamp(min=1)  # (B,)
        entropy = F.cross_entropy(logits, classes, ignore_index=-1, reduction="none").sum((1, 2)) / pixels
        chance = logits.softmax(1) * scored[:, None]
        truth = F.one_hot(classes.clamp(min=0), logits.shape[1]).movedim(-1, 1).float() * scored[:, None]
        shared, both = (chance * truth).sum((2, 3)), (chance + truth).sum((2, 3))  # (B, K)
        present = (truth.sum((2, 3)) > 0).float()  # (B, K)
        dice = ((1 - (2 * shared + 1) / (both + 1)) * present).sum(1) / present.sum(1).clamp(min=1)
        far = upsample_logits(answer.distance.float(), (size[0], size[1]))[:, 0]
        apart = (F.binary_cross_entropy_with_logits(far, distance, reduction="none") * scored).sum((1, 2)) / pixels
    parts = {"classes": entropy.mean(), "class_dice": dice.mean(), "distance": apart.mean()}
    total = parts["classes"] + parts["class_dice"] + parts["distance"]
    return DenseLoss(total, {name: part.detach() for name, part in parts.items()})


def classes_of(
    masks: BoolArray, chances: Tensor, background: bool
) -> tuple[npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Return what a class map says of each object.

    Args:
        masks: (N, h, w), none of them empty, over the whole S×S input.
        chances: (K, h', w') probabilities over the same input.
        background: whether class 0 of the map is not one of objects.

    Returns:
        (N,) index of the most likely class of objects, (N,) its probability among these classes, and (N,) probability
        of being an object at all.
    """
    inside = torch.from_numpy(masks).flatten(1).to(chances)  # (N, h·w)
    grid = upsample_logits(chances[None], masks.shape[1:])[0].flatten(1)  # (K, h·w)
    mean = inside @ grid.T / inside.sum(1, keepdim=True)  # (N, K)
    first = int(background)
    found, index = mean[:, first:].max(1)
    objectness = mean[:, first:].sum(1).clamp(1e-6, 1.0)
    numbers = [part.float().cpu().numpy() for part in (found / objectness, objectness)]
    return (index + first).cpu().numpy(), numbers[0], numbers[1]
