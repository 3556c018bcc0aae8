"""A training step: encode each image once, decode prompts, correct, compute the losses.

Besides, the optimiser that takes the step, and the learning rate of each step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simmat.errors import ConfigError
from simmat.foundation import ImageEmbedding, MaskPrediction, PromptBatch
from simmat.model import SimMAT
from simmat.nn.dense_head import DenseAnswer
from simmat.nn.losses import Batch, Loss


class TrainingStep(nn.Module):
    """The network with its loss, so that DistributedDataParallel wraps both in one forward.

    Args:
        model: the network.
        loss: what is minimised.
        box_fraction: share of the steps that prompt with boxes instead of clicks.
        correction_clicks: rounds with an added click on an error and the previous prediction as mask input.
    """

    def __init__(
        self, model: SimMAT, loss: Loss, *, box_fraction: float, correction_clicks: int
    ) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.box_fraction = box_fraction
        self.correction_clicks = correction_clicks

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return what the loss returns, each a scalar: "loss", to backpropagate, and its terms.

        All items of a step are prompted with clicks, or all with boxes.
        """
        # all items of the step have the same draw
        boxes = bool(batch.step_draw[0] < self.box_fraction)
        losses = self.loss(
            StepOutputs(
                self.model, batch, boxes=boxes, correction_clicks=self.correction_clicks
            ),
            batch,
        )
        total = losses.get("loss")
        if total is None or total.ndim or not total.requires_grad:
            raise ConfigError(
                'the loss must return {"loss": a scalar with gradient}, so that there is something to train, got '
                + _described(total)
            )
        return losses


def _described(total: Tensor | None) -> str:
    if total is None:
        return 'no "loss"'
    return f"a tensor {tuple(total.shape)} {'with' if total.requires_grad else 'without'} gradient"


class StepOutputs:
    """What the network answers to a batch, see `simmat.nn.losses.Outputs`; an answer is computed when it is asked for.

    Args:
        model: the network.
        batch: B images with P targets each.
        boxes: the first prompts are boxes instead of clicks.
        correction_clicks: rounds after the first.
    """

    def __init__(
        self, model: SimMAT, batch: Batch, *, boxes: bool, correction_clicks: int
    ) -> None:
        self._model = model
        self._batch = batch
        self._boxes = boxes
        self._correction_clicks = correction_clicks

    @cached_property
    def embedding(self) -> ImageEmbedding:
        """The embedding of the images."""
        return self._model.encode(self._batch.planes, self._batch.content)

    @cached_property
    def masks(self) -> Sequence[MaskPrediction]:
        """The masks for the first prompts, then for those of each correction.

        Each is (B·P, M, h, w) logits of M masks at the decoder's own size, and their (B·P, M) predicted IoUs.
        """
        batch = self._batch
        targets = batch.targets.flatten(0, 1)  # (B·P, S, S)
        # (B·P, S, S)
        ignore = batch.ignore.repeat_interleave(batch.targets.shape[1], dim=0)
        draws = batch.draws.flatten(0, 1)  # (B·P, R)
        prompts = training_prompts(batch, boxes=self._boxes)
        predictions = [self._model.decode(self.embedding, prompts)]
        for number in range(self._correction_clicks):
            prompts = corrected_prompts(
                prompts, predictions[-1], targets, ignore, draws[:, number]
            )
            predictions.append(self._model.decode(self.embedding, prompts))
        return predictions

    @cached_property
    def dense(self) -> DenseAnswer | None:
        """The answer of the dense head; None without one."""
        if self._model.dense is None:
            return None
        return cast(DenseAnswer, self._model.dense(self.embedding))


def training_prompts(batch: Batch, *, boxes: bool) -> PromptBatch:
    """Return a click, or a box, for every target: K = B·P prompts."""
    images, prompts = batch.clicks.shape[:2]
    count = images * prompts
    points = 0 if boxes else 1
    return PromptBatch(
        image_index=torch.arange(images, device=batch.clicks.device).repeat_interleave(
            prompts
        ),
        point_coords=batch.clicks.reshape(count, 1, 2)[:, :points],
        point_labels=torch.ones(
            count, points, dtype=torch.int64, device=batch.clicks.device
        ),
        boxes=batch.boxes.reshape(count, 4) if boxes else None,
    )


