"""Images and prompts to ask a foundation model with; the same every time."""

from __future__ import annotations

import torch
from torch import Tensor

from simmat.foundation import FoundationModel, MaskPrediction, PromptBatch

_ORDER = (1, 0, 1)  # about two images, not in their order


def images(count: int, size: int) -> Tensor:
    """Return (count, 3, S, S) normalized noise; image i does not depend on how many follow."""
    return torch.stack([torch.randn(3, size, size, generator=torch.Generator().manual_seed(i)) for i in range(count)])


def answer(model: FoundationModel, pictures: Tensor, prompts: PromptBatch) -> MaskPrediction:
    """Ask a model, without gradient."""
    with torch.no_grad():
        return model.decoder.decode(model.backbone.encode(model.backbone.embed(pictures)), prompts)


def prompt_kinds(model: FoundationModel, size: int) -> dict[str, PromptBatch]:
    """Return K = 3 prompts about two images of every kind that training asks with: clicks, boxes, corrections."""
    click = PromptBatch(
        image_index=torch.tensor(_ORDER),
        point_coords=torch.tensor([[[0.3, 0.4]], [[0.6, 0.2]], [[0.5, 0.8]]]) * size,
        point_labels=torch.ones(3, 1, dtype=torch.int64),
    )
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.4, 0.1, 0.9, 0.5], [0.2, 0.5, 0.7, 0.9]]) * size
    box = PromptBatch(click.image_index, click.point_coords[:, :0], click.point_labels[:, :0], boxes)
    low = answer(model, images(2, size), click).logits[:, :1]
    corrected = PromptBatch(
        click.image_index,
        torch.cat([click.point_coords, size - click.point_coords], dim=1),
        torch.tensor([[1, 0], [1, 1], [1, -1]]),
        mask_input=low,
    )
    box_corrected = PromptBatch(click.image_index, click.point_coords, click.point_labels * 0, boxes, low)
    return {
        "a click": click,
        "a box": box,
        "two clicks and the answer before": corrected,
        "a box, a click and the answer before": box_corrected,
    }
