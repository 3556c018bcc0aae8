"""Build what trains: the network with its start weights, optimiser and loader, prepared by accelerate."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, GradientAccumulationPlugin
from torch import Tensor
from torch.utils.data import DataLoader

from simmat.assemble import assemble, with_layout
from simmat.bundle import (
    Sensors,
    load_tensors,
    read_bundle,
    read_sensors,
    trained_tensors,
)
from simmat.callbacks import Callback
from simmat.config import TrainConfig
from simmat.data.batches import TrainingItems
from simmat.errors import ConfigError
from simmat.model import SimMAT
from simmat.nn.device import launched_processes, own_settings, pick_device
from simmat.nn.tuners import pretrained_backbone, trainable_state
from simmat.threads import START_METHOD, memory_limit, usable_cpus
from simmat.training.fit import Learner, frozen_for_new_sensor
from simmat.training.plan import TrainingPlan
from simmat.training.run_folder import RunFolder, RunState, load_optimizer_tensors
from simmat.training.step import TrainingStep, build_optimizer

_MAX_WORKERS = 8
_MIN_ITEMS_PER_WORKER = 32
"""Fewest items for a process that loads data, so that its start pays off."""
_CORES_PER_WORKER = 4
"""Cores for each such process, where the cores compute the steps, too."""


def build_learner(
    plan: TrainingPlan,
    folder: RunFolder,
    callback: Callback,
    accelerator: Accelerator,
    *,
    resumes: bool,
    state: RunState | None,
    own_bundle: Path | None,
    shared_with: Learner | None = None,
) -> Learner:
    """Build the network of a plan with its optimiser and loader, from the weights that it starts or goes on from.

    Args:
        plan: what the training does.
        folder: the folder of the run.
        callback: what is told of the run.
        accelerator: of `make_accelerator`.
        resumes: whether the run was started before.
        state: what it continues from; None from its first step, even of a resumed run that saved no state.
        own_bundle: the bundle that the run has written so far. If a resumed run has none, its present network is
            validated before the next step, and becomes the best.
        shared_with: the learner of another sensor, whose foundation model and optimiser moments it shares.

    Raises:
        SimMATError: weights, or the state or bundle of the run, are damaged or do not fit.
    """
    config = plan.config
    model = assemble(plan.spec, plan.parts)
    spec = with_layout(plan.spec, model)
    if shared_with is not None:
        _share_foundation(model, shared_with.model, config)
    if config.gradient_checkpointing:
        _checkpoint_gradients(model, config.foundation)
    best = None
    if state is not None and own_bundle is not None:
        best = state.notes.best
        if shared_with is None and accelerator.is_main_process:
            read_sensors(own_bundle)  # refused before the first step if it is damaged
    other_sensors: Sensors = {}
    source = own_bundle or config.init
    if config.new_sensor and source is not None:
        other_sensors = read_sensors(source)
        other_sensors.pop(folder.sensor, None)
    done = 0
    saved_step = -1
    if state is not None:
        done = saved_step = state.notes.step
        load_tensors(model, state.model, str(folder.state))
    elif other_sensors and config.init is not None:
        _, tensors = next(iter(other_sensors.values()))
        _load_foundation(model, tensors, config.init)
    elif config.init is not None:
        _load_start(model, config.init)
    with frozen_for_new_sensor(model, config):
        training_step = TrainingStep(
            model,
            plan.loss,
            box_fraction=config.box_fraction,
            correction_clicks=config.correction_clicks,
        )
        optimizer = build_optimizer(
            training_step,
            weight_decay=config.weight_decay,
            backbone=pretrained_backbone(
                model.foundation, plan.parts.foundation.targets
            ),
            backbone_factor=config.backbone_lr_factor,
        )
        loader = _loader(plan, accelerator, done)
        prepared = accelerator.prepare(training_step, optimizer, loader)
    learner = Learner(
        plan=plan,
        folder=folder,
        callback=callback,
        accelerator=accelerator,
        model=model,
        spec=spec,
        training_step=prepared[0],
        optimizer=prepared[1],
        loader=prepared[2],
        other_sensors=other_sensors,
        resumes=resumes,
        saved_step=saved_step,
        done=done,
        best=best,
        scores=[] if state is None else list(state.notes.scores),
    )
    # after accelerate, which would move AdamW's step counts to the device
    if state is not None:
        module = accelerator.unwrap_model(learner.training_step)
        load_optimizer_tensors(
            learner.optimizer.optimizer, module, state.optimizer, str(folder.state)
        )
        # the loss scale of fp16; a run may be resumed on a device that needs none
        if accelerator.scaler and state.notes.scaler:
            accelerator.scaler.load_state_dict(state.notes.scaler)
    if shared_with is not None:
        moments = shared_with.optimizer.optimizer.state
        for parameter in model.foundation.parameters():
            if parameter.requires_grad:
                # AdamW changes moments in place, so both optimisers have one set of them
                learner.optimizer.optimizer.state[parameter] = moments[parameter]
    return learner


def _load_start(model: SimMAT, path: Path) -> None:
    """Put the weights of a bundle into a network; a dense head of other classes starts anew."""
    own = trained_tensors(model)
    given = dict(read_bundle(path)[1])
    own_head = {
        name: tensor.shape for name, tensor in own.items() if name.startswith("dense.")
    }
    given_head = {
        name: tensor.shape
        for name, tensor in given.items()
        if name.startswith("dense.")
    }
    if own_head != given_head:
        for name in given_head:
            del given[name]
        for name in own_head:
            given[name] = own[name]
    load_tensors(model, given, str(path))


def _load_foundation(model: SimMAT, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put the tuned weights of another sensor's foundation model into a network of a new sensor.

    Args:
        model: the network; its transfer layer and dense head stay as they are.
        tensors: the trained tensors of the other sensor, by name.
        path: the bundle that they are from.

    Raises:
        ConfigError: the transfer layer replaces a part of that foundation model.
    """
    own = trained_tensors(model)
    given = dict(own)
    for name, tensor in tensors.items():
        if name.startswith("foundation."):
            given[name] = tensor
    if given.keys() != own.keys():
        raise ConfigError(
            f"--init {path}: another transfer layer stands before its tuned weights, and uses fewer of them; leave "
            "--mat out, so that the new sensor gets one of the same kind"
        )
    load_tensors(model, given, str(path))


