"""What must not have changed since a run was started: its settings, its network and its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simmat.config import MUTABLE_ON_RESUME, TrainConfig
from simmat.data.dataset import Dataset
from simmat.data.digest import DatasetDigest
from simmat.documents import StrictModel, shown
from simmat.errors import ConfigError
from simmat.model_spec import MEASURED_FIELDS, ModelSpec
from simmat.sensors.normalize import describe
from simmat.training.run_folder import RunFolder, changes_noted, settings_of
from simmat.types import Channel

_SETTINGS = {
    "selected_channels": "channels",
    "sensor_channels": "channels of the files",
    "foundation_sha256": "sha256 of the weights",
}
"""Fields of a spec -> their names in messages."""


def check_settings(config: TrainConfig, started: Mapping[str, Any]) -> None:
    """Check that a resumed run has the settings it was started with.

    One missing in `started` had its default.
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
