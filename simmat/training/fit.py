"""The training loop: in each round every sensor takes a step; a training of one sensor is one of several with one."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn

from simmat.bundle import (
    BundleSpec,
    bundle_spec,
    packages_of,
    trained_tensors,
    write_sensors,
)
from simmat.calibration import fit_calibration
from simmat.callbacks import Callback, Callbacks, RunInfo, tracked, warned_of_plugin
from simmat.config import TrainConfig, dump_toml
from simmat.data.samples import SPLITS, Sample, draw_samples, write_splits
from simmat.errors import ConfigError, SimMATError
from simmat.evaluation import Scores, find_protocol, validate
from simmat.io.files import atomic_folder, atomic_write_json, atomic_write_text
from simmat.model import SimMAT, count_parameters
from simmat.model_spec import ModelSpec
from simmat.nn.device import Processes, fixed_threads
from simmat.nn.losses import Batch
from simmat.nn.tuners import set_train_mode, without_training
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.training.length import Ending
from simmat.training.mean_weights import forget_mean, mean_weights, update_mean
from simmat.training.plan import TrainingPlan, joined
from simmat.training.run_folder import (
    Best,
    RunFolder,
    RunNotes,
    RunState,
    optimizer_tensors,
    save_state,
    settings_of,
)
from simmat.training.step import learning_rate, set_rates

MAX_NEW_IMAGES = 60
"""Most images that the bundle of --init is scored on before it trains on them."""


class Interrupted(SimMATError):
    """The run was stopped by a signal; its state is saved."""


class Diverged(ConfigError):
    """The loss or its gradient is not finite; the learning rate is too high."""


@dataclass(eq=False, kw_only=True)
class Learner:
    """The network of a sensor while it trains, in one of its processes.

    Attributes:
        plan: what the training does.
        folder: the folder of the run.
        callback: what is told of the run.
        accelerator: device, precision and processes.
        model: the network.
        spec: the network as a value; unlike that of the plan it has the layout of the embeddings.
        training_step: the network with its loss, a `TrainingStep` prepared by accelerate, as are optimiser and loader.
        optimizer: over the parameters of `training_step` that train.
        loader: of the batches that are left.
        other_sensors: spec and tensors of the sensors of a bundle to which its own is added, by name.
        resumes: whether the run was started before.
        saved_step: the step of the state that it continues from; -1 without one.
        done: steps that are done.
        best: the best validation so far; None before the first.
        scores: of the validations after 0, `val_every`, 2 `val_every` … steps, if they decide the end.
    """

    plan: TrainingPlan
    folder: RunFolder
    callback: Callback
    accelerator: Accelerator
    model: SimMAT
    spec: ModelSpec
    training_step: nn.Module
    optimizer: Any
    loader: Any
    other_sensors: Mapping[str, tuple[BundleSpec, Mapping[str, Tensor]]]
    resumes: bool
    saved_step: int
    done: int
    best: Best | None
    scores: list[float] = field(default_factory=list)

    @property
    def ending(self) -> Ending:
        """When the training ends, as far as that is known."""
        plan = self.plan
        if plan.open_end is None:
            return Ending(plan.warmup, plan.steps)
        return plan.open_end.ending(self.scores, plan.val_every)

    @property
    def end_is_known(self) -> bool:
        """Whether the number of steps is fixed, or the cool-down has begun."""
        return self.plan.open_end is None or self.done >= self.ending.cooldown_start

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and reports."""
        return bool(self.accelerator.is_main_process)

    def log(self, record: dict[str, Any]) -> None:
        """Append a record to the log of the run."""
        if self.is_main:
            self.folder.log(record)


def frozen_for_new_sensor(
    model: SimMAT, config: TrainConfig
) -> AbstractContextManager[None]:
    """Return a context in which the foundation model does not train if the run adds a sensor to a bundle.

    Its tuned weights serve the other sensors of that bundle, too. The context of any other run changes nothing.
    """
    if config.new_sensor:
        return without_training(model.foundation)
    return nullcontext()


