"""What a training step costs, compared with a step of a U-Net on the same encoder and the same batches, in turn.

    OMP_NUM_THREADS=1 python benchmarks/step.py [--precision fp32 bf16] [--prompts N] [--steps 6]
        [--json FILE]

`lite` with both heads at 256 px, 6 images with N prompts each, by default one, on the images of training_items.py. The
U-Net is that of dense_baselines.py: segmentation_models_pytorch on EfficientNet-Lite0, with the losses of the dense
head. A step is forward, backward and the optimiser; its batch is loaded before. OMP_NUM_THREADS is the number of
threads of both.
Needs simmat-plugin-lite, -bench and -unet, and scikit-image.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from dense_baselines import unet_of
from measuring import Line, Seconds, parser_of, report, seconds_of
from torch import nn
from training_items import make_set

from simmat import training
from simmat.config import TrainConfig
from simmat.nn.losses import Batch, dense_loss
from simmat.plugins.loader import load_plugins
from simmat.training import fit
from simmat.training.plan import TrainingPlan
from simmat.training.step import build_optimizer

AIM = 1.3


class UNetStep:
    """A step of the U-Net on a batch of a run."""

    def __init__(self, plan: TrainingPlan) -> None:
        assert plan.spec.dense is not None
        config = plan.config
        self.model = unet_of(plan.spec.dense, len(plan.spec.channels), config.seed)
        self.optimizer = build_optimizer(self.model, weight_decay=config.weight_decay)
        self.is_half = config.precision == "bf16"
        self.clip = config.grad_clip

    def __call__(self, batch: Batch) -> None:
        """Take it."""
        self.model.train()
        assert self.model.dense is not None
        with torch.autocast("cpu", torch.bfloat16, enabled=self.is_half):
            answer = self.model.dense(self.model.encode(batch.planes, batch.content))
            loss = dense_loss(answer, batch.class_targets, batch.distance)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


def measure(config: TrainConfig) -> tuple[list[Seconds], list[Seconds]]:
    """Train both in turn; return what the steps of SimMAT and of the U-Net take."""
    ours: list[Seconds] = []
    others: list[Seconds] = []
    unet: list[UNetStep] = []
    take_step = fit.take_step

    def both(learner: fit.Learner, batches: Iterator[Batch]) -> None:
        if not unet:
            unet.append(UNetStep(learner.plan))
        batch = next(batches)
        ours.append(seconds_of(lambda: take_step(learner, iter([batch]))))
        others.append(seconds_of(lambda: unet[0](batch)))

    with mock.patch.object(fit, "take_step", both):
        training.train(config, load_plugins())
    return ours, others


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument(
        "--prompts",
        type=int,
        default=1,
        help="of each image",
    )
    parser.add_argument("--steps", type=int, default=6, help="the first is left out")
    given = parser.parse_args()
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = make_set(root / "set", 24, 16)
        for precision in given.precision:
            config = TrainConfig(
                modality="gray",
                foundation="lite",
                data=data,
                out=root / precision,
                batch_size=6,
                prompts_per_image=given.prompts,
                steps=given.steps,
                val_every=given.steps,
                val_images=1,
                precision=precision,
                pictures=False,
                workers=0,
            )
            ours, others = measure(config)
            for unit, name in (("CPU s", "cpu"), ("s", "wall")):
                lines.append(
                    Line(
                        f"training step, {precision}, {given.prompts} prompts, {threads} threads",
                        unit,
                        [getattr(one, name) for one in ours[1:]],
                        "U-Net",
                        [getattr(one, name) for one in others[1:]],
                        aim=AIM,
                    )
                )
    report(lines, given.json)


if __name__ == "__main__":
    main()
