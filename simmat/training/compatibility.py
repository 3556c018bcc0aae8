"""Check that a run fits what it continues, its own state or the bundle of --init, and load that bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from simmat.bundle import BundleSpec, load_tensors, read_bundle, read_bundle_spec, read_bundle_specs, trained_tensors
from simmat.config import MUTABLE_ON_RESUME, PATH_SETTINGS, TrainConfig
from simmat.data.dataset import Dataset
from simmat.data.fingerprint import DatasetDigest
from simmat.documents import StrictModel, shown
from simmat.errors import ConfigError, DataError
from simmat.io.reading import read_json
from simmat.model import SimMAT
from simmat.model_spec import MEASURED_FIELDS, ModelSpec
from simmat.sensors.normalize import describe
from simmat.training.run_folder import RunFolder
from simmat.types import Channel

_SETTINGS = {
    "selected_channels": "channels",
    "sensor_channels": "channels of the files",
    "foundation_sha256": "sha256 of the weights",
}
"""Fields of a spec -> their names in messages."""


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return as json values the settings that must not change on resume."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude=set(MUTABLE_ON_RESUME | PATH_SETTINGS))
    return values


def check_settings(config: TrainConfig, started: Mapping[str, Any]) -> None:
    """Check that a resumed run has the settings it was started with; one missing in `started` had its default."""
    default = {name: field.default for name, field in TrainConfig.model_fields.items()}
    now = settings_of(config)
    if now["heads"] == "auto":  # the run has what was chosen at its start
        del now["heads"]
    started = {**started, "new_sensor": started.get("new_sensor") or None}
    _check_equal(config, {name: (value, started.get(name, default[name])) for name, value in now.items()})


def check_network(config: TrainConfig, known: ModelSpec, now: ModelSpec) -> None:
    """Check that a resumed run has the network it was started with.

    Equal settings are not enough: plugins may have changed their defaults, and files their content.
    """
    if now.sensor_definitions != known.sensor_definitions:
        raise ConfigError(
            f"{config.modality} is not what the run in {config.out} was started with; restore it, or start a new run"
        )
    compared = [name for name in ModelSpec.model_fields if name not in MEASURED_FIELDS]
    if known.foundation_sha256 is not None:  # equal weights mean the same model, even if its folder was renamed
        compared.remove("foundation")
    _check_equal(config, {_SETTINGS.get(name, name): (getattr(now, name), getattr(known, name)) for name in compared})


def check_data(folder: RunFolder, started: str, dataset: Dataset, contents: DatasetDigest) -> None:
    """Check that a resumed run has the samples, bytes of files and card it was started with."""
    if started == contents.fingerprint:
        return
    changes = changes_noted(folder, started, contents)
    raise ConfigError(
        f"the data in {dataset.root} is not what the run in {folder.root} was started with"
        f"{f': {changes}' if changes else ''}; restore it, or start a new run"
    )


def changes_noted(folder: RunFolder, started: str, contents: DatasetDigest) -> str:
    """Return what changed in the data since a run was started, by the run's `data.json`; "" without that file."""
    try:
        return contents.changes_since(read_json(folder.contents), started)
    except DataError:  # a run of an older version, or copied without this file
        return ""


def _check_equal(config: TrainConfig, pairs: Mapping[str, tuple[object, object]]) -> None:
    """Raise one error that names every pair (now, before) that differs."""
    changed = [f"{name} = {_shown(now)}, was {_shown(old)}" for name, (now, old) in pairs.items() if now != old]
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
    return "nothing" if value is None else shown(value)


_NETWORK_FIELDS = ("foundation", "mat", "mat_options", "tune", "tune_options", "image_size")
_WEIGHT_FIELDS = ("foundation_sha256", "sensor_channels")
MEASURED_WITH_WEIGHTS = ("channels", "statistics", "zero_shot")
"""Fields of a spec that its weights are used to, so that they stay when it is trained on."""


def read_start(config: TrainConfig, own: Path | None) -> BundleSpec | None:
    """Read the spec of the bundle that a run starts from: of --init, or of its `own` where it has one already.

    A new sensor starts from the first sensor of a bundle, of whose images the shared weights are.

    Raises:
        ConfigError: the bundle has a sensor of the name of the new one.
    """
    if config.init is None:
        return None
    if config.new_sensor is None:
        return read_bundle_spec(own or config.init)
    specs = read_bundle_specs(own or config.init)
    if own is None and config.new_sensor in specs:
        raise ConfigError(
            f"--init {config.init} has a sensor {config.new_sensor!r} already; give --new-sensor a name other than "
            f"{', '.join(specs)}"
        )
    return next(iter(specs.values()))


def with_network_of(config: TrainConfig, start: BundleSpec) -> TrainConfig:
    """Take the network of a bundle where the config names no other one.

    Raises:
        ConfigError: the config names another transfer layer, tuner, foundation model or option, or it is exported.
    """
    if start.exported is not None:
        raise ConfigError(
            f"--init {config.init} is an exported model, which cannot be trained; give the bundle that it was made of"
        )
    chosen = ("mat", "mat_options") if config.new_sensor and config.mat is not None else ()
    own = {name: getattr(start, name) for name in _NETWORK_FIELDS if name not in chosen}
    for name, value in own.items():
        given = getattr(config, name)
        if given not in (None, "", {}, value) and not (isinstance(given, dict) and given.items() <= value.items()):
            raise ConfigError(
                f"--init {config.init} has {name} = {value}, the training {name} = {given}; leave {name} out, or train "
                "without --init"
            )
    return config.model_copy(update=own)


def check_start(config: TrainConfig, start: BundleSpec, spec: ModelSpec) -> None:
    """Check that the weights of a bundle fit the sensor and the foundation model of a training.

    Raises:
        ConfigError: they do not.
    """
    for name in ("foundation_sha256",) if config.new_sensor else _WEIGHT_FIELDS:
        if getattr(start, name) != getattr(spec, name):
            raise ConfigError(
                f"the training differs from --init {config.init} in {name.replace('_', ' ')}; use data of the same "
                "sensor and the same foundation weights, give --new-sensor NAME for another sensor, or train "
                "without --init"
            )


def load_start(model: SimMAT, path: Path, shared_with: Mapping[str, Tensor] | None = None) -> None:
    """Put the weights of a bundle into a network; a dense head of other classes starts anew.

    With `shared_with`, the weights of another sensor of the same run, only those of the foundation model are taken
    from it; ConfigError if the transfer layer replaces a part of the foundation model.
    """
    own, given = trained_tensors(model), shared_with or read_bundle(path)[1]
    if shared_with is not None:
        given = own | {name: tensor for name, tensor in given.items() if name.startswith("foundation.")}
        if given.keys() != own.keys():
            raise ConfigError(
                f"--init {path}: another transfer layer stands before its tuned weights, and uses fewer of them; leave "
                "--mat out, so that the new sensor gets one of the same kind"
            )
    heads = [{name: tensor for name, tensor in part.items() if name.startswith("dense.")} for part in (own, given)]
    shapes = [{name: tensor.shape for name, tensor in head.items()} for head in heads]
    if shapes[0] != shapes[1]:
        given = {name: tensor for name, tensor in given.items() if name not in heads[1]} | heads[0]
    load_tensors(model, given, str(path))
