"""What a training minimises: losses of mask logits, of the IoU that a decoder predicts for them, and of a dense head.

Every prompt has one true region and M predicted masks. Mask 0, the single mask, is always trained. Masks 1 to M - 1 are
alternatives for an ambiguous prompt: the best gets nearly all the weight and the others share the rest, so that every
mask token gets a gradient (relaxed winner-takes-all, Rupprecht et al. 2017, arXiv 1612.00197). The predicted IoU of
every mask is trained on the true one (SAM, arXiv 2304.02643; SAM 2, arXiv 2408.00714).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from simmat.errors import ConfigError
from simmat.foundation import ImageEmbedding, MaskPrediction
from simmat.nn.dense_head import DenseAnswer, upsample_logits

PixelLoss = Callable[[Tensor, Tensor], Tensor]
"""Loss of each pixel, called as `loss(error, wrong)`: (K, M, H·W) float32 logits, above 0 where the mask is wrong, and
the probability of the wrong class, their sigmoid; gives (K, M, H·W)."""

MaskLoss = Callable[[MaskPrediction, Tensor, Tensor], Tensor]
"""Loss of K prompts, called as `loss(prediction, targets, ignore)` with what `mask_loss` takes; gives (K,)."""

FOCAL_ALPHA = 0.25
"""Weight of object pixels in the focal loss, and 1 - alpha of the others (RetinaNet, arXiv 1708.02002; SAM)."""
FOCAL_GAMMA = 2.0
"""Exponent of the focal loss, from the same source."""
LOSER_SHARE = 0.05
"""Epsilon of the relaxed winner-takes-all: total weight of the alternatives that are not best."""
DENSE_WEIGHT = 3.0
"""Of the loss of the dense head, beside 1 for that of the prompts: unlike the decoder it starts from random weights."""
OWN_TERM = "masks"
"""Term of a loss that is a function, where the function has no name of its own for it."""
TAKEN_TERMS = frozenset(
    {"loss", "classes", "class_dice", "distance", "kind", "step", "lr"}
)
"""Names in the log that mean something else."""
MAX_ELEMENTS = 2**23
"""Upsampled logits per group of prompts; with several groups, the backward pass recomputes them."""


class Batch(NamedTuple):
    """B images with P prompts each; coordinates are pixels of the S×S input.

    Attributes:
        planes: (B, C, S, S) float32.
        content: (B, S, S) bool, False in the padding.
        targets: (B, P, S, S) bool, the region of each prompt.
        ignore: (B, S, S) bool, pixels left out of loss and IoU, padding included.
        clicks: (B, P, 2) float32 xy, on a pixel of the region that is not ignored.
        boxes: (B, P, 4) float32 XYXY, jittered.
        draws: (B, P, R) float32 in [0, 1), for other random choices per prompt.
        step_draw: (B,) float32 in [0, 1), the same for all items of one optimiser step.
        class_targets: (B, S, S) int64, see `dense_targets`; (B, 0) without a dense head.
        distance: (B, S, S) float32, likewise.
        extra: (B, …) of `Loss.item`: what the loss needs besides these; (B, 0) if nothing.
    """

    planes: Tensor
    content: Tensor
    targets: Tensor
    ignore: Tensor
    clicks: Tensor
    boxes: Tensor
    draws: Tensor
    step_draw: Tensor
    class_targets: Tensor
    distance: Tensor
    extra: Tensor = torch.empty(0)


class Outputs(Protocol):
    """What the network answers to a batch of B images; each answer is computed when a loss first asks for it."""

    @property
    def embedding(self) -> ImageEmbedding:
        """The embedding of the images."""

    @property
    def masks(self) -> Sequence[MaskPrediction]:
        """The masks for K = B·P prompts: for the first clicks or boxes, then once more after each correction."""

    @property
    def dense(self) -> DenseAnswer | None:
        """The answer of the dense head; None without one."""


class Loss(ABC):
    """What a training minimises; a plugin registers one by a `LossSpec`.

    Attributes:
        whole_images: True if `item` describes the whole image as it is. The training then changes no geometry: no
            flips, rotations, scales or pasted objects.
    """

    whole_images: ClassVar[bool] = False

    def item(self, sample_id: str) -> Tensor:
        """Return what the loss needs besides the image and label of a sample; loading processes call this.

        The tensors of all samples have one shape; a batch of them is `Batch.extra`.
        """
        return torch.empty(0)

    @abstractmethod
    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Compute the loss of a batch.

        Returns:
            "loss", a scalar with gradient, and detached scalars: its terms, by their names in the log.
        """