def _share_foundation(model: SimMAT, other: SimMAT, config: TrainConfig) -> None:
    """Give a network the foundation model of another one, of which the same parameters train."""
    if (
        trainable_state(model.foundation).keys()
        != trainable_state(other.foundation).keys()
    ):
        raise ConfigError(
            f"sensor {config.out.name!r} trains other weights of the foundation model than the first sensor; "
            "give all sensors the same `mat`"
        )
    model.foundation = other.foundation


def _checkpoint_gradients(model: SimMAT, name: str) -> None:
    turn_on: Callable[[], object] | None = getattr(
        model.foundation, "gradient_checkpointing", None
    )
    if turn_on is None:
        raise ConfigError(
            f"foundation model {name!r} has no gradient checkpointing; leave --gradient-checkpointing out, "
            "or save memory with --batch-size, --grad-accumulation or --image-size"
        )
    turn_on()


def _loader(plan: TrainingPlan, accelerator: Accelerator, done: int) -> DataLoader[Any]:
    """Return the loader of the batches that are left after `done` steps."""
    config = plan.config
    items = plan.items()
    left = (plan.steps - done) * config.batch_size
    workers = loading_processes(config, accelerator, items, left)
    image_bytes = memory_for_images() // (accelerator.num_processes * max(workers, 1))
    return DataLoader(
        replace(items, image_bytes=image_bytes),
        sampler=range(done * config.batch_size, plan.steps * config.batch_size),
        # of all processes, among which it is split
        batch_size=config.batch_size // config.grad_accumulation,
        num_workers=workers,
        multiprocessing_context=START_METHOD if workers else None,
    )


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Return accelerate's `Accelerator` for a run, on the config's device; ConfigError if that cannot be."""
    processes = launched_processes()
    device = pick_device(config.device, processes=processes)
    # accelerate keeps its state for the whole process; a second run in it may need other settings.
    AcceleratorState._reset_state(
        reset_partial_state=not torch.distributed.is_initialized()
    )
    # Of several processes each takes its own GPU; accelerate finds the device for "auto" and "cpu" itself.
    accelerate_chooses = config.device in ("auto", "cpu") or processes > 1
    with own_settings(None if accelerate_chooses else device):
        accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(config.precision, config.precision),
            # Count accumulated batches instead of watching the loader, which may be that of an earlier run.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                config.grad_accumulation, sync_with_dataloader=False
            ),
            cpu=config.device == "cpu",
            dataloader_config=DataLoaderConfiguration(
                split_batches=True, even_batches=False
            ),
            rng_types=[],
            log_with=config.track,
            project_dir=config.out,
        )
    # accelerate would silently use fp32
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError(
            "--precision fp16 needs a GPU, and this run is on the CPU; use fp32 or bf16"
        )
    if config.batch_size // config.grad_accumulation % accelerator.num_processes:
        raise ConfigError(
            f"--batch-size {config.batch_size} must be a multiple of --grad-accumulation "
            f"{config.grad_accumulation} x {accelerator.num_processes} processes, so that all get equally many images"
        )
    return accelerator


def loading_processes(
    config: TrainConfig, accelerator: Accelerator, items: TrainingItems, count: int
) -> int:
    """Return how many processes load the next `count` items: as the config says, or so many that no step waits.

    0 where they would slow it down: for few items, and on a CPU of few cores, which compute the steps. 0, too, on
    systems other than Linux, where each would start Python anew, in a process that may have no children, and where
    /dev/shm, through which they pass batches, has little room.
    """
    if config.workers is not None:
        return config.workers
    if START_METHOD != "fork" or multiprocessing.current_process().daemon:
        return 0
    processes: int = accelerator.num_processes
    cores = usable_cpus() // processes
    if accelerator.device.type == "cpu":
        limit = min(cores, torch.get_num_threads()) // _CORES_PER_WORKER
    else:
        limit = cores - 1
    limit = min(limit, count // processes // _MIN_ITEMS_PER_WORKER, _MAX_WORKERS)
    if limit <= 0:
        return 0
    # all items have the shapes of the first one
    step_bytes = config.batch_size * sum(part.nbytes for part in items[0])
    in_shared_memory = 0
    # each has two batches ready; half of the room is left to others
    with suppress(OSError):
        in_shared_memory = shutil.disk_usage("/dev/shm").free // (4 * step_bytes)
    return min(limit, in_shared_memory)


def memory_for_images() -> int:
    """Return how many bytes of images a run may keep to read them once: an eighth of the machine's or container's."""
    limit = memory_limit()
    installed = int(psutil.virtual_memory().total)
    return min(installed, limit or installed) // 8