@torch.no_grad()
def corrected_prompts(
    prompts: PromptBatch,
    prediction: MaskPrediction,
    targets: Tensor,
    ignore: Tensor,
    draws: Tensor,
) -> PromptBatch:
    """Add a click on a random wrong pixel of each prediction, and the prediction as mask input, as SAM is trained.

    Args:
        prompts: K prompts.
        prediction: the prediction for them, of which mask 0 is used.
        targets: (K, S, S) bool.
        ignore: (K, S, S) bool; pixels that are never clicked.
        draws: (K,) in [0, 1), select the wrong pixel to click.

    Returns:
        K prompts with one more point; a prediction without errors gets a padding point (label -1).
    """
    low = prediction.logits[:, :1].detach().float()  # (K, 1, h, w)
    size = targets.shape[-1]
    # (K, S, S)
    mask = (
        F.interpolate(low, (size, size), mode="bilinear", align_corners=False)[:, 0] > 0
    )
    wrong = ((mask != targets) & ~ignore).flatten(1)  # (K, S·S)
    total = wrong.sum(1)  # (K,)
    # the number of the wrong pixel to click, from 0 in raster order
    nth = (draws.to(total.device) * total).long().clamp(max=(total - 1).clamp(min=0))
    # its place in the S·S pixels: (K,)
    index = (wrong.int().cumsum(1) <= nth[:, None]).sum(1).clamp(max=size * size - 1)
    xy = torch.stack([index % size, index // size], dim=-1).float()  # (K, 2)
    on_object = targets.flatten(1).gather(1, index[:, None]).long()  # (K, 1)
    labels = torch.where(total[:, None] > 0, on_object, -1)
    return PromptBatch(
        image_index=prompts.image_index,
        point_coords=torch.cat([prompts.point_coords, xy[:, None]], dim=1),
        point_labels=torch.cat([prompts.point_labels, labels], dim=1),
        boxes=prompts.boxes,
        mask_input=low,
    )


Schedule = Literal["cosine", "constant", "halving"]

HALVING_EPOCHS = 10
"""Epochs between two halvings, as in the paper's released code."""


def learning_rate(
    step: int,
    *,
    peak: float,
    steps: int,
    warmup: int,
    schedule: Schedule,
    epoch: int = 0,
    cooldown_start: int = 0,
) -> float:
    """Return the learning rate of a step: linear warm-up, then the schedule.

    "cosine" falls to 1 % of the peak, "constant" stays, "halving" halves every `HALVING_EPOCHS` completed epochs.

    Args:
        step: number of steps before this one.
        peak: the rate after the warm-up.
        steps: number of all steps.
        warmup: number of steps of the warm-up.
        schedule: how the rate goes on from the peak.
        epoch: number of completed epochs.
        cooldown_start: step before which a cosine does not fall, if that is later than the warm-up.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    if schedule == "halving":
        return peak * float(0.5 ** (epoch // HALVING_EPOCHS))
    start = max(warmup, cooldown_start)
    if step < start:
        return peak
    progress = (step - start) / max(steps - start, 1)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def build_optimizer(
    module: nn.Module,
    *,
    weight_decay: float,
    backbone: Iterable[nn.Parameter] = (),
    backbone_factor: float = 1.0,
) -> torch.optim.AdamW:
    """Return AdamW over all trainable parameters; biases, norms and other vectors have no weight decay.

    Args:
        module: the network.
        weight_decay: of the weight matrices.
        backbone: parameters that have a learning rate of their own.
        backbone_factor: it, as a factor of the learning rate of all others; see `set_rates`.

    Raises:
        ConfigError: there is no trainable parameter.
    """
    inner = {id(parameter) for parameter in backbone}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            slower = id(parameter) in inner and backbone_factor != 1
            matrix = parameter.ndim > 1 and not name.endswith(("bias", "biases"))
            groups.setdefault((slower, matrix), []).append(parameter)
    if not groups:
        raise ConfigError(
            "this --mat has no parameters and --tune frozen trains none, so there is nothing to train; use another "
            "--mat (mat-residual, linear) or --tune (lora, decoder, full)"
        )
    options = []
    for (slower, matrices), parameters in groups.items():
        options.append(
            {
                "params": parameters,
                "weight_decay": weight_decay if matrices else 0.0,
                "factor": backbone_factor if slower else 1.0,
            }
        )
    return torch.optim.AdamW(options)


def set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, scaled by the group's factor from `build_optimizer`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