def fit(learners: Sequence[Learner], registry: Registry) -> None:
    """Train to the last step, and keep the bundle with the best score, or with `keep = "last"` the last one.

    Args:
        learners: one for each sensor, of as many steps each; those after the first share its foundation model.
        registry: what is installed.

    Raises:
        Diverged: the loss is not finite.
        Interrupted: a signal arrived; the state is saved.
    """
    first = learners[0]
    # all sensors are validated together, so as seldom as the one with the most work needs
    val_every = max(learner.plan.val_every for learner in learners)
    signals: list[int] = []  # those that arrived
    with ExitStack() as stack:
        stack.enter_context(fixed_threads())
        for learner in learners:
            notes = open_run(learner, registry, stack)
            learner.callback.started(_run_info(learner, val_every, notes))
        stack.enter_context(_signals_noted_in(signals))

        # before the first step, or without the bundle of a resumed run
        if any(learner.best is None for learner in learners):
            for learner in learners:
                # the bundle holds all sensors as they were after one round, so none keeps an earlier best
                learner.best = None
                score_new_images(learner, registry)
            validate_all(learners, registry)
            save_all(learners)

        batches = [iter(learner.loader) for learner in learners]
        while first.done < first.ending.steps:
            for learner, own_batches in zip(learners, batches, strict=True):
                take_step(learner, own_batches)
            is_last = first.done == first.ending.steps
            due = is_last or first.done % val_every == 0
            stopping = _any_process(bool(signals), first.accelerator)
            if due:
                validate_all(learners, registry)
            if due or stopping:
                save_all(learners)
            if stopping and not is_last:
                for learner in learners:
                    learner.callback.stopped()
                raise Interrupted(
                    f"stopped after step {first.done} of {first.ending.steps}; the state is saved. "
                    f"Resume with `{first.folder.resume_command}`"
                )

        for learner in learners:
            # the others need not wait for callbacks
            learner.accelerator.wait_for_everyone()
            learner.callback.finished(learner.folder.bundle)


def open_run(learner: Learner, registry: Registry, stack: ExitStack) -> tuple[str, ...]:
    """Lock the run's folder, write what a run begins with, and start trackers and callbacks.

    Args:
        learner: of the run; in processes other than the main one nothing is done.
        registry: has the callbacks of plugins.
        stack: releases the lock and ends the trackers.

    Returns:
        What a user should know before the first step: the notes of the plan and a warning.
    """
    plan = learner.plan
    if not learner.is_main:
        return plan.notes
    folder = learner.folder
    stack.enter_context(folder.locked())
    if not learner.resumes:
        # checked again under the lock: another run may have ended here meanwhile
        folder.create(plan.config.data)
    folder.remove_records_after(learner.saved_step)
    atomic_write_text(folder.config, dump_toml(plan.config))
    atomic_write_json(folder.contents, plan.contents.notes())
    warning = write_splits(plan.dataset.root, plan.dataset.new_splits)
    loggers = stack.enter_context(tracked(learner.accelerator, plan.config))
    learner.callback = Callbacks(
        [learner.callback], [*loggers, *callbacks_of_plugins(plan.config, registry)]
    )
    return tuple(filter(None, (*plan.notes, warning)))


def callbacks_of_plugins(
    config: TrainConfig, registry: Registry
) -> list[tuple[str, Callback]]:
    """Return (package, callback) of all that plugins have for a run."""
    found: list[tuple[str, Callback]] = []
    for hook in registry.all("callbacks"):
        package = registry.owner("callbacks", hook.name)
        with warned_of_plugin(package):
            for given in hook.make(config=config, registry=registry):
                for member in given:
                    found.append((package, member))
    return found


