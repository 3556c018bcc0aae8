"""Scores on the validation split while pretraining: quick, in the model's own frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from simmat.data.clicks import center_click, tight_box
from simmat.foundation import PromptBatch
from simmat_plugin_lite.losses import to_size, true_iou
from simmat_plugin_lite.model import LiteModel
from simmat_plugin_lite.regions import Photo, region_values
from simmat_plugin_lite.training_step import corrected, normalise


@dataclass
class ValidationPhoto:
    """One photograph in the frame and its largest objects.

    image (1, S, S, 3) uint8; content (1, S, S) bool; regions (K, S, S) bool; clicks (K, 1, 2) and
    boxes (K, 4) float32 in input pixels.
    """

    image: Tensor
    content: Tensor
    regions: Tensor
    clicks: Tensor
    boxes: Tensor


def validation_photo(photo: Photo, size: int, most: int = 4, smallest_px: int = 100) -> ValidationPhoto | None:
    """Letterbox a photograph and choose its largest objects; None where it has none."""
    h, w = photo.image.shape[:2]
    scale = size / max(h, w)
    size_wh = (round(w * scale), round(h * scale))
    small = np.asarray(Image.fromarray(photo.image).resize(size_wh, Image.Resampling.BILINEAR))
    label = np.asarray(Image.fromarray(photo.masks[0]).resize(size_wh, Image.Resampling.NEAREST))
    values, areas = region_values(label, smallest_px, photo.zero_is_region)
    chosen = values[np.argsort(-areas, kind="stable")][:most]
    masks = [label == value for value in chosen]
    if photo.parts_of_one and masks:
        masks.append(label > 0)
    if not masks:
        return None
    image = np.zeros((1, size, size, 3), np.uint8)
    content = np.zeros((1, size, size), bool)
    regions = np.zeros((len(masks), size, size), bool)
    image[0, : size_wh[1], : size_wh[0]] = small
    content[0, : size_wh[1], : size_wh[0]] = True
    regions[:, : size_wh[1], : size_wh[0]] = np.stack(masks)
    return ValidationPhoto(
        torch.from_numpy(image),
        torch.from_numpy(content),
        torch.from_numpy(regions),
        torch.tensor([[center_click(region)] for region in regions]),
        torch.from_numpy(np.stack([tight_box(region) for region in regions])),
    )


@torch.no_grad()
def validate(
    model: LiteModel,
    photos: list[ValidationPhoto],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
) -> dict[str, float]:
    """Mean IoU over objects: one click (single, best-predicted and oracle mask), three clicks, box."""
    model.eval()
    scores: dict[str, list[Tensor]] = {}
    for photo in photos:
        content = photo.content.to(device)
        embedding = model.backbone.encode(model.backbone.embed(normalise(photo.image.to(device), content, mean, std)))
        regions = photo.regions.to(device)
        k = len(regions)
        index = torch.zeros(k, dtype=torch.long, device=device)
        inside = content.expand(k, -1, -1)
        labels = torch.ones((k, 1), dtype=torch.long, device=device)
        prompts = PromptBatch(index, photo.clicks.to(device), labels)
        rng = np.random.default_rng(0)
        for click in (1, 2, 3):
            prediction = model.decoder.decode(embedding, prompts)
            h, w = prediction.logits.shape[-2:]
            target, seen = to_size(regions, h, w), to_size(inside, h, w)
            iou = true_iou(prediction.logits, target, seen)
            if click == 1:
                best = prediction.iou.argmax(1, keepdim=True)
                scores.setdefault("click1_best", []).append(iou.gather(1, best)[:, 0])
                scores.setdefault("click1_oracle", []).append(iou.amax(1))
            scores.setdefault(f"click{click}", []).append(iou[:, 0])
            prompts = corrected(prompts, prediction, regions, inside, rng, 1.0)
        none = PromptBatch(index, photo.clicks.new_zeros((k, 0, 2)).to(device), labels[:, :0], photo.boxes.to(device))
        boxed = model.decoder.decode(embedding, none)
        scores.setdefault("box", []).append(true_iou(boxed.logits, target, seen)[:, 0])
    return {name: round(float(torch.cat(parts).float().mean()), 4) for name, parts in scores.items()}
