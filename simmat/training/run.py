"""The run of a sensor; accelerate does launching, device placement, precision and gradient accumulation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from simmat.bundle import (
    BundleSpec,
    ImageDigests,
    bundle_spec,
    check_bundle,
    load_tensors,
    read_sensors,
    trained_tensors,
)
from simmat.callbacks import Callback, RunPlan
from simmat.config import TrainConfig, dump_toml
from simmat.data.samples import write_splits
from simmat.errors import ConfigError
from simmat.evaluation import Scores, find_protocol, fit_calibration, validate
from simmat.io.files import atomic_write_json, atomic_write_text, recover_folder
from simmat.model import SimMAT, assemble, count_parameters, with_layout
from simmat.nn.device import Processes
from simmat.nn.losses import Batch, Loss, MaskLoss
from simmat.nn.tuners import pretrained_backbone, set_train_mode, trainable_state, without_training
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.threads import START_METHOD
from simmat.training.accelerator import loading_processes, make_accelerator, memory_for_images, share_buffers
from simmat.training.callbacks import Callbacks, callbacks_of_plugins, check_tracker, tracked
from simmat.training.compatibility import check_data, check_network, check_settings, load_start, settings_of
from simmat.training.run_folder import RunFolder
from simmat.training.setup import check_out_outside_data, find_loss, prepare
from simmat.training.state import (
    Best,
    RunNotes,
    RunState,
    load_optimizer_tensors,
    load_state,
    optimizer_tensors,
    save_state,
)
from simmat.training.step import TrainingStep, build_optimizer, learning_rate, set_rates


def selection_score(summary: Mapping[str, Any]) -> float:
    """Return the score by which the best bundle is chosen, from `Scores.summary` of a validation.

    It is the mean IoU of one click, or with a dense head its mean with the AP50 of every object and the mIoU of the
    class map, as far as there are such figures.
    """
    blocks = (("everything", "ap50"), ("semantic", "miou"))
    dense = [value for block, key in blocks if (value := summary.get(block, {}).get(key)) is not None]
    return fmean([summary["miou_object"], *dense]) if dense else float(summary["miou_object"])


class Diverged(ConfigError):
    """The loss or its gradient is not finite; the learning rate is too high."""


class Run:
    """The run of a sensor, in one of its processes.

    Args:
        whole: the folder of a training on several sensors, which has states and bundle of all.
        shared_with: a run of another sensor, whose foundation model and optimiser moments it shares.

    Attributes:
        sensor: name of its sensor in a bundle of several; "" in one of its own.
        others: spec and tensors of the sensors of a bundle to which its own is added.
    """

    def __init__(
        self,
        config: TrainConfig,
        registry: Registry,
        callback: Callback,
        *,
        resume: bool,
        loss: Loss | MaskLoss | None = None,
        whole: Path | None = None,
        shared_with: Run | None = None,
    ) -> None:
        self.config, self.registry = config, registry
        self.loss = find_loss(config, registry, loss)
        self.sensor = (config.out.name if whole is not None else config.new_sensor) or ""
        self.folder = RunFolder(config.out, self.sensor, whole)
        self.resumes = resume
        check_tracker(config.track)
        self.accelerator = make_accelerator(config)
        self.callback = callback if self.accelerator.is_main_process else Callback()
        # A run killed before its first save has a config but no state: it starts from step 0.
        known = load_state(self.folder.state) if resume and self.folder.state.exists() else None
        if not resume:
            check_out_outside_data(config)
        if not resume and self.accelerator.is_main_process:
            self.folder.create(config.data)
        if known:
            check_settings(config, known.notes.settings)
        own = self.folder.bundle_root if known and recover_folder(self.folder.bundle_root).exists() else None
        self.setup = prepare(config, registry, self.callback, known=known.notes.spec if known else None, own=own)
        self.config = config = self.setup.config
        if known:
            check_data(self.folder, known.notes.fingerprint, self.setup.dataset, self.setup.contents)
            check_network(config, known.notes.spec, self.setup.spec)
        self.model = assemble(self.setup.spec, self.setup.parts)
        self.setup = replace(self.setup, spec=with_layout(self.setup.spec, self.model))
        if shared_with is not None:
            _share_foundation(self.model, shared_with.model, config)
        if config.gradient_checkpointing:
            _checkpoint_gradients(self.model, config.foundation)
        self.peak = config.lr if config.lr is not None else self.setup.parts.learning_rate
        self.done, self.has_state = (known.notes.step if known else 0), known is not None
        # Without its best bundle a resumed run validates what it has, which becomes the best.
        self.best = known.notes.best if known and own else None
        if self.best and shared_with is None and self.accelerator.is_main_process:
            check_bundle(self.folder.bundle_root)
        source = own or config.init
        self.others = read_sensors(source) if config.new_sensor and source else {}
        self.others.pop(self.sensor, None)
        if known:
            load_tensors(self.model, known.model, str(self.folder.state))
        elif config.init is not None:
            load_start(self.model, config.init, next((tensors for _, tensors in self.others.values()), None))
        with self._frozen():
            self._prepare(known)
        if shared_with is not None:
            moments = shared_with.optimizer.optimizer.state
            for parameter in filter(attrgetter("requires_grad"), self.model.foundation.parameters()):
                self.optimizer.optimizer.state[parameter] = moments[parameter]  # AdamW changes them in place
        accelerator = self.accelerator
        self.processes = Processes(accelerator.device, accelerator.process_index, accelerator.num_processes)
        self.of_plugins = callbacks_of_plugins(config, registry) if self.processes.is_main else []

    def _prepare(self, state: RunState | None) -> None:
        config = self.config
        step = TrainingStep(
            self.model, self.loss, box_fraction=config.box_fraction, correction_clicks=config.correction_clicks
        )
        optimizer = build_optimizer(
            step,
            weight_decay=config.weight_decay,
            backbone=pretrained_backbone(self.model.foundation, self.setup.parts.foundation.targets),
            backbone_factor=config.backbone_lr_factor,
        )
        items = self.setup.items(self.loss)
        left = (self.setup.steps - self.done) * config.batch_size
        workers = loading_processes(config, self.accelerator, items, left)
        image_bytes = memory_for_images() // (self.accelerator.num_processes * max(workers, 1))
        loader = DataLoader(
            replace(items, image_bytes=image_bytes),
            sampler=range(self.done * config.batch_size, self.setup.steps * config.batch_size),
            batch_size=config.batch_size // config.grad_accumulation,  # of all processes, among which it is split
            num_workers=workers,
            multiprocessing_context=START_METHOD if workers else None,
        )
        self.step, self.optimizer, self.loader = self.accelerator.prepare(step, optimizer, loader)
        if state:  # after accelerate, which would move AdamW's step counts to the device
            module = self.accelerator.unwrap_model(self.step)
            load_optimizer_tensors(self.optimizer.optimizer, module, state.optimizer, str(self.folder.state))
            if self.accelerator.scaler and state.notes.scaler:  # a run may move to a device that scales nothing
                self.accelerator.scaler.load_state_dict(state.notes.scaler)

    def _frozen(self) -> AbstractContextManager[None]:
        """Return a context in which the tuned weights do not train where a new sensor gets the transfer layer alone."""
        return without_training(self.model.foundation) if self.config.new_sensor else nullcontext()

    @contextmanager
    def session(self) -> Iterator[None]:
        """Lock the run's folder, write what it begins with, and start trackers and callbacks."""
        if not self.accelerator.is_main_process:
            yield
            return
        with self.folder.locked():
            if not self.resumes:
                # Checked again under the lock: another run may have ended here meanwhile.
                self.folder.create(self.config.data)
            self.folder.reopen(self.done if self.has_state else -1)
            atomic_write_text(self.folder.config, dump_toml(self.config))
            atomic_write_json(self.folder.contents, self.setup.contents.notes())
            if warning := write_splits(self.setup.dataset.root, self.setup.dataset.new_splits):
                self.setup = replace(self.setup, notes=(*self.setup.notes, warning))
            with tracked(self.accelerator, self.config) as loggers:
                self.callback = Callbacks([self.callback], [*loggers, *self.of_plugins])
                yield

    def take_step(self, batches: Iterator[Batch]) -> None:
        """Take an optimiser step."""
        config = self.config
        rate = learning_rate(
            self.done,
            peak=self.peak,
            steps=self.setup.steps,
            warmup=self.setup.warmup,
            schedule=config.schedule,
            epoch=self.done * config.batch_size // len(self.setup.train),
        )
        set_rates(self.optimizer, rate)
        # Dropout uses torch's global generator; seeded by step and process, it needs no saved state.
        parts = (config.seed, self.done, self.accelerator.process_index)
        torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))
        totals: defaultdict[str, float] = defaultdict(float)
        with self._frozen():
            set_train_mode(self.model)
            for _ in range(config.grad_accumulation):
                with self.accelerator.accumulate(self.step):
                    losses = self.step(next(batches))
                    self.accelerator.backward(losses["loss"])
                    if self.accelerator.sync_gradients:
                        self._clip(losses["loss"].detach())
                    self.optimizer.step()
                    self.optimizer.zero_grad()
                names = sorted(losses)
                values = torch.stack([losses[name].detach().float() for name in names])
                means = cast(Tensor, self.accelerator.reduce(values, "mean")).tolist()
                for name, value in zip(names, means, strict=True):
                    totals[name] += value / config.grad_accumulation
        self.done += 1
        if not np.isfinite(totals["loss"]):
            raise self._diverged(f"the loss became {totals['loss']}", self.done)
        self._log({"kind": "train", "step": self.done, "lr": rate, **totals})
        self.callback.stepped(self.done, {**totals, "lr": rate})

    def _clip(self, loss: Tensor) -> None:
        """Clip the gradient; raise if it is not finite, which would make every weight NaN."""
        norm = float(self.accelerator.clip_grad_norm_(self.step.parameters(), self.config.grad_clip or math.inf))
        if self.config.precision != "fp16" and not math.isfinite(norm):  # fp16's scaler skips such a step
            what = f"gradient became {norm}" if bool(loss.isfinite()) else f"loss became {float(loss)}"
            raise self._diverged(f"the {what}", self.done + 1)

    def _diverged(self, what: str, step: int) -> Diverged:
        precision = self.config.precision
        return Diverged(
            f"{what} at step {step}; lower --lr (now {self.peak:g})"
            + ("" if precision == "fp32" else f" or use --precision fp32 (now {precision})")
        )

    def validate(self) -> Scores:
        """Score the network on the validation split."""
        accelerator = self.accelerator
        share_buffers(self.model, accelerator)
        processes = self.processes
        self.callback.preparing("validation", len(processes.share(self.setup.val)))
        setup, spec = self.setup, self.setup.spec
        return validate(
            Predictor(self.model, setup.pipeline, dense=spec.dense, image_side=spec.image_side),
            setup.dataset,
            setup.val,
            find_protocol(self.config.protocol),
            processes=processes,
            progress=self.callback.advanced,
            registry=self.registry,
        )

    def record(self, scores: Scores, joint: float | None = None) -> tuple[dict[str, Any], bool]:
        """Log a validation; return its summary, and whether it is the best so far.

        `joint` is the score of several sensors, which chooses in place of its own.
        """
        summary = scores.summary()
        score = selection_score(summary) if joint is None else joint
        if joint is not None or scores.unprompted is not None:
            summary["score"] = score
        better = self.best is None or score > self.best.chosen_by
        self._log({"kind": "val", "step": self.done, **{k: v for k, v in summary.items() if k != "iou_by_class"}})
        if better:
            self.best = Best(miou=summary["miou_object"], step=self.done, score=summary.get("score"))
        return summary, better

    def result(
        self, scores: Scores, summary: Mapping[str, Any], seen: Mapping[str, ImageDigests | None]
    ) -> tuple[BundleSpec, dict[str, Tensor]]:
        """Return what a bundle holds of it; `seen` are the images of its weights, as `TrainingPlan.seen` has them."""
        metrics = {"val": summary, "step": self.done, "protocol": self.config.protocol}
        spec = bundle_spec(self.setup.spec, metrics, calibration=fit_calibration(scores.confidence()), **seen)
        return spec, trained_tensors(self.model)

    def save(self, path: Path) -> None:
        """Write the state of the run."""
        if self.accelerator.is_main_process:
            notes = RunNotes(
                step=self.done,
                settings=settings_of(self.config),
                spec=self.setup.spec,
                fingerprint=self.setup.contents.fingerprint,
                best=self.best,
                scaler=dict(self.accelerator.scaler.state_dict()) if self.accelerator.scaler else None,
            )
            optimizer = optimizer_tensors(self.optimizer.optimizer, self.accelerator.unwrap_model(self.step))
            save_state(path, RunState(trained_tensors(self.model), optimizer, notes))
        self.accelerator.wait_for_everyone()

    def _log(self, record: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.folder.log(record)

    def plan(self, val_every: int) -> RunPlan:
        """Return what is known before the first step; `val_every` is that of the training."""
        with self._frozen():
            trainable, total = count_parameters(self.model)
        return RunPlan(
            config=self.config,
            data=self.setup.dataset.root,
            splits=frozenset(sample.split for sample in self.setup.dataset.samples),
            val=tuple(sample.id for sample in self.setup.val),
            train_samples=len(self.setup.train),
            steps=self.setup.steps,
            first_step=self.done,
            val_every=val_every,
            trainable=trainable,
            total=total,
            device=str(self.accelerator.device),
            processes=self.accelerator.num_processes,
            best_miou=self.best.miou if self.best else None,
            best_step=self.best.step if self.best else None,
            notes=self.setup.notes,
        )


def _checkpoint_gradients(model: SimMAT, name: str) -> None:
    turn_on = getattr(model.foundation, "gradient_checkpointing", None)
    if turn_on is None:
        raise ConfigError(
            f"foundation model {name!r} has no gradient checkpointing; leave --gradient-checkpointing out, "
            "or save memory with --batch-size, --grad-accumulation or --image-size"
        )
    turn_on()


def _share_foundation(model: SimMAT, other: SimMAT, config: TrainConfig) -> None:
    """Give a network the foundation model of another one, of which the same parameters train."""
    if trainable_state(model.foundation).keys() != trainable_state(other.foundation).keys():
        raise ConfigError(
            f"sensor {config.out.name!r}: behind its transfer layer other weights of the foundation model train than "
            "for the first sensor; give all sensors the same `mat`"
        )
    model.foundation = other.foundation
