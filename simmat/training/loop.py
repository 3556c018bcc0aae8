"""Train and resume: the training loop; in a round each run takes a step, and a training of one sensor is one run.

`score_untrained` scores a network as it is before its first step.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import cast

import torch
from torch import Tensor

from simmat.bundle import write_sensors
from simmat.callbacks import Callback
from simmat.config import TrainConfig, load_config
from simmat.errors import ConfigError, SimMATError
from simmat.evaluation import Scores, evaluate, find_protocol
from simmat.io.files import atomic_folder, atomic_write_text, recover_folder
from simmat.model import assemble, count_parameters
from simmat.nn.device import fixed_threads, launched_processes, pick_device
from simmat.nn.losses import Loss, MaskLoss
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.sensor_tables import dump_sensors, load_sensors
from simmat.training.run import Run, selection_score
from simmat.training.run_folder import STATES, RunFolder
from simmat.training.setup import joined, prepare


class Interrupted(SimMATError):
    """The run was stopped by a signal; its state is saved."""


def train(
    config: TrainConfig, registry: Registry, callback: Callback | None = None, *, loss: Loss | MaskLoss | None = None
) -> Path:
    """Run a training from its first step; return the folder of the best bundle by validation.

    A `loss` replaces that of the config.

    Raises:
        SimMATError: a problem with names, data, weights or the output folder.
        Interrupted: a signal arrived; the state is saved.
    """
    if loss is not None:
        config = config.model_copy(update={"loss": "custom"})
    run = Run(config, registry, callback or Callback(), resume=False, loss=loss)
    _Rounds([run], config.out).run()
    return run.folder.bundle


def train_sensors(
    sensors: Mapping[str, TrainConfig],
    registry: Registry,
    callbacks: Mapping[str, Callback] | None = None,
    *,
    resume: bool = False,
) -> Path:
    """Train one foundation model for several sensors, each with a transfer layer and dense head of its own.

    The run of a sensor is an ordinary run, in a folder of its own; in a round each takes one step. The bundle serves
    them all, and is that of the round with the best mean of the validation scores.

    Args:
        sensors: name -> settings as `load_sensors` returns them, with `out` = the training's folder / name.
        callbacks: name -> what is told of the run of a sensor.
        resume: continue from the last state of all.

    Returns:
        The folder of the training.

    Raises:
        SimMATError: as `train`.
    """
    if launched_processes() > 1:
        raise ConfigError("several sensors are trained in one process; start `simmat train` without a launcher")
    whole = RunFolder(next(iter(sensors.values())).out.parent)
    if not resume:
        whole.create(next(iter(sensors.values())).data)
    states, runs = recover_folder(whole.root / STATES), list[Run]()
    if (kept := {state.stem for state in states.glob("*.safetensors")}) and kept != sensors.keys():
        raise ConfigError(
            f"{whole.config} has the sensors {', '.join(sensors)}, but this training was started with "
            f"{', '.join(sorted(kept))} ({states}); restore it, or start a new training"
        )
    for name, config in sensors.items():
        runs.append(
            Run(
                config,
                registry,
                (callbacks or {}).get(name) or Callback(),
                resume=resume,
                whole=whole.root,
                shared_with=runs[0] if runs else None,
            )
        )
    with whole.locked():
        atomic_write_text(whole.config, dump_sensors(dict(zip(sensors, (run.config for run in runs), strict=True))))
        _Rounds(runs, whole.root, states).run()
    return whole.root


def resume(
    root: Path,
    registry: Registry,
    callback: Callback | None = None,
    *,
    loss: Loss | MaskLoss | None = None,
    data: Path | None = None,
) -> Path:
    """Resume a run from its last state; return the folder of the best bundle by validation.

    A run with a `loss` of its own needs that again. `data` is where its data set lies now, if that was moved.

    The result equals that of an uninterrupted run: to the bit on a CPU with the same number of threads, up to rounding
    elsewhere.

    Raises:
        ConfigError: there is no run, or its settings, data or weights have changed.
        DataError: its state is damaged.
        BundleError: its best bundle is damaged.
        Interrupted: a signal arrived; the state is saved.
    """
    folder = RunFolder(root)
    if not folder.config.is_file():
        raise ConfigError(f"--resume {root}: no run there (no config.toml); give the folder that --out named")
    if sensors := load_sensors(folder.config, {"out": root}):
        return train_sensors(sensors, registry, dict.fromkeys(sensors, callback or Callback()), resume=True)
    if (root.absolute().parent / STATES / f"{root.name}.safetensors").exists():
        raise ConfigError(f"--resume {root}: it is the run of one of several sensors; resume all: {root.parent}")
    moved = {} if data is None else {"data": data}
    config = load_config(folder.config, {"out": root, **moved})
    run = Run(config, registry, callback or Callback(), resume=True, loss=loss)
    _Rounds([run], root).run()
    return run.folder.bundle


@dataclass(frozen=True)
class UntrainedScores:
    """The result of `score_untrained`."""

    scores: Scores
    parameters: int
    fingerprint: str
    device: str


def score_untrained(
    config: TrainConfig, registry: Registry, split: str, *, everything: bool = False
) -> UntrainedScores:
    """Build the network of a config as `train` does, and score it untrained on "train", "val" (as `train`) or "test".

    The channel statistics are always those of the training images. `everything` also finds every object by a grid of
    clicks.
    """
    setup = prepare(config, registry, Callback())
    device = pick_device(config.device)
    model = assemble(setup.spec.model_copy(update={"dense": None}), setup.parts).to(device)
    samples = setup.val if split == "val" else setup.dataset.split(split)
    predictor = Predictor(model, setup.pipeline, image_side=setup.spec.image_side)
    protocol = find_protocol(config.protocol)
    scores = evaluate(predictor, setup.dataset, samples, protocol=protocol, everything=everything, registry=registry)
    return UntrainedScores(scores, count_parameters(model)[1], setup.contents.fingerprint, str(device))


class _Rounds:
    """Runs that take their steps in turn; a training of one sensor is one run.

    Args:
        runs: of as many steps each.
        out: folder of the whole training.
        states: folder of the states of several runs, which is replaced as a whole.
    """

    def __init__(self, runs: Sequence[Run], out: Path, states: Path | None = None) -> None:
        self.runs, self.out, self.states = runs, out, states
        self.steps = runs[0].setup.steps
        self.val_every = max(run.setup.val_every for run in runs)
        self.seen = reduce(joined, (run.setup.seen for run in runs))  # the shared weights have seen the images of all
        self.stop = False

    @property
    def done(self) -> int:
        """Rounds that are done."""
        return self.runs[-1].done

    def run(self) -> None:
        """Train to the last step; raise Interrupted after a signal."""
        with ExitStack() as stack:
            stack.enter_context(fixed_threads())
            for run in self.runs:
                stack.enter_context(run.session())
                run.callback.started(run.plan(self.val_every))
            stack.enter_context(_signals(self))
            self._train()

    def _train(self) -> None:
        if not all(run.best for run in self.runs):
            for run in self.runs:
                run.best = None  # all bundles are of one round
            self._validate()
            self._save()
        batches = [iter(run.loader) for run in self.runs]
        while self.done < self.steps:
            for run, own in zip(self.runs, batches, strict=True):
                run.take_step(own)
            last = self.done == self.steps
            stop = self._agreed_stop()
            if last or stop or self.done % self.val_every == 0:
                if last or self.done % self.val_every == 0:
                    self._validate()
                self._save()
            if stop and not last:
                for run in self.runs:
                    run.callback.stopped()
                raise Interrupted(
                    f"stopped after step {self.done} of {self.steps}; the state is saved. "
                    f"Resume with `{RunFolder(self.out).resume_command}`"
                )
        for run in self.runs:
            run.accelerator.wait_for_everyone()  # the others need not wait for callbacks
            run.callback.finished(run.folder.bundle)

    def _validate(self) -> None:
        first, scores = self.runs[0], [run.validate() for run in self.runs]
        joint = fmean(selection_score(found.summary()) for found in scores) if len(scores) > 1 else None
        records = [run.record(found, joint) for run, found in zip(self.runs, scores, strict=True)]
        found = list(zip(self.runs, scores, records, strict=True))
        if records[0][1] and first.accelerator.is_main_process:  # several have one score
            results = {run.sensor: run.result(own, summary, self.seen) for run, own, (summary, _) in found}
            write_sensors(first.folder.bundle_root, {**first.others, **results})
        for run, own, (summary, best) in found:
            run.callback.validated(self.done, summary, best=best, scores=own)

    def _save(self) -> None:
        if self.states is None:
            self.runs[0].save(self.runs[0].folder.state)
            return
        with atomic_folder(self.states) as folder:
            for run in self.runs:
                run.save(folder / run.folder.state.name)

    def _agreed_stop(self) -> bool:
        accelerator = self.runs[0].accelerator
        if accelerator.num_processes == 1:
            return self.stop
        flag = torch.tensor(float(self.stop), device=accelerator.device)
        return bool(cast(Tensor, accelerator.reduce(flag, "sum")) > 0)


@contextmanager
def _signals(rounds: _Rounds) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop the training after the current round; a second one stops it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: object) -> None:
        if rounds.stop:
            signal.default_int_handler(number, None)
        rounds.stop = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
