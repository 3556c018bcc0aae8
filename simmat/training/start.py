"""Start and resume trainings, of one sensor or of several; score a network as it is before its first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from simmat.callbacks import Callback
from simmat.config import TrainConfig, load_config
from simmat.errors import ConfigError
from simmat.evaluation import Scores, evaluate, find_protocol
from simmat.io.files import atomic_write_text, recover_folder
from simmat.model import assemble, count_parameters
from simmat.nn.device import launched_processes, pick_device
from simmat.nn.losses import Loss, MaskLoss
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.sensor_tables import dump_sensors, load_sensors
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
    folder = RunFolder(config.out, config.new_sensor)
    fit([_learner(config, registry, folder, callback, resume=False, loss=loss)], registry)
    return folder.bundle


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
    first = next(iter(sensors.values()))
    whole = RunFolder(first.out.parent)
    if not resume:
        whole.create(first.data)
    states = recover_folder(whole.root / STATES)
    kept = {state.stem for state in states.glob("*.safetensors")}
    if kept and kept != sensors.keys():
        raise ConfigError(
            f"{whole.config} has the sensors {', '.join(sensors)}, but this training was started with "
            f"{', '.join(sorted(kept))} ({states}); restore it, or start a new training"
        )
    learners: list[Learner] = []
    for name, config in sensors.items():
        folder = RunFolder(config.out, name, whole.root)
        callback = callbacks.get(name) if callbacks else None
        shared_with = learners[0] if learners else None
        learners.append(_learner(config, registry, folder, callback, resume=resume, shared_with=shared_with))
    with whole.locked():
        configs = [learner.plan.config for learner in learners]
        atomic_write_text(whole.config, dump_sensors(dict(zip(sensors, configs, strict=True))))
        fit(learners, registry)
    return whole.root


def resume(
    root: Path,
    registry: Registry,
    callback: Callback | None = None,
    *,
    loss: Loss | MaskLoss | None = None,
    data: Path | None = None,
) -> Path:
    """Resume a run from its last state; return the best bundle by validation.

    A run with a `loss` of its own needs that again. `data` is where its data set lies now, if that was moved.

    The result equals that of an uninterrupted run: to the bit on a CPU with the same number of threads, up to rounding
    elsewhere.

    Raises:
        ConfigError: there is no run, or its settings, data or weights have changed.
        DataError: its state is damaged.
        BundleError: its best bundle is damaged.
        Interrupted: a signal arrived; the state is saved.
    """
    file = RunFolder(root).config
    if not file.is_file():
        raise ConfigError(f"--resume {root}: no run there (no config.toml); give the folder that --out named")
    sensors = load_sensors(file, {"out": root})
    if sensors:
        return train_sensors(sensors, registry, dict.fromkeys(sensors, callback or Callback()), resume=True)
    if (root.absolute().parent / STATES / f"{root.name}.safetensors").exists():
        raise ConfigError(f"--resume {root}: it is the run of one of several sensors; resume all: {root.parent}")
    moved = {} if data is None else {"data": data}
    config = load_config(file, {"out": root, **moved})
    folder = RunFolder(config.out, config.new_sensor)
    fit([_learner(config, registry, folder, callback, resume=True, loss=loss)], registry)
    return folder.bundle


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
        bundle = recover_folder(folder.bundle_root)
        own = bundle if bundle.exists() else None
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
