"""Prepare images and prompts for a network, in the same way for training, evaluation and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from simmat.foundation import PromptBatch
from simmat.nn.resize import content_mask, resize_planes
from simmat.sensors.adapter import ModalityAdapter
from simmat.sensors.normalize import normalize
from simmat.types import Aspect, Channel, Frame, Prompt, SensorImage


class PreparedImage(NamedTuple):
    """An image ready for a network.

    Attributes:
        planes: (C, S, S) float32, normalized; invalid and padded pixels are exactly 0.
        content: (S, S) bool, False where there is only padding.
        frame: position of the original image in the input.
    """

    planes: Tensor
    content: Tensor
    frame: Frame


@dataclass(frozen=True)
class Pipeline:
    """Transform, normalize, resize and pad a loaded image.

    Attributes:
        adapter: the sensor.
        channels: C fitted channels (with mean and std).
        size: S, the side of the input in pixels.
        aspect: how an image is fitted into the square, see `Frame`.
    """

    adapter: ModalityAdapter
    channels: tuple[Channel, ...]
    size: int
    aspect: Aspect = "keep"

    def __call__(self, image: SensorImage) -> PreparedImage:
        """Prepare an image in physical units; raise SpecError if its channels are not those of the pipeline."""
        seen = self.adapter.transform(image)
        frame = Frame(seen.size_hw, self.size, self.aspect)
        planes = torch.from_numpy(normalize(seen, self.channels))
        return PreparedImage(resize_planes(planes, torch.from_numpy(seen.valid), frame), content_mask(frame), frame)


def prompt_batch(prompts: Sequence[Prompt], frame: Frame, device: torch.device) -> PromptBatch:
    """Convert K prompts of one image, all with as many points and the same fields, to pixels of the input."""
    coords = np.stack([frame.points_to_input(prompt.point_coords) for prompt in prompts])  # (K, N, 2)
    labels = np.stack([prompt.point_labels for prompt in prompts])  # (K, N)
    boxes = None
    if prompts[0].box is not None:
        corners = np.stack([prompt.box for prompt in prompts if prompt.box is not None])
        boxes = torch.from_numpy(frame.boxes_to_input(corners)).to(device)
    masks = None
    if prompts[0].mask_input is not None:
        logits = np.stack([p.mask_input for p in prompts if p.mask_input is not None], dtype=np.float32)
        masks = torch.from_numpy(logits[:, None]).to(device)  # (K, 1, h, w)
    return PromptBatch(
        image_index=torch.zeros(len(prompts), dtype=torch.int64, device=device),
        point_coords=torch.from_numpy(coords).to(device),
        point_labels=torch.from_numpy(labels).to(device),
        boxes=boxes,
        mask_input=masks,
    )