def _run_info(learner: Learner, val_every: int, notes: tuple[str, ...]) -> RunInfo:
    """Return what callbacks are told before the first step."""
    plan = learner.plan
    with frozen_for_new_sensor(learner.model, learner.plan.config):
        trainable, total = count_parameters(learner.model)
    fewest_steps = learner.ending.steps
    if plan.open_end is not None and not learner.end_is_known:
        fewest_steps = max(plan.open_end.min_steps, learner.done)
    return RunInfo(
        config=plan.config,
        data=plan.dataset.root,
        splits=frozenset(filter(plan.dataset.has_split, SPLITS)),
        val=tuple(sample.id for sample in plan.val),
        train_samples=len(plan.train),
        steps=learner.ending.steps,
        fewest_steps=fewest_steps,
        first_step=learner.done,
        val_every=val_every,
        trainable=trainable,
        total=total,
        device=str(learner.accelerator.device),
        processes=learner.accelerator.num_processes,
        best_miou=learner.best.miou if learner.best else None,
        best_step=learner.best.step if learner.best else None,
        notes=notes,
    )


def take_step(learner: Learner, batches: Iterator[Batch]) -> None:
    """Take an optimiser step; raise Diverged if the loss or its gradient is not finite."""
    plan, config, accelerator = learner.plan, learner.plan.config, learner.accelerator
    ending = learner.ending
    rate = learning_rate(
        learner.done,
        peak=plan.peak_rate,
        steps=ending.steps,
        warmup=plan.warmup,
        cooldown_start=ending.cooldown_start,
        schedule=config.schedule,
        epoch=learner.done * config.batch_size // len(plan.epoch_samples),
    )
    set_rates(learner.optimizer, rate)
    # Dropout uses torch's global generator; seeded by step and process, it needs no saved state.
    seeds = np.random.SeedSequence(
        (config.seed, learner.done, accelerator.process_index)
    )
    torch.manual_seed(int(seeds.generate_state(1)[0]))
    totals: dict[str, float] = {}
    with frozen_for_new_sensor(learner.model, learner.plan.config):
        set_train_mode(learner.model)
        for _ in range(config.grad_accumulation):
            with accelerator.accumulate(learner.training_step):
                losses: dict[str, Tensor] = learner.training_step(next(batches))
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    _clip_gradient(learner, losses["loss"].detach())
                learner.optimizer.step()
                learner.optimizer.zero_grad()
            names = sorted(losses)
            values = torch.stack([losses[name].detach().float() for name in names])
            means = cast(Tensor, accelerator.reduce(values, "mean")).tolist()
            for name, value in zip(names, means, strict=True):
                totals[name] = totals.get(name, 0.0) + value / config.grad_accumulation
    learner.done += 1
    # the mean of the last weights is validated until the cool-down begins, then the weights themselves
    if learner.end_is_known:
        forget_mean(learner.optimizer.optimizer)
    else:
        update_mean(learner.optimizer.optimizer, learner.done)
    if not np.isfinite(totals["loss"]):
        raise _diverged(learner, f"the loss became {totals['loss']}", learner.done)
    learner.log({"kind": "train", "step": learner.done, "lr": rate, **totals})
    learner.callback.stepped(learner.done, {**totals, "lr": rate})


def _clip_gradient(learner: Learner, loss: Tensor) -> None:
    """Clip the gradient; raise if it is not finite, which would make every weight NaN."""
    config = learner.plan.config
    norm = float(
        learner.accelerator.clip_grad_norm_(
            learner.training_step.parameters(), config.grad_clip or math.inf
        )
    )
    # fp16's scaler skips such a step
    if config.precision != "fp16" and not math.isfinite(norm):
        what = f"the gradient became {norm}"
        if not loss.isfinite():
            what = f"the loss became {float(loss)}"
        raise _diverged(learner, what, learner.done + 1)


def _diverged(learner: Learner, what: str, step: int) -> Diverged:
    precision = learner.plan.config.precision
    message = f"{what} at step {step}; lower --lr (now {learner.plan.peak_rate:g})"
    if precision != "fp32":
        message += f" or use --precision fp32 (now {precision})"
    return Diverged(message)


