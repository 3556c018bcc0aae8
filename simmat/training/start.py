"""Start and resume trainings, of one sensor or of several: plan each, and build what trains in it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
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

from simmat.bundle import (
    Sensors,
    find_bundle,
    load_tensors,
    old_bundle_at,
    read_bundle,
    read_sensors,
    trained_tensors,
)
from simmat.callbacks import Callback, check_tracker
from simmat.config import MUTABLE_ON_RESUME, TrainConfig, dump_configs, load_configs
from simmat.data.batches import TrainingItems
from simmat.data.dataset import Dataset
from simmat.data.digest import DatasetDigest
from simmat.documents import StrictModel, shown
from simmat.errors import ConfigError
from simmat.io.files import atomic_write_text, recover_folder, require_inside
from simmat.model import SimMAT, assemble, with_layout
from simmat.model_spec import MEASURED_FIELDS, ModelSpec
from simmat.nn.device import (
    faster_precision,
    launched_processes,
    own_settings,
    pick_device,
)
from simmat.nn.losses import Loss, MaskLoss
from simmat.nn.tuners import pretrained_backbone, trainable_state
from simmat.plugins.registry import Registry
from simmat.sensors.normalize import describe
from simmat.threads import START_METHOD, memory_limit, usable_cpus
from simmat.training.fit import Learner, fit, frozen
from simmat.training.network import with_recommended
from simmat.training.plan import (
    TrainingPlan,
    check_out_outside_data,
    plan_run,
)
from simmat.training.run_folder import (
    STATES,
    RunFolder,
    RunState,
    changes_noted,
    load_optimizer_tensors,
    load_state,
    settings_of,
)
from simmat.training.step import TrainingStep, build_optimizer
from simmat.types import Channel, current_aspect

_MAX_WORKERS = 8
_MIN_ITEMS_PER_WORKER = 32
"""Fewest items for a process that loads data, so that its start pays off."""
_CORES_PER_WORKER = 4
"""Cores for each such process, where the cores compute the steps, too."""


def train(
    config: TrainConfig,
    registry: Registry,
    callback: Callback | None = None,
    *,
    loss: Loss | MaskLoss | None = None,
) -> Path:
    """Run a training from its first step; return the best bundle by validation.

    A `loss` replaces that of the config.

    Raises:
        SimMATError: a problem with names, data, weights or the output folder.
        Interrupted: a signal arrived; the state is saved.
    """
    return train_configs({"": config}, registry, {"": callback}, loss=loss)


def resume(
    root: Path,
    registry: Registry,
    callback: Callback | None = None,
    *,
    loss: Loss | MaskLoss | None = None,
    data: Path | None = None,
) -> Path:
    """Resume a training from its last state; return the best bundle by validation, or of several sensors its folder.

    A run with a `loss` of its own needs that again. `data` is where its data set lies now, if that was moved.

    The result equals that of an uninterrupted run: to the bit on a CPU with the same number of threads, up to rounding
    elsewhere.

    Raises:
        ConfigError: there is no run, or its settings, data or weights have changed.
        DataError: its state is damaged.
        BundleError: its best bundle is damaged.
        Interrupted: a signal arrived; the state is saved.
    """
    configs = started_configs(root, data)
    return train_configs(
        configs, registry, dict.fromkeys(configs, callback), resume=True, loss=loss
    )


def started_configs(root: Path, data: Path | None = None) -> dict[str, TrainConfig]:
    """Return the settings of a training that was started, by sensor, see `load_configs`.

    Args:
        root: its folder.
        data: where the data set of its one sensor lies now.

    Raises:
        ConfigError: there is no run, it is one of several sensors, or its settings are wrong.
    """
    file = RunFolder(root).config
    if not file.is_file():
        raise ConfigError(
            f"--resume {root}: no run there (no config.toml); give the folder that --out named"
        )
    if (root.absolute().parent / STATES / f"{root.name}.safetensors").exists():
        raise ConfigError(
            f"--resume {root}: it is the run of one of several sensors; resume all: {root.parent}"
        )
    return load_configs(file, {"out": root, "data": data})


def train_configs(
    configs: Mapping[str, TrainConfig],
    registry: Registry,
    callbacks: Mapping[str, Callback | None] | None = None,
    *,
    resume: bool = False,
    loss: Loss | MaskLoss | None = None,
) -> Path:
    """Run the training of a sensor, or of one foundation model for several sensors; return its result.

    Each of several sensors has a transfer layer and a dense head of its own. Its run is an ordinary run, in a folder of
    its own; in a round each sensor takes one step. The bundle serves them all, and is that of the round with the best
    mean of the validation scores.

    Args:
        configs: name -> settings, as `load_configs` returns them: with `out` = the training's folder / name, or of one
            sensor that has no name with that folder itself.
        callbacks: name -> what is told of the run of a sensor.
        resume: continue from the last state of all.
        loss: what is minimised, in place of the losses that the settings name.

    Returns:
        The folder of the training; of one sensor without a name the best bundle.

    Raises:
        SimMATError: as `train`.
    """
    callbacks = callbacks or {}
    first = next(iter(configs.values()))
    if "" in configs:
        folder = RunFolder(first.out, first.new_sensor)
        fit(
            [
                _learner(
                    first, registry, folder, callbacks.get(""), resume=resume, loss=loss
                )
            ],
            registry,
        )
        return folder.bundle

    if launched_processes() > 1:
        raise ConfigError(
            "several sensors are trained in one process; start `simmat train` without a launcher"
        )
    whole = RunFolder(first.out.parent)
    require_inside(whole.root, *(config.out for config in configs.values()))
    if not resume:
        whole.create(first.data)
    states = recover_folder(whole.root / STATES)
    kept = {state.stem for state in states.glob("*.safetensors")}
    if kept and kept != configs.keys():
        raise ConfigError(
            f"{whole.config} has the sensors {', '.join(configs)}, but this training was started with "
            f"{', '.join(sorted(kept))} ({states}); restore it, or start a new training"
        )
    learners: dict[str, Learner] = {}
    for name, config in configs.items():
        folder = RunFolder(config.out, name, whole.root)
        shared_with = next(iter(learners.values()), None)
        learners[name] = _learner(
            config,
            registry,
            folder,
            callbacks.get(name),
            resume=resume,
            loss=loss,
            shared_with=shared_with,
        )
    with whole.locked():
        planned = {name: learner.plan.config for name, learner in learners.items()}
        atomic_write_text(whole.config, dump_configs(planned))
        fit(list(learners.values()), registry)
    return whole.root


def _learner(
    config: TrainConfig,
    registry: Registry,
    folder: RunFolder,
    callback: Callback | None,
    *,
    resume: bool,
    loss: Loss | MaskLoss | None = None,
    shared_with: Learner | None = None,
) -> Learner:
    """Plan the run of a sensor and build what trains in it, once its settings and its folder are checked."""
    check_tracker(config.track)
    if not resume:
        config = with_recommended(config, registry)
        config = with_measured_precision(config)
    accelerator = make_accelerator(config)
    if callback is None or not accelerator.is_main_process:
        callback = Callback()
    state = None
    own = None
    if not resume:
        check_out_outside_data(config)
        if accelerator.is_main_process:
            folder.create(config.data)
    # a run killed before its first save has a config but no state: it starts from step 0
    elif os.path.lexists(folder.state):  # a link to nowhere is a state that is lost
        state = load_state(folder.state)
        check_settings(config, state.notes.settings)
        if config.keep is None:  # the run has what was chosen at its start
            kept = state.notes.settings.get("keep")
            config = config.model_copy(update={"keep": kept})
        own = find_bundle(folder.bundle_file.parent)
    known = None if state is None else state.notes.spec
    plan = plan_run(config, registry, callback, loss=loss, known=known, own=own)
    if state is not None:
        check_data(folder, state.notes.fingerprint, plan.dataset, plan.contents)
        check_network(plan.config, state.notes.spec, plan.spec)
        plan = replace(plan, notes=(*plan.notes, *_old_bundle_notes(folder)))
    return _build_learner(
        plan,
        folder,
        callback,
        accelerator,
        resumes=resume,
        state=state,
        own=own,
        shared_with=shared_with,
    )


def with_measured_precision(config: TrainConfig) -> TrainConfig:
    """Choose the precision of a run whose settings leave it open; a resumed run keeps it."""
    if config.precision != "auto":
        return config
    device = pick_device(config.device, processes=launched_processes())
    return config.model_copy(update={"precision": faster_precision(device)})


def _old_bundle_notes(folder: RunFolder) -> Iterator[str]:
    """Say that a bundle of version 0.1 in the folder of a run stays as it is."""
    new = folder.bundle_file
    old = old_bundle_at(new.parent)
    if old is not None:
        yield (
            f"{old} is the bundle that version 0.1 wrote; it does not change. A better one is written to {new}, "
            f"which is then the bundle of {new.parent}; remove {old} when you no longer need it."
        )


_SETTINGS = {
    "selected_channels": "channels",
    "sensor_channels": "channels of the files",
    "foundation_sha256": "sha256 of the weights",
}
"""Fields of a spec -> their names in messages."""


def check_settings(config: TrainConfig, started: Mapping[str, Any]) -> None:
    """Check that a resumed run has the settings it was started with, which may have former names of version 0.1.

    One missing in `started` had its default.
    """
    started = TrainConfig.with_current_keys(started)
    if "aspect" in started:
        started["aspect"] = current_aspect(started["aspect"])
    started["new_sensor"] = started.get("new_sensor") or None
    pairs = {}
    for name, value in settings_of(config).items():
        pairs[name] = (value, started.get(name, TrainConfig.model_fields[name].default))
    if config.heads == "auto":  # the run has what was chosen at its start
        del pairs["heads"]
    if config.keep is None:
        del pairs["keep"]
    _check_equal(config, pairs)


def check_network(config: TrainConfig, known: ModelSpec, now: ModelSpec) -> None:
    """Check that a resumed run has the network it was started with.

    Equal settings are not enough: plugins may have changed their defaults, and files their content.
    """
    if now.sensor_definitions != known.sensor_definitions:
        raise ConfigError(
            f"{config.modality} is not what the run in {config.out} was started with; restore it, or start a new run"
        )
    compared = [name for name in ModelSpec.model_fields if name not in MEASURED_FIELDS]
    # equal weights mean the same model, even if its folder was renamed
    if known.foundation_sha256 is not None:
        compared.remove("foundation")
    _check_equal(
        config,
        {
            _SETTINGS.get(name, name): (getattr(now, name), getattr(known, name))
            for name in compared
        },
    )


def check_data(
    folder: RunFolder, started: str, dataset: Dataset, contents: DatasetDigest
) -> None:
    """Check that a resumed run has the samples, bytes of files and card it was started with."""
    if started == contents.fingerprint:
        return
    changes = changes_noted(folder, started, contents)
    raise ConfigError(
        f"the data in {dataset.root} is not what the run in {folder.root} was started with"
        f"{f': {changes}' if changes else ''}; restore it, or start a new run"
    )


def _check_equal(
    config: TrainConfig, pairs: Mapping[str, tuple[object, object]]
) -> None:
    """Raise one error that names every pair (now, before) that differs."""
    changed = []
    for name, (now, old) in pairs.items():
        if now != old:
            changed.append(f"{name} = {_shown(now)}, was {_shown(old)}")
    if changed:
        raise ConfigError(
            f"the settings of the run in {config.out} are not those it was started with: {'; '.join(changed)}; restore "
            "config.toml and the files that it names, or start a new run. On resume only "
            f"{', '.join(sorted(MUTABLE_ON_RESUME))} and the paths of files may change"
        )


def _shown(value: object) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], Channel):
        return describe(value)
    if isinstance(value, StrictModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    if value is None:
        return "nothing"
    return shown(value)


def _build_learner(
    plan: TrainingPlan,
    folder: RunFolder,
    callback: Callback,
    accelerator: Accelerator,
    *,
    resumes: bool,
    state: RunState | None,
    own: Path | None,
    shared_with: Learner | None = None,
) -> Learner:
    """Build the network of a plan with its optimiser and loader, from the weights that it starts or goes on from.

    Args:
        resumes: whether the run was started before.
        state: what it continues from.
        own: its own bundle; without it, a resumed run validates what it has, which becomes the best.
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
    if state is not None and own is not None:
        best = state.notes.best
        if shared_with is None and accelerator.is_main_process:
            read_sensors(own)  # refused before the first step if it is damaged
    others: Sensors = {}
    source = own or config.init
    if config.new_sensor and source is not None:
        others = read_sensors(source)
        others.pop(folder.sensor, None)
    done = 0
    saved_step = -1
    if state is not None:
        done = saved_step = state.notes.step
        load_tensors(model, state.model, str(folder.state))
    elif config.init is not None:
        _load_start(
            model, config.init, next((tensors for _, tensors in others.values()), None)
        )
    with frozen(model, config):
        step = TrainingStep(
            model,
            plan.loss,
            box_fraction=config.box_fraction,
            correction_clicks=config.correction_clicks,
        )
        optimizer = build_optimizer(
            step,
            weight_decay=config.weight_decay,
            backbone=pretrained_backbone(
                model.foundation, plan.parts.foundation.targets
            ),
            backbone_factor=config.backbone_lr_factor,
        )
        loader = _loader(plan, accelerator, done)
        prepared = accelerator.prepare(step, optimizer, loader)
    learner = Learner(
        plan=plan,
        folder=folder,
        callback=callback,
        accelerator=accelerator,
        model=model,
        spec=spec,
        step=prepared[0],
        optimizer=prepared[1],
        loader=prepared[2],
        others=others,
        resumes=resumes,
        saved_step=saved_step,
        done=done,
        best=best,
        scores=[] if state is None else list(state.notes.scores),
    )
    # after accelerate, which would move AdamW's step counts to the device
    if state is not None:
        module = accelerator.unwrap_model(learner.step)
        load_optimizer_tensors(
            learner.optimizer.optimizer, module, state.optimizer, str(folder.state)
        )
        # a run may move to a device that scales nothing
        if accelerator.scaler and state.notes.scaler:
            accelerator.scaler.load_state_dict(state.notes.scaler)
    if shared_with is not None:
        moments = shared_with.optimizer.optimizer.state
        for parameter in model.foundation.parameters():
            if parameter.requires_grad:
                # AdamW changes them in place
                learner.optimizer.optimizer.state[parameter] = moments[parameter]
    return learner


def _load_start(
    model: SimMAT, path: Path, shared_with: Mapping[str, Tensor] | None = None
) -> None:
    """Put the weights of a bundle into a network; a dense head of other classes starts anew.

    Args:
        shared_with: tensors of a sensor of which the network has the foundation model alone.

    Raises:
        ConfigError: the transfer layer replaces a part of that foundation model.
    """
    own = trained_tensors(model)
    if shared_with is None:
        given = dict(read_bundle(path)[1])
    else:
        given = dict(own)
        for name, tensor in shared_with.items():
            if name.startswith("foundation."):
                given[name] = tensor
        if given.keys() != own.keys():
            raise ConfigError(
                f"--init {path}: another transfer layer stands before its tuned weights, and uses fewer of them; leave "
                "--mat out, so that the new sensor gets one of the same kind"
            )
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
    """Return the loader of the batches that are left."""
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
    chooses = config.device in ("auto", "cpu") or processes > 1
    with own_settings(None if chooses else device):
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
