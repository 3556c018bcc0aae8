"""Start and resume trainings, of one sensor or of several; score a network as it is before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from simmat.callbacks import Callback
from simmat.config import TrainConfig, dump_configs, load_configs
from simmat.errors import ConfigError
from simmat.evaluation import Scores, evaluate, find_protocol
from simmat.io.files import atomic_write_text, recover_folder
from simmat.model import assemble, count_parameters
from simmat.nn.device import launched_processes, pick_device
from simmat.nn.losses import Loss, MaskLoss
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.training.callbacks import check_tracker
from simmat.training.fit import fit
from simmat.training.learner import Learner, build_learner, make_accelerator
from simmat.training.plan import check_out_outside_data, plan_run
from simmat.training.run_folder import STATES, RunFolder
from simmat.training.state import check_data, check_network, check_settings, load_state


def train(
    config: TrainConfig, registry: Registry, callback: Callback | None = None, *, loss: Loss | MaskLoss | None = None
) -> Path:
    """Run a training from its first step; return the best bundle by validation.

    A `loss` replaces that of the config.

    Raises:
        SimMATError: a problem with names, data, weights or the output folder.
        Interrupted: a signal arrived; the state is saved.
    """
    return train_sensors({"": config}, registry, {"": callback}, loss=loss)


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
    return train_sensors(configs, registry, dict.fromkeys(configs, callback), resume=True, loss=loss)


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
        raise ConfigError(f"--resume {root}: no run there (no config.toml); give the folder that --out named")
    if (root.absolute().parent / STATES / f"{root.name}.safetensors").exists():
        raise ConfigError(f"--resume {root}: it is the run of one of several sensors; resume all: {root.parent}")
    return load_configs(file, {"out": root, "data": data})


def train_sensors(
    configs: Mapping[str, TrainConfig],
    registry: Registry,
    callbacks: Mapping[str, Callback | None] | None = None,
    *,
    resume: bool = False,
    loss: Loss | MaskLoss | None = None,
) -> Path:
    """Train one foundation model for several sensors, each with a transfer layer and dense head of its own.

    The run of a sensor is an ordinary run, in a folder of its own; in a round each takes one step. The bundle serves
    them all, and is that of the round with the best mean of the validation scores.

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
        fit([_learner(first, registry, folder, callbacks.get(""), resume=resume, loss=loss)], registry)
        return folder.bundle

    if launched_processes() > 1:
        raise ConfigError("several sensors are trained in one process; start `simmat train` without a launcher")
    whole = RunFolder(first.out.parent)
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
            config, registry, folder, callbacks.get(name), resume=resume, loss=loss, shared_with=shared_with
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
    accelerator = make_accelerator(config)
    if callback is None or not accelerator.is_main_process:
        callback = Callback()
    state = None
    own = None
    if not resume:
        check_out_outside_data(config)
        if accelerator.is_main_process:
            folder.create(config.data)
    elif folder.state.exists():  # a run killed before its first save has a config but no state: it starts from step 0
        state = load_state(folder.state)
        check_settings(config, state.notes.settings)
        own = folder.bundle_file if folder.bundle_file.exists() else None
    known = None if state is None else state.notes.spec
    plan = plan_run(config, registry, callback, loss=loss, known=known, own=own)
    if state is not None:
        check_data(folder, state.notes.fingerprint, plan.dataset, plan.contents)
        check_network(plan.config, state.notes.spec, plan.spec)
    return build_learner(
        plan, folder, callback, accelerator, resumes=resume, state=state, own=own, shared_with=shared_with
    )


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
    plan = plan_run(config, registry)
    device = pick_device(config.device)
    model = assemble(plan.spec.model_copy(update={"dense": None}), plan.parts).to(device)
    samples = plan.val if split == "val" else plan.dataset.split(split)
    predictor = Predictor(model, plan.pipeline, image_side=plan.spec.image_side)
    protocol = find_protocol(config.protocol)
    scores = evaluate(predictor, plan.dataset, samples, protocol=protocol, everything=everything, registry=registry)
    return UntrainedScores(scores, count_parameters(model)[1], plan.contents.fingerprint, str(device))
