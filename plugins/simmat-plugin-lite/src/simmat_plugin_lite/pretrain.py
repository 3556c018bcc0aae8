"""Pretrain `lite` on rgb-regions: `python -m simmat_plugin_lite.pretrain --data DIR --out RUN`.

The same command goes on where a run stopped. What a step sees depends on seed, step and process alone.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from simmat.files import atomic_write_json, check_writable, remove_temporary
from simmat_plugin_lite.batches import Batch, BatchPlan, RegionBatches
from simmat_plugin_lite.command import fraction, run_command, whole_number
from simmat_plugin_lite.imagenet import load_imagenet
from simmat_plugin_lite.losses import pretraining_loss
from simmat_plugin_lite.model import LiteModel, read_weights
from simmat_plugin_lite.regions import read_photos
from simmat_plugin_lite.run_log import RunLog
from simmat_plugin_lite.run_state import STATE_FILE, RunningMean, load_run, read_state, save_run
from simmat_plugin_lite.spec import LITE, PIXEL_MEAN, PIXEL_STD
from simmat_plugin_lite.training_step import TrainingStep, normalise
from simmat_plugin_lite.validation import validate, validation_photo

ROUNDS = (0.6, 0.2, 0.12, 0.08)
"""How often the answer that counts comes after 0, 1, 2, 3 corrections."""

_FREE = frozenset(
    {"data", "out", "start_from", "steps", "stop_at", "device", "workers", "save_every", "validate_every"}
)
"""Options that may be others when a run goes on; more steps stretch its schedule."""

_BEFORE = {"copies": 0.0}
"""What options were that a run begun before them could not keep."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m simmat_plugin_lite.pretrain", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the rgb-regions folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an old one is continued")
    parser.add_argument(
        "--start-from",
        type=Path,
        help="weights of lite that a new run starts from, instead of ImageNet's encoder alone",
    )
    parser.add_argument("--steps", type=whole_number, default=3000)
    parser.add_argument("--batch-size", type=whole_number, default=8, help="images a step and process")
    parser.add_argument("--prompts", type=whole_number, default=4, help="prompts an image")
    parser.add_argument("--boxes", type=fraction, default=0.3, help="share of first prompts that are a box")
    parser.add_argument("--copies", type=fraction, default=0.25, help="share of views of many things alike")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of neck and decoder")
    parser.add_argument("--encoder-lr", type=float, default=2e-4)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto", help="auto: a GPU where there is one")
    parser.add_argument("--precision", choices=("no", "bf16"), default="bf16")
    parser.add_argument("--workers", type=int, default=1, help="processes that prepare batches")
    parser.add_argument("--save-every", type=whole_number, default=200)
    parser.add_argument("--validate-every", type=whole_number, default=250)
    parser.add_argument("--stop-at", type=whole_number, help="stop here, to go on later; the schedule stays")
    return parser


def optimizer_of(model: LiteModel, options: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW; the encoder at its own rate, no decay on norms and biases."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        encoder = name.startswith("backbone.") and not name.startswith("backbone.neck.")
        groups.setdefault((encoder, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": options.encoder_lr if encoder else options.lr,
                "weight_decay": options.weight_decay if matrix else 0.0,
            }
            for (encoder, matrix), parameters in groups.items()
        ],
        lr=options.lr,
        betas=(0.9, 0.98),
    )


def set_rates(optimizer: torch.optim.Optimizer, step: int, options: argparse.Namespace) -> float:
    """Linear warm-up, then half a cosine down to a hundredth. Returns the share of the peak."""
    warm = min(1.0, (step + 1) / max(options.warmup, 1))
    done = min(1.0, max(0, step - options.warmup) / max(options.steps - options.warmup, 1))
    share = warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return float(share)


def settings_of(options: argparse.Namespace, processes: int) -> dict[str, object]:
    """Return what may not change while a run lasts, as json values."""
    return {name: value for name, value in vars(options).items() if name not in _FREE} | {"processes": processes}


def check_same_run(options: argparse.Namespace, processes: int) -> None:
    """Refuse to continue a run with other settings; one that kept none is taken as it is.

    Raises:
        ValueError: settings differ, each by name; or the state is damaged.
    """
    kept = read_state(options.out).get("settings", {})
    begun = _BEFORE | kept if kept else {}
    changed = [
        f"{name.replace('_', '-')} is {now}, was {begun[name]}"
        for name, now in settings_of(options, processes).items()
        if name in begun and begun[name] != now
    ]
    if changed:
        raise ValueError(
            f"the run in {options.out} was begun with other settings: {'; '.join(changed)}; "
            "give them as they were, or start a new --out folder (from its weights: freeze, then --start-from)"
        )


