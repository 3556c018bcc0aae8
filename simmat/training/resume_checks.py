"""Check that a resumed run has the settings, the network and the data it began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simmat.config import FILES, FREE, TrainConfig
from simmat.data.dataset import Dataset
from simmat.data.fingerprint import Contents, is_same
from simmat.documents import Document, shown
from simmat.errors import ConfigError, DataError
from simmat.io.files import read_json
from simmat.model import Parts
from simmat.model_spec import TAKEN, ModelSpec, as_json
from simmat.sensors.normalize import describe
from simmat.training.run_folder import RunFolder
from simmat.types import Channel

_SETTINGS = {"picks": "channels", "sensor_channels": "channels of the files"}
"""Fields of a spec -> what people call them."""
_MOST_NOTES = 2**30
"""Largest file of digests that is read, in bytes; a sample takes about 200."""


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return what may not change while a run lasts, as json values: every setting but the free ones and files."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude=set(FREE | FILES))
    return values


def check_settings(config: TrainConfig, begun: Mapping[str, Any]) -> None:
    """Refuse to resume with settings that were changed.

    Args:
        config: what the run's config says now.
        begun: what `settings_of` gave when it began; what it does not know yet was at its default.

    Raises:
        ConfigError: settings differ, each by name.
    """
    default = {name: field.default for name, field in TrainConfig.model_fields.items()}
    _refuse_changes(config, {name: (now, begun.get(name, default[name])) for name, now in settings_of(config).items()})


def check_network(config: TrainConfig, known: ModelSpec, now: ModelSpec, parts: Parts) -> None:
    """Refuse to resume with another network than the one the run began with, whatever made it another.

    Settings alone do not say it: plugins may have changed their defaults, and files what is in them. An option that is
    new since then was at its default.

    Args:
        config: what the run's config says now.
        known: what the run wrote down when it began.
        now: what it would write down now.
        parts: what `now` names.

    Raises:
        ConfigError: something differs, each by name.
    """
    known = known.model_copy(update=_with_defaults(known, now, parts))
    apart = {*TAKEN, "described", "foundation_sha256"}
    if known.foundation_sha256 is not None:  # its weights show that it is the same, whatever its folder is called now
        apart.add("foundation")
    compared = [name for name in ModelSpec.model_fields if name not in apart]
    pairs = {_SETTINGS.get(name, name): (getattr(now, name), getattr(known, name)) for name in compared}
    _refuse_changes(config, pairs)
    if now.described != known.described:
        raise ConfigError(
            f"{config.modality} describes another sensor than the one this run began with; put it back, remove it to "
            "go on with what the run wrote down, or start a new run"
        )
    if now.foundation_sha256 != known.foundation_sha256:
        raise ConfigError(
            f"the weights of {config.foundation!r} are not those this run began with: {parts.weights or 'no file'} has "
            f"sha256 {_short(now.foundation_sha256)}, was {_short(known.foundation_sha256)}; put them back, name them "
            f"by checkpoint in {config.out / 'config.toml'}, or start a new run"
        )


def _with_defaults(known: ModelSpec, now: ModelSpec, parts: Parts) -> dict[str, object]:
    """Return the options a run began with, filled with the defaults of those that its parts have got since then."""
    filled: dict[str, object] = {}
    if known.mat == now.mat:
        filled["mat_options"] = {**as_json(parts.transfer.options), **known.mat_options}
    if known.tune == now.tune:
        filled["tune_options"] = {**as_json(parts.tuner.options), **known.tune_options}
    return filled


def check_data(folder: RunFolder, begun: str, dataset: Dataset, contents: Contents) -> None:
    """Refuse to resume with other data: a byte that changed in any of its files, a sample more or fewer, another card.

    Args:
        folder: of the run.
        begun: fingerprint of the data that its state was made with.
        dataset: as it is now.
        contents: of it.

    Raises:
        ConfigError: it is another; where the run's own notes say so, how many parts differ and the first of them.
    """
    if is_same(begun, contents):
        return
    changes = changes_noted(folder, begun, contents)
    raise ConfigError(
        f"the data in {dataset.root} is not what the run in {folder.root} began with"
        f"{f': {changes}' if changes else ''}; restore it, or start a new run"
    )


def changes_noted(folder: RunFolder, begun: str, contents: Contents) -> str:
    """Say what changed in the data since a run began, by the run's own notes; "" where it has none.

    Args:
        folder: of the run.
        begun: fingerprint of the data it began with.
        contents: of the data as it is now.
    """
    try:
        return contents.changes_since(read_json(folder.contents, limit=_MOST_NOTES), begun)
    except DataError:  # the run of an older version, or one that was copied without them
        return ""


def _refuse_changes(config: TrainConfig, pairs: Mapping[str, tuple[object, object]]) -> None:
    """Raise where a value now and the one before differ, naming all that do."""
    changed = [f"{name} = {_said(now)}, was {_said(before)}" for name, (now, before) in pairs.items() if now != before]
    if changed:
        raise ConfigError(
            f"{config.out / 'config.toml'} is not what this run began with: {'; '.join(changed)}; put it back, or "
            f"start a new run. A run may go on with another {', '.join(sorted(FREE))}, and with files that have moved"
        )


def _said(value: object) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], Channel):
        return describe(value)
    if isinstance(value, Document):
        value = value.model_dump(mode="json", exclude_defaults=True)
    return "nothing" if value is None else shown(value)


def _short(sha256: str | None) -> str:
    return f"{sha256[:12]}…" if sha256 is not None else "none"
