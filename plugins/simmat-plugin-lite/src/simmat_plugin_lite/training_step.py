"""One training step's forward pass: an image is encoded once, a simulated user corrects, the last answer counts."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat_plugin_lite.clicks import correction
from simmat_plugin_lite.losses import to_size
from simmat_plugin_lite.model import LiteModel


def normalise(image: Tensor, content: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(B, S, S, 3) uint8 and (B, S, S) bool -> (B, 3, S, S) float, channels_last, zero outside the content."""
    x = image.float()
    x = (x - x.new_tensor(mean)) / x.new_tensor(std)
    return (x * content[..., None]).permute(0, 3, 1, 2)


def corrected(
    prompts: PromptBatch,
    prediction: MaskPrediction,
    region: Tensor,
    content: Tensor,
    rng: np.random.Generator,
    central: float,
) -> PromptBatch:
    """The prompts of the next round: one more click each, and the single mask fed back.

    Args:
        prompts: of this round, K of them.
        prediction: what was answered.
        region: (K, S, S) bool truth.
        content: (K, S, S) bool.
        rng: where to click.
        central: how often a click is at the deepest place of the error.
    """
    logits = prediction.logits[:, :1].detach()
    h, w = logits.shape[-2:]
    step = region.shape[-1] // w
    guess = (logits[:, 0] > 0).cpu().numpy()
    truth = to_size(region, h, w).cpu().numpy() > 0
    inside = to_size(content, h, w).cpu().numpy() > 0
    coords = np.zeros((len(guess), 1, 2), np.float32)
    labels = np.full((len(guess), 1), -1, np.int64)
    for k in range(len(guess)):
        click = correction(guess[k], truth[k], inside[k], rng, central)
        if click is not None:
            coords[k, 0] = np.array(click[:2]) * step + (step - 1) / 2
            labels[k, 0] = click[2]
    device = logits.device
    return PromptBatch(
        image_index=prompts.image_index,
        point_coords=torch.cat([prompts.point_coords, torch.from_numpy(coords).to(device)], 1),
        point_labels=torch.cat([prompts.point_labels, torch.from_numpy(labels).to(device)], 1),
        boxes=prompts.boxes,
        mask_input=logits,
    )


class TrainingStep(nn.Module):
    """A model and the way it is asked in training; its forward is what DDP needs to see."""

    def __init__(self, model: LiteModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, image: Tensor, batch: dict[str, Tensor], content: Tensor, rounds: int, rng: np.random.Generator
    ) -> tuple[MaskPrediction, Tensor]:
        """Encode, let `rounds` corrections pass without gradient, decode with gradient.

        Args:
            image: (B, 3, S, S) normalised.
            batch: as `RegionBatches.batch` gives it.
            content: (K, S, S) bool, of each prompt's image.
            rounds: 0 for the first prompt alone.
            rng: the simulated user.
        """
        embedding = self.model.backbone.encode(self.model.backbone.embed(image))
        prompts = PromptBatch(batch["image_index"], batch["point_coords"], batch["point_labels"], batch["boxes"])
        if rounds:
            still = ImageEmbedding(tuple(level.detach() for level in embedding.levels), embedding.strides)
            with torch.no_grad():
                for _ in range(rounds):
                    prediction = self.model.decoder.decode(still, prompts)
                    prompts = corrected(prompts, prediction, batch["region"], content, rng, 0.5)
            # Older versions of torch would use the casts of weights that autocast made here again, without gradient.
            torch.clear_autocast_cache()
        return self.model.decoder.decode_with_coarse(embedding, prompts)