def validate_all(learners: Sequence[Learner], registry: Registry) -> None:
    """Score all networks, and write their bundle if it is to be kept; the score of several is their mean.

    Until the end is known, it is the mean of the last steps' weights that is scored and kept.
    """
    with mean_weights([learner.optimizer.optimizer for learner in learners]):
        found = [_scores_of(learner, registry) for learner in learners]
        summaries = [scores.summary() for scores in found]
        joint_score = None
        if len(learners) > 1:
            joint_score = fmean(selection_score(summary) for summary in summaries)
        # several sensors have one bundle, which is chosen if one of them has a validation to choose by
        chooses = any(learner.plan.config.keep == "best" for learner in learners)
        better = False
        for learner, scores, summary in zip(learners, found, summaries, strict=True):
            # several sensors have one score, so all are better, or none
            better = _log_and_compare(
                learner, scores, summary, joint_score, chooses=chooses
            )
        if better and learners[0].is_main:
            _write_bundle(learners, found, summaries, registry)
        for learner, scores, summary in zip(learners, found, summaries, strict=True):
            learner.callback.validated(
                learner.done, summary, best=better, scores=scores
            )
            if learner.end_is_known:
                learner.callback.ending(learner.ending.steps)


def _write_bundle(
    learners: Sequence[Learner],
    found: Sequence[Scores],
    summaries: Sequence[dict[str, Any]],
    registry: Registry,
) -> None:
    """Write the bundle of all sensors, with the scores of this validation and their summaries."""
    # shared weights have seen the images of all
    seen = reduce(joined, (learner.plan.seen for learner in learners))
    sensors = dict(learners[0].other_sensors)
    for learner, scores, summary in zip(learners, found, summaries, strict=True):
        metrics = {
            "val": summary,
            "step": learner.done,
            "protocol": learner.plan.config.protocol,
        }
        spec = bundle_spec(
            learner.spec,
            metrics,
            calibration=fit_calibration(scores.confidence()),
            packages=packages_of(learner.spec, registry),
            inputs=learner.plan.inputs,
            **seen,
        )
        sensors[learner.folder.sensor] = (spec, trained_tensors(learner.model))
    write_sensors(learners[0].folder.bundle_file, sensors)


def score_new_images(learner: Learner, registry: Registry) -> None:
    """Log the score that the bundle of --init has on images which it does not know, before it trains on them.

    The record has the number of images that the bundle was trained on, as "labels", and the scores. There is none
    without such images, if the bundle does not state what it was trained on, or if it is one of another sensor.
    """
    plan = learner.plan
    init_spec = plan.init_spec
    if init_spec is None or learner.done or plan.config.new_sensor:
        return
    if init_spec.trained_on is None or init_spec.validated_on is None:
        return
    samples = (*plan.train, *plan.val)
    digests = plan.contents.reference_digests(samples)
    windows = [sample.window for sample in samples]
    trained = init_spec.trained_on.has(digests, windows)
    validated = init_spec.validated_on.has(digests, windows)
    new = []
    for sample, is_trained, is_validated in zip(
        samples, trained, validated, strict=True
    ):
        if not is_trained and not is_validated:
            new.append(sample)
    chosen = draw_samples(new, min(len(new), MAX_NEW_IMAGES), plan.config.seed)
    # only training samples are known to have a region; without one there is nothing to score
    if not any(sample in plan.train for sample in chosen):
        return
    scores = _scores_of(learner, registry, chosen)
    summary = scores.summary()
    del summary["iou_by_class"]
    labels = len({digest for digest, _ in init_spec.trained_on.rows()})
    learner.log({"kind": "new", "step": 0, "labels": labels, "scores": summary})


def _scores_of(
    learner: Learner, registry: Registry, samples: Sequence[Sample] | None = None
) -> Scores:
    """Score a network on samples, by default those of validation."""
    plan = learner.plan
    accelerator = learner.accelerator
    if samples is None:
        samples = plan.val
    _share_buffers(learner.model, accelerator)
    processes = Processes(
        accelerator.device, accelerator.process_index, accelerator.num_processes
    )
    learner.callback.preparing("validation", len(processes.share(samples)))
    return validate(
        Predictor(
            learner.model,
            plan.pipeline,
            dense=learner.spec.dense,
            image_side=learner.spec.image_side,
            takes_windows=bool(learner.spec.card.crop),
        ),
        plan.dataset,
        samples,
        find_protocol(plan.config.protocol),
        share=plan.val_share,
        processes=processes,
        progress=learner.callback.advanced,
        registry=registry,
    )