def focal(error: Tensor, wrong: Tensor) -> Tensor:
    """Return the focal loss of each pixel, without its balance."""
    return F.softplus(error) * wrong**FOCAL_GAMMA


def cross_entropy(error: Tensor, wrong: Tensor) -> Tensor:
    """Return the binary cross-entropy of each pixel."""
    return F.softplus(error)


@dataclass(frozen=True, slots=True)
class LossWeights:
    """Terms of the loss and their weights.

    Attributes:
        pixel: loss of each pixel.
        balance: its weights inside and outside of the region.
        mask: weight of the pixel loss.
        dice: weight of the dice loss.
        iou: weight of the absolute error of the predicted IoU.
    """

    pixel: PixelLoss = focal
    balance: tuple[float, float] = (FOCAL_ALPHA, 1 - FOCAL_ALPHA)
    mask: float = 20.0
    dice: float = 1.0
    iou: float = 1.0


SAM2_LOSS = LossWeights()
"""Focal 20, dice 1, IoU 1: SAM 2."""
PAPER_LOSS = LossWeights(pixel=cross_entropy, balance=(1.0, 1.0), mask=1.0)
"""Dice and binary cross-entropy (SimMAT, arXiv 2409.08083), plus the IoU term, which trains the IoU head."""


class PromptLoss(Loss):
    """The loss of the masks for prompts, and of the dense head if the network has one.

    Args:
        masks: the weights of `mask_loss`, or a function in its place. Its mean is a term by the function's name.
    """

    def __init__(self, masks: LossWeights | MaskLoss = SAM2_LOSS) -> None:
        self.masks = masks

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Return the mean over all prompts and rounds, its terms, and the dense head's terms."""
        targets = batch.targets.flatten(0, 1)  # (B·P, S, S)
        ignore = batch.ignore.repeat_interleave(batch.targets.shape[1], dim=0)
        rounds = [
            self._of_prompts(prediction, targets, ignore)
            for prediction in outputs.masks
        ]
        total = torch.stack([per_prompt.mean() for per_prompt, _ in rounds]).mean()
        names = rounds[0][1]
        terms = {}
        for name in names:
            terms[name] = torch.stack([found[name] for _, found in rounds]).mean()
        answer = outputs.dense
        if answer is None:
            return {**terms, "loss": total}
        dense, dense_terms = dense_loss(answer, batch.class_targets, batch.distance)
        return {**terms, **dense_terms, "loss": total + DENSE_WEIGHT * dense}

    def _of_prompts(
        self, prediction: MaskPrediction, targets: Tensor, ignore: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the (K,) losses of K prompts, and the means of their terms."""
        if isinstance(self.masks, LossWeights):
            return mask_loss(prediction, targets, ignore, self.masks)
        per_prompt = self.masks(prediction, targets, ignore)
        if not isinstance(per_prompt, Tensor) or per_prompt.shape != targets.shape[:1]:
            if isinstance(per_prompt, Tensor):
                found = tuple(per_prompt.shape)
            else:
                found = type(per_prompt).__name__
            raise ConfigError(
                f"the loss must return a tensor ({len(targets)},), one number a prompt, got {found}"
            )
        name = _own_term(self.masks)
        # a dense head would bring a gradient of its own
        learns = prediction.logits.requires_grad or prediction.iou.requires_grad
        if learns and not per_prompt.requires_grad:
            raise _without_gradient(f"the loss {name!r}")
        return per_prompt, {name: per_prompt.detach().mean()}


def _own_term(masks: MaskLoss) -> str:
    """Return the name of a function's term in the log."""
    name: str = getattr(masks, "__name__", type(masks).__name__)
    if name in TAKEN_TERMS or not name.isidentifier():  # such as "<lambda>"
        return OWN_TERM
    return name


def _without_gradient(what: str) -> ConfigError:
    return ConfigError(
        f"{what} returned a tensor without gradient, so that the network cannot learn from it; compute it from the "
        "prediction without detach(), no_grad() or a threshold"
    )


def focal_loss(data: Path) -> Loss:
    """Return the loss named focal."""
    return PromptLoss(SAM2_LOSS)


def bce_loss(data: Path) -> Loss:
    """Return the loss named bce."""
    return PromptLoss(PAPER_LOSS)


def mask_loss(
    prediction: MaskPrediction,
    targets: Tensor,
    ignore: Tensor | None = None,
    weights: LossWeights = SAM2_LOSS,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the losses of K prompts, on the grid of the ground truth.

    Args:
        prediction: logits (K, M, h, w), resized to H×W bilinearly, and iou (K, M).
        targets: (K, H, W) bool or 0/1, True on the region the prompt means.
        ignore: (K, H, W) bool, pixels left out of loss and true IoU (padding, no ground truth); or None.
        weights: terms and their weights.

    Returns:
        (K,) weighted sum of each prompt, with gradient, 0 for a prompt without a scored pixel; and detached means
        over the prompts with scored pixels: "loss", "mask" (the pixel loss), "dice" and "true_iou" of mask 0, and "iou"
        (error of the predicted IoU over all masks).
    """
    scored = torch.ones_like(targets, dtype=torch.bool) if ignore is None else ~ignore
    count, masks = prediction.logits.shape[:2]
    group_size = max(MAX_ELEMENTS // (masks * targets.shape[-2] * targets.shape[-1]), 1)
    parts = []
    for start in range(0, max(count, 1), group_size):
        group = slice(start, start + group_size)
        inputs = (prediction.logits[group], targets[group], scored[group], weights)
        if count > group_size and torch.is_grad_enabled():
            parts.append(checkpoint(_compare, *inputs, use_reentrant=False))
        else:
            parts.append(_compare(*inputs))
    # (K, M) each
    pixel, dice, true_iou = (torch.cat(column) for column in zip(*parts, strict=True))
    mask_errors = weights.mask * pixel + weights.dice * dice
    iou_error = (prediction.iou.float() - true_iou).abs().mean(1)
    has_pixels = scored.flatten(1).any(1)
    per_prompt = torch.where(
        has_pixels, _combined(mask_errors) + weights.iou * iou_error, 0.0
    )
    columns = {
        "loss": per_prompt,
        "mask": pixel[:, 0],
        "dice": dice[:, 0],
        "iou": iou_error,
    }
    columns["true_iou"] = true_iou[:, 0]
    return per_prompt, {
        name: _mean(column.detach(), has_pixels) for name, column in columns.items()
    }


def dense_loss(
    answer: DenseAnswer, class_targets: Tensor, distance: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Compute the losses of an output, on the grid of the ground truth.

    Each loss is computed per image and averaged over images, so it does not depend on how processes share a batch.

    Args:
        answer: output for B images.
        class_targets: (B, S, S) int64 class indices; -1 where there is no ground truth.
        distance: (B, S, S) float32 in 0..1, as in `DenseAnswer`.

    Returns:
        The scalar sum of all three with gradient, and detached scalars "classes" (cross-entropy), "class_dice" and
        "distance", over the pixels with ground truth.
    """
    with torch.autocast(class_targets.device.type, enabled=False):
        size = class_targets.shape[-2:]
        # (B, K, S, S)
        logits = upsample_logits(answer.class_logits.float(), (size[0], size[1]))
        scored = (class_targets >= 0).float()  # (B, S, S)
        pixels = scored.sum((1, 2)).clamp(min=1)  # (B,)
        cross_entropy = (
            F.cross_entropy(
                logits, class_targets, ignore_index=-1, reduction="none"
            ).sum((1, 2))
            / pixels
        )
        probability = logits.softmax(1) * scored[:, None]
        truth = (
            F.one_hot(class_targets.clamp(min=0), logits.shape[1])
            .movedim(-1, 1)
            .float()
            * scored[:, None]
        )
        shared = (probability * truth).sum((2, 3))
        sizes = (probability + truth).sum((2, 3))  # (B, K)
        present = (truth.sum((2, 3)) > 0).float()  # (B, K)
        dice = ((1 - (2 * shared + 1) / (sizes + 1)) * present).sum(1) / present.sum(
            1
        ).clamp(min=1)
        distance_logits = upsample_logits(answer.distance.float(), (size[0], size[1]))[
            :, 0
        ]
        distance_loss = (
            F.binary_cross_entropy_with_logits(
                distance_logits, distance, reduction="none"
            )
            * scored
        ).sum((1, 2)) / pixels
    parts = {
        "classes": cross_entropy.mean(),
        "class_dice": dice.mean(),
        "distance": distance_loss.mean(),
    }
    total = parts["classes"] + parts["class_dice"] + parts["distance"]
    return total, {name: part.detach() for name, part in parts.items()}


def _compare(
    logits: Tensor, targets: Tensor, scored: Tensor, weights: LossWeights
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixel loss, dice loss and true IoU of every mask, (K, M) each, in float32.

    All three are sums over the region or over the rest. They are matrix products, because writing weighted maps of
    full resolution would take longer than the computation.
    """
    with torch.autocast(logits.device.type, enabled=False):
        # (K, M, H·W)
        full_size = upsample_logits(
            logits.float(), (targets.shape[-2], targets.shape[-1])
        ).flatten(2)
        weight = scored.flatten(1).to(full_size.dtype)  # (K, H·W)
        region = targets.flatten(1).bool()  # (K, H·W)
        # (K, 2, H·W): region, rest
        rows = torch.stack([weight * region, weight * ~region], dim=1)
        # a product of rows is twice as fast as one of rows and columns
        parts = rows.transpose(1, 2)
        sizes = rows.sum(2)[:, None]  # (K, 1, 2)
        sign = 1.0 - 2.0 * region[:, None].to(full_size.dtype)  # (K, 1, H·W)
        error = full_size * sign  # (K, M, H·W), > 0 where the mask is wrong
        wrong = error.sigmoid()  # 1 - probability of the true class
        pixel_loss = weights.pixel(error, wrong)
        if weights.mask and error.requires_grad and not pixel_loss.requires_grad:
            raise _without_gradient("the loss of pixels")
        return (
            _mean_pixel_loss(pixel_loss, parts, sizes, weights.balance),
            _dice_loss(wrong @ parts, sizes),
            _true_iou(full_size, parts, sizes),
        )


def _mean_pixel_loss(
    loss: Tensor, parts: Tensor, sizes: Tensor, balance: tuple[float, float]
) -> Tensor:
    """Return the mean over the scored pixels, weighted inside and outside of the region."""
    in_region, in_rest = (loss @ parts).unbind(-1)  # (K, M) each
    return (balance[0] * in_region + balance[1] * in_rest) / sizes.sum(-1).clamp(min=1)


def _dice_loss(wrong: Tensor, sizes: Tensor) -> Tensor:
    """Return 1 - (2 |P∩T| + 1) / (|P| + |T| + 1), with soft P (Milletari et al. 2016, arXiv 1606.04797).

    Args:
        wrong: (K, M, 2) probability of the wrong class, summed over the region T and over the rest.
        sizes: (K, 1, 2) number of scored pixels in both.
    """
    missed, extra = wrong.unbind(-1)
    truth = sizes[..., 0]  # (K, 1)
    shared = truth - missed
    return 1 - (2 * shared + 1) / (shared + extra + truth + 1)


@torch.no_grad()
def _true_iou(logits: Tensor, parts: Tensor, sizes: Tensor) -> Tensor:
    """Return the IoU of logit > 0 with the truth over the scored pixels; 1 where both are empty."""
    shared, extra = ((logits > 0).to(parts.dtype) @ parts).unbind(-1)
    union = sizes[..., 0] + extra
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


def _combined(errors: Tensor) -> Tensor:
    """Return (K,) mean of the error of mask 0 and the relaxed winner-takes-all error of the alternatives."""
    single = errors[:, 0]
    alternatives = errors[:, 1:]
    count = alternatives.shape[1]
    if count == 0:
        return single
    weight = torch.full_like(alternatives, LOSER_SHARE / max(count - 1, 1))
    best = alternatives.detach().argmin(1, keepdim=True)
    weight = weight.scatter(1, best, 1 - LOSER_SHARE if count > 1 else 1.0)
    return (single + (alternatives * weight).sum(1)) / 2


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the chosen values, 0 if none is chosen."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)