class Pretraining:
    """A run: model, running mean, optimizer, data, and where it stands."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        LITE.check_image_size(options.image_size)
        self.accelerator = Accelerator(mixed_precision=options.precision, cpu=options.device == "cpu")
        if self.accelerator.is_main_process:  # the others write nothing
            check_writable(options.out)
        begun = (options.out / STATE_FILE).exists()
        if begun:
            check_same_run(options, self.accelerator.num_processes)
        self.photos = read_photos(options.data, "train")
        torch.manual_seed(options.seed)
        model = LiteModel()
        if not begun and options.start_from is None:
            load_imagenet(model.backbone)
        elif not begun:
            model.load_state_dict(read_weights(options.start_from, model))
        self.optimizer = optimizer_of(model, options)
        self.mean = RunningMean(model, options.ema)
        self.step = 0
        if begun:
            self.step = int(load_run(options.out, model, self.mean, self.optimizer)["step"])
        self.model = model.to(self.accelerator.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean.tensors = {n: t.to(self.accelerator.device) for n, t in self.mean.tensors.items()}
        self.training_step, self.optimizer = self.accelerator.prepare(TrainingStep(self.model), self.optimizer)
        if self.accelerator.is_main_process:
            photos = (validation_photo(photo, options.image_size) for photo in read_photos(options.data, "val"))
            self.validation = [photo for photo in photos if photo is not None]
            options.out.mkdir(parents=True, exist_ok=True)
            remove_temporary(options.out)
            self.log = RunLog(options.out, self.step)
            atomic_write_json(options.out / "options.json", {k: str(v) for k, v in vars(options).items()})

    def batches(self) -> Iterator[Batch]:
        """Batches from the step the run stands at; each process of several draws its own."""
        options = self.options
        plan = BatchPlan(
            options.batch_size, options.prompts, options.image_size, box=options.boxes, copies=options.copies
        )
        seed = options.seed * 1000 + self.accelerator.process_index
        data = RegionBatches(self.photos, plan, seed, self.step)
        return iter(
            DataLoader(
                data, batch_size=None, num_workers=options.workers, prefetch_factor=4 if options.workers else None
            )
        )

    def learn(self, batch: Batch) -> dict[str, float]:
        """One optimizer step."""
        device = self.accelerator.device
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        rng = np.random.default_rng((self.options.seed, self.step, 1))
        rounds = int(rng.choice(len(ROUNDS), p=ROUNDS))
        content = batch["content"]
        image = normalise(batch["image"], content, PIXEL_MEAN, PIXEL_STD)
        asked = content.index_select(0, batch["image_index"])
        self.training_step.train()
        with self.accelerator.autocast():
            prediction, coarse = self.training_step(image, batch, asked, rounds, rng)
        loss, parts = pretraining_loss(prediction, coarse, batch["region"], asked)
        self._check_finite("loss", loss.item())
        self.accelerator.backward(loss)
        norm = float(self.accelerator.clip_grad_norm_(self.training_step.parameters(), 1.0))
        self._check_finite("norm of the gradient", norm)  # of one that is not, AdamW makes every weight NaN
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": float(loss.detach()), **parts, "rounds": rounds, "grad_norm": norm}

    def _check_finite(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"{what} is {value} at step {self.step}; begin a new --out folder with a lower --lr"
            )

    def check(self) -> None:
        """Score the running mean on the validation split."""
        fast = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.mean.tensors)
        on = self.accelerator.autocast() if self.options.precision == "bf16" else nullcontext()
        with on:
            scores = validate(self.model, self.validation, PIXEL_MEAN, PIXEL_STD, self.accelerator.device)
        self.model.load_state_dict(fast)
        self.log.add(step=self.step, kind="val", **scores)

    def run(self) -> None:
        """Train until the last step, saving and checking on the way."""
        options = self.options
        last = min(options.steps, options.stop_at or options.steps)
        recent: list[dict[str, float]] = []
        started = time.time()
        batches = self.batches() if self.step < last else iter(())
        for batch in batches:
            share = set_rates(self.optimizer, self.step, options)
            recent.append(self.learn(batch))
            self.step += 1
            self.mean.update(self.model, self.step)
            if self.step % 10 == 0:
                means = {key: round(sum(r[key] for r in recent) / len(recent), 4) for key in recent[0]}
                seconds = round((time.time() - started) / len(recent), 3)
                if self.accelerator.is_main_process:
                    self.log.add(step=self.step, kind="train", **means, lr_share=round(share, 4), s_per_step=seconds)
                recent, started = [], time.time()
            main = self.accelerator.is_main_process
            if main and (self.step % options.validate_every == 0 or self.step == last):
                self.check()  # before the state is saved: a run that is stopped here does both again
            if main and (self.step % options.save_every == 0 or self.step == last):
                settings = settings_of(options, self.accelerator.num_processes)
                save_run(options.out, self.step, self.model, self.mean, self.optimizer, {"settings": settings})
            if self.step >= last:
                break
        self.accelerator.end_training()


if __name__ == "__main__":
    run_command(lambda: Pretraining(arguments().parse_args()).run())
