"""Start and resume trainings, of one sensor or several: plan each, check what must not have changed, and build it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simmat.bundle import find_bundle
from simmat.callbacks import Callback, check_tracker
from simmat.config import MUTABLE_ON_RESUME, TrainConfig, dump_configs, load_configs
from simmat.data.dataset import Dataset
from simmat.data.digest import DatasetDigest
from simmat.documents import StrictModel, shown
from simmat.errors import ConfigError
from simmat.io.files import atomic_write_text, recover_folder, require_inside
from simmat.model_spec import MEASURED_FIELDS, ModelSpec
from simmat.nn.device import faster_precision, launched_processes, pick_device
from simmat.nn.losses import Loss, MaskLoss
from simmat.plugins.registry import Registry
from simmat.sensors.normalize import describe
from simmat.training.build import build_learner, make_accelerator
from simmat.training.fit import Learner, fit
from simmat.training.network import with_recommended
from simmat.training.plan import check_out_outside_data, plan_run
from simmat.training.run_folder import (
    STATES,
    RunFolder,
    changes_noted,
    load_state,
    settings_of,
)
from simmat.types import Channel


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
        registry: what is installed.
        callbacks: name -> what is told of the run of a sensor.
        resume: continue from the last state of all.
        loss: what is minimised, in place of the losses that the settings name.

    Returns:
        The folder of the training; of one sensor without a name the best bundle.

    Raises:
        SimMATError: as `train`.
    """
    callbacks = callbacks or {}
    if "" not in configs:
        return _train_several(configs, registry, callbacks, resume=resume, loss=loss)
    config = configs[""]
    folder = RunFolder(config.out, config.new_sensor)
    learner = _learner(
        config, registry, folder, callbacks.get(""), resume=resume, loss=loss
    )
    fit([learner], registry)
    return folder.bundle


def _train_several(
    configs: Mapping[str, TrainConfig],
    registry: Registry,
    callbacks: Mapping[str, Callback | None],
    *,
    resume: bool,
    loss: Loss | MaskLoss | None,
) -> Path:
    """Train one foundation model for several sensors, see `train_configs`; return the folder of the training."""
    if launched_processes() > 1:
        raise ConfigError(
            "several sensors are trained in one process; start `simmat train` without a launcher"
        )
    first = next(iter(configs.values()))
    training_folder = RunFolder(first.out.parent)
    require_inside(training_folder.root, *(config.out for config in configs.values()))
    if not resume:
        training_folder.create(first.data)
    states = recover_folder(training_folder.root / STATES)
    started = {state.stem for state in states.glob("*.safetensors")}
    if started and started != configs.keys():
        raise ConfigError(
            f"{training_folder.config} has the sensors {', '.join(configs)}, but this training was started with "
            f"{', '.join(sorted(started))} ({states}); restore it, or start a new training"
        )
    learners: dict[str, Learner] = {}
    for name, config in configs.items():
        folder = RunFolder(config.out, name, training_folder.root)
        learners[name] = _learner(
            config,
            registry,
            folder,
            callbacks.get(name),
            resume=resume,
            loss=loss,
            shared_with=next(iter(learners.values()), None),
        )
    with training_folder.locked():
        planned = {name: learner.plan.config for name, learner in learners.items()}
        atomic_write_text(training_folder.config, dump_configs(planned))
        fit(list(learners.values()), registry)
    return training_folder.root


def _learner(
    config: TrainConfig,
    registry: Registry,
    folder: RunFolder,
    callback: Callback | None,
    *,
    resume: bool,
    loss: Loss | MaskLoss | None,
    shared_with: Learner | None = None,
) -> Learner:
    """Check the settings and the folder of a sensor's run, plan it, and build what trains in it.

    Args:
        config: the settings as the user gave them, or of a resumed run those of its folder.
        registry: what is installed.
        folder: the folder of the run.
        callback: what is told of the run; in processes other than the main one nothing is.
        resume: continue from the last state, if one was saved.
        loss: what is minimised, in place of the losses that the settings name.
        shared_with: the learner of the first sensor, whose foundation model this one trains, too.
    """
    check_tracker(config.track)
    if not resume:
        config = with_recommended(config, registry)
        config = with_measured_precision(config)
    accelerator = make_accelerator(config)
    if callback is None or not accelerator.is_main_process:
        callback = Callback()
    state = None
    own_bundle = None
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
        own_bundle = find_bundle(folder.bundle_file.parent)
    plan = plan_run(
        config,
        registry,
        callback,
        loss=loss,
        resumed_spec=None if state is None else state.notes.spec,
        own_bundle=own_bundle,
    )
    if state is not None:
        check_data(folder, state.notes.fingerprint, plan.dataset, plan.contents)
        check_network(plan.config, state.notes.spec, plan.spec)
    return build_learner(
        plan,
        folder,
        callback,
        accelerator,
        resumes=resume,
        state=state,
        own_bundle=own_bundle,
        shared_with=shared_with,
    )


def with_measured_precision(config: TrainConfig) -> TrainConfig:
    """Set the precision of a run whose settings leave it open to the one that is faster on its device."""
    if config.precision != "auto":
        return config
    device = pick_device(config.device, processes=launched_processes())
    return config.model_copy(update={"precision": faster_precision(device)})


_FIELD_NAMES = {
    "selected_channels": "channels",
    "sensor_channels": "channels of the files",
    "foundation_sha256": "sha256 of the weights",
}
"""Field of a `ModelSpec` -> its name in messages, where that is another one."""


def check_settings(config: TrainConfig, started: Mapping[str, Any]) -> None:
    """Check that a resumed run has the settings it was started with.

    Args:
        config: the settings now.
        started: those of `settings_of` at the start; a setting that is missing had its default.
    """
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
            _FIELD_NAMES.get(name, name): (getattr(now, name), getattr(known, name))
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
