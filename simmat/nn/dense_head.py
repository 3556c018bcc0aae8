"""A class for every pixel and a centre for every object, from an image embedding; no prompt is needed.

The head is a feature pyramid (Lin et al. 2017, arXiv 1612.03144), from the coarsest level to the finest; its output has
stride 4 or less. Objects are found at the peaks of the normalized distance to their border. StarDist (Schmidt et al.
2018, arXiv 1806.03535) and micro-sam (Archit et al. 2025) learn distances instead of masks, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.foundation import ImageEmbedding
from simmat.types import BoolArray, FloatArray

COARSEST_ANSWER = 4
"""Largest stride of the output in input pixels."""
WIDTHS = {8: 128, 4: 64, 0: 32}
"""Smallest stride -> channels of levels of at least that stride: a class needs more channels than a border."""
GAIN = 5.0
"""Factor of the logits, so that they grow in tens of steps at the learning rate of the other layers."""
OBJECTS = 0.1
"""Probability of objects, and distance, that a new head predicts everywhere, as in RetinaNet (arXiv 1708.02002)."""


def _width_at(stride: float) -> int:
    """Return the number of channels of a level."""
    for min_stride, width in WIDTHS.items():
        if stride >= min_stride:
            return width
    raise ValueError(f"stride is {stride}, must be positive")


@dataclass(frozen=True)
class DenseAnswer:
    """Output of the head for B images.

    Attributes:
        class_logits: (B, K, h, w) class logits over the whole S×S input.
        distance: (B, 1, h, w) logits of the distance to the border of an object, 1 at its middle, 0 outside of objects.
    """

    class_logits: Tensor
    distance: Tensor


class DenseHead(nn.Module):
    """Predicts class logits and distances from the levels of an embedding.

    Attributes:
        widths: channels of each level, finest first.
        strides: stride of each level in input pixels.
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
            strides: stride of each level in input pixels.
            classes: K, including the background.
            background: True if index 0 is background.
        """
        super().__init__()
        self.widths = tuple(widths)
        self.strides = tuple(float(stride) for stride in strides)
        finer = max(math.ceil(math.log2(strides[0] / COARSEST_ANSWER)), 0)
        # finest first
        steps = [strides[0] / 2**step for step in range(finer, 0, -1)] + list(strides)
        channels = []
        for stride in steps:
            channels.append(_width_at(stride))
        self.finer = finer
        self.lateral = nn.ModuleList(
            nn.Conv2d(width, out, 1)
            for width, out in zip(widths, channels[finer:], strict=True)
        )
        self.narrow = nn.ModuleList()
        for width, coarser in zip(channels, [*channels[1:], channels[-1]], strict=True):
            if width == coarser:
                self.narrow.append(nn.Identity())
            else:
                self.narrow.append(nn.Conv2d(coarser, width, 1))
        self.mix = nn.ModuleList(
            nn.Sequential(_mix(width), _mix(width)) for width in channels
        )
        self.classes = nn.Conv2d(channels[0], classes, 1)
        self.distance = nn.Conv2d(channels[0], 1, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(
                    module.weight, nonlinearity="relu", generator=generator
                )
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.classes, self.distance):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
        log_odds = math.log((1 - OBJECTS) / OBJECTS)
        nn.init.constant_(_bias(self.distance), -log_odds / GAIN)
        if background:
            nn.init.constant_(
                _bias(self.classes)[:1],
                (log_odds + math.log(max(classes - 1, 1))) / GAIN,
            )

    def forward(self, embedding: ImageEmbedding) -> DenseAnswer:
        """Predict for every image of an embedding, from as many of its levels as the head has, the coarsest ones."""
        levels = embedding.levels[-len(self.widths) :]
        x: Tensor | None = None
        for index in range(len(self.mix) - 1, -1, -1):
            level = index - self.finer
            lateral = self.lateral[level](levels[level]) if level >= 0 else None
            if x is not None:
                x = self.narrow[index](x)
                if lateral is None:
                    x = F.interpolate(
                        x, scale_factor=2.0, mode="bilinear", align_corners=False
                    )
                else:
                    x = lateral + F.interpolate(
                        x, lateral.shape[-2:], mode="bilinear", align_corners=False
                    )
            else:
                x = lateral
            x = self.mix[index](x)
        return DenseAnswer(
            GAIN * self.classes(x).float(), GAIN * self.distance(x).float()
        )


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


def classes_of(
    masks: BoolArray, probabilities: Tensor, background: bool
) -> tuple[FloatArray, FloatArray]:
    """Return the classes of each object by a class map.

    Args:
        masks: (N, h, w), none of them empty, over the whole S×S input.
        probabilities: (K, h', w') class probabilities over the same input.
        background: True if class 0 of the map is background.

    Returns:
        (N, C) probabilities of the classes of objects, and the (N,) probability of being an object at all.
    """
    inside = torch.from_numpy(masks).flatten(1).to(probabilities)  # (N, h·w)
    # (K, h·w)
    grid = upsample_logits(probabilities[None], masks.shape[1:])[0].flatten(1)
    mean = inside @ grid.T / inside.sum(1, keepdim=True)  # (N, K)
    classes = mean[:, int(background) :]
    objectness = classes.sum(1).clamp(1e-6, 1.0)
    return (
        classes / objectness[:, None]
    ).float().cpu().numpy(), objectness.float().cpu().numpy()


def upsample_logits(logits: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Resize logits (K, M, h, w) to (K, M, *size_hw), bilinear, without aligned corners."""
    if tuple(logits.shape[-2:]) == tuple(size_hw):
        return logits
    return F.interpolate(logits, size_hw, mode="bilinear", align_corners=False)
