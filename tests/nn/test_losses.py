"""Losses of masks and of predicted IoU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from simmat.foundation import MaskPrediction
from simmat.nn.losses import (
    LOSER_SHARE,
    PAPER_LOSS,
    SAM2_LOSS,
    LossWeights,
    focal,
    mask_loss,
)


def answer(
    count: int = 3, masks: int = 4, side: int = 8, seed: int = 0
) -> MaskPrediction:
    """Return random logits and IoU that take gradients."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, masks, side, side, generator=generator)
    iou = torch.rand(count, masks, generator=generator)
    return MaskPrediction(logits.requires_grad_(True), iou.requires_grad_(True))


def truth(count: int = 3, side: int = 16, seed: int = 1) -> torch.Tensor:
    """Return random regions."""
    return (
        torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed))
        > 0.6
    )


def by_hand(
    prediction: MaskPrediction, targets: torch.Tensor, weights: LossWeights
) -> torch.Tensor:
    """Return per-prompt losses, written out mask by mask from the formulas."""
    out = []
    for k in range(len(targets)):
        errors, iou_errors = [], []
        for m in range(prediction.logits.shape[1]):
            logit = F.interpolate(
                prediction.logits[k, m][None, None], targets.shape[-2:], mode="bilinear"
            )[0, 0]
            p, t = logit.sigmoid(), targets[k].float()
            of_truth = torch.where(targets[k], p, 1 - p)
            pixel = -of_truth.log()
            if weights.pixel is focal:
                pixel = (
                    pixel * (1 - of_truth) ** 2 * torch.where(targets[k], 0.25, 0.75)
                )
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            errors.append(weights.mask * pixel.mean() + weights.dice * dice)
            inside = logit > 0
            true = (inside & targets[k]).sum() / (inside | targets[k]).sum()
            iou_errors.append((prediction.iou[k, m] - true).abs())
        loss = errors[0]
        if len(errors) > 1:
            best = min(range(1, len(errors)), key=lambda m: errors[m].item())
            others = [e for m, e in enumerate(errors) if m not in (0, best)]
            guesses = (1 - LOSER_SHARE) * errors[best] + LOSER_SHARE * torch.stack(
                others
            ).mean()
            loss = (errors[0] + guesses) / 2
        out.append(loss + weights.iou * torch.stack(iou_errors).mean())
    return torch.stack(out)


@pytest.mark.parametrize(
    "weights", [SAM2_LOSS, PAPER_LOSS, LossWeights(dice=2.0, iou=3.0)]
)
@pytest.mark.parametrize("masks", [1, 4])
def test_the_loss_is_the_formula(weights: LossWeights, masks: int) -> None:
    """Focal or cross-entropy, dice, IoU error, relaxed winner-takes-all: nothing more."""
    prediction, targets = answer(masks=masks), truth()
    torch.testing.assert_close(
        mask_loss(prediction, targets, None, weights)[0],
        by_hand(prediction, targets, weights),
    )


def test_ignored_pixels_neither_score_nor_pull() -> None:
    """Where there is no ground truth, a mask may say what it wants."""
    prediction, targets = answer(side=16), truth()
    ignore = torch.zeros_like(targets)
    ignore[:, 4:9, 2:12] = True
    loss = mask_loss(prediction, targets, ignore)
    loss[0].sum().backward()
    changed = MaskPrediction(
        torch.where(ignore[:, None], -50.0, prediction.logits.detach()),
        prediction.iou.detach(),
    )
    flipped = torch.where(ignore, ~targets, targets)
    torch.testing.assert_close(mask_loss(changed, flipped, ignore)[0], loss[0].detach())
    gradient = prediction.logits.grad
    assert gradient is not None
    assert (gradient[ignore[:, None].expand_as(gradient)] == 0).all()
    assert (gradient[~ignore[:, None].expand_as(gradient)] != 0).any()


def test_a_prompt_without_a_scored_pixel_counts_for_nothing() -> None:
    """An image may be all ignore; it must not turn the loss into NaN or pull the mean."""
    prediction, targets = answer(), truth()
    ignore = torch.zeros_like(targets)
    ignore[1] = True
    loss = mask_loss(prediction, targets, ignore)
    assert loss[0][1] == 0
    loss[0].sum().backward()
    assert prediction.logits.grad is not None
    assert torch.isfinite(prediction.logits.grad).all()
    kept = torch.tensor([0, 2])
    alone = mask_loss(
        MaskPrediction(prediction.logits[kept], prediction.iou[kept]), targets[kept]
    )
    for name, value in alone[1].items():
        torch.testing.assert_close(loss[1][name], value)
    everything = mask_loss(prediction, targets, torch.ones_like(targets))
    assert all(torch.isfinite(value) for value in everything[1].values())


def test_groups_give_the_loss_and_gradient_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Groups with recomputation only bound memory: 24 prompts of 4 masks at 1024² would take gigabytes."""
    gradients, losses = [], []
    for most in (2**23, 4 * 16 * 16 * 2):
        monkeypatch.setattr("simmat.nn.losses.MAX_ELEMENTS", most)
        prediction = answer(count=5)
        loss = mask_loss(prediction, truth(5))
        loss[0].mean().backward()
        losses.append(loss[0])
        gradients.append(prediction.logits.grad)
    assert torch.equal(*losses)
    torch.testing.assert_close(*gradients)