@torch.no_grad()
def _share_buffers(model: torch.nn.Module, accelerator: Accelerator) -> None:
    """Copy the buffers of process 0 to all others: BatchNorm's running statistics differ between them after a step.

    All processes call this before the network is scored; the network of process 0 is the one that is saved.
    """
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.contiguous(), from_process=0))


def _log_and_compare(
    learner: Learner,
    scores: Scores,
    summary: dict[str, Any],
    joint_score: float | None,
    *,
    chooses: bool,
) -> bool:
    """Log a validation; return whether it is better than the best so far, and if so make it the best.

    Args:
        learner: the network of a sensor.
        scores: of its validation.
        summary: `Scores.summary` of them, which gets "score" if that is not the mean IoU.
        joint_score: mean score of several sensors, by which they are compared; None if there is one sensor.
        chooses: whether the best is kept; if not, each validation is taken for better than those before.
    """
    score = joint_score
    if score is None:
        score = selection_score(summary)
    if joint_score is not None or scores.unprompted is not None:
        summary["score"] = score
    plan = learner.plan
    # the last step, and a resumed run without its bundle, are validated at other steps, too
    is_regular = learner.done == len(learner.scores) * plan.val_every
    if plan.open_end is not None and is_regular:
        learner.scores.append(score)
    logged = {name: value for name, value in summary.items() if name != "iou_by_class"}
    learner.log({"kind": "val", "step": learner.done, **logged})
    if chooses and learner.best is not None and score <= learner.best.chosen_by:
        return False
    learner.best = Best(
        miou=summary["miou_object"], step=learner.done, score=summary.get("score")
    )
    return True


def selection_score(summary: Mapping[str, Any]) -> float:
    """Return the score by which the best bundle is chosen, from `Scores.summary` of a validation.

    It is the mean IoU of one click, or with a dense head its mean with the AP50 of every object and the mIoU of the
    class map, as far as there are such figures.
    """
    figures = [float(summary["miou_object"])]
    for block, key in (("everything", "ap50"), ("semantic", "miou")):
        value = summary.get(block, {}).get(key)
        if value is not None:
            figures.append(value)
    return fmean(figures)


def save_all(learners: Sequence[Learner]) -> None:
    """Write the state of each learner; those of several sensors are replaced as a whole."""
    states = learners[0].folder.states
    if states is None:
        (learner,) = learners
        _save(learner, learner.folder.state)
        return
    with atomic_folder(states) as folder:
        for learner in learners:
            _save(learner, folder / learner.folder.state.name)


def _save(learner: Learner, path: Path) -> None:
    """Write the state of a learner."""
    accelerator = learner.accelerator
    if learner.is_main:
        notes = RunNotes(
            step=learner.done,
            settings=settings_of(learner.plan.config),
            spec=learner.spec,
            fingerprint=learner.plan.contents.fingerprint,
            best=learner.best,
            scores=learner.scores,
            scaler=dict(accelerator.scaler.state_dict())
            if accelerator.scaler
            else None,
        )
        moments = optimizer_tensors(
            learner.optimizer.optimizer, accelerator.unwrap_model(learner.training_step)
        )
        save_state(path, RunState(trained_tensors(learner.model), moments, notes))
    accelerator.wait_for_everyone()


def _any_process(flag_here: bool, accelerator: Accelerator) -> bool:
    """Return whether a flag is set in any of the processes, so that all stop after the same step."""
    if accelerator.num_processes == 1:
        return flag_here
    flag = torch.tensor(float(flag_here), device=accelerator.device)
    return bool(cast(Tensor, accelerator.reduce(flag, "sum")) > 0)


@contextmanager
def _signals_noted_in(signals: list[int]) -> Iterator[None]:
    """Note Ctrl-C and SIGTERM, which stop the training after the current round; a second one stops it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: object) -> None:
        if signals:
            signal.default_int_handler(number, None)
        signals.append(number)

    before = {
        number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
