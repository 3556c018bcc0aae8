"""Check that a resumed run has the settings, the network and the data it began with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simmat.bundle import BundleSpec
from simmat.config import FILES, FREE, TrainConfig
from simmat.data.dataset import Dataset
from simmat.data.fingerprint import Contents, is_same
from simmat.declared import declarations_of
from simmat.errors import ConfigError, DataError
from simmat.files import read_json
from simmat.modality import ModalityAdapter
from simmat.model import merge_options
from simmat.plugins import Registry
from simmat.training.run_folder import RunFolder

_MOST_NOTES = 2**30
"""Largest file of digests that is read, in bytes; a sample takes about 200."""


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return what may not change while a run lasts, as json values: every setting but the free ones and files."""
    values: dict[str, Any] = config.model_dump(mode="json", exclude=set(FREE | FILES))
    return values


def check_settings(config: TrainConfig, begun: Mapping[str, Any]) -> None:
    """Refuse to go on with settings that were changed.

    Args:
        config: what the run's config says now.
        begun: what `settings_of` gave when it began; what it does not know yet was at its default.

    Raises:
        ConfigError: settings differ, each by name.
    """
    default = {name: field.default for name, field in TrainConfig.model_fields.items()}
    _refuse_changes(config, {name: (now, begun.get(name, default[name])) for name, now in settings_of(config).items()})


def check_network(
    config: TrainConfig,
    known: BundleSpec,
    registry: Registry,
    adapter: ModalityAdapter,
    weights: Path | None,
    digest: str | None,
    image_size: int,
) -> None:
    """Refuse to go on with another network than the one that was begun, whatever made it another.

    Settings alone do not say it: plugins may have changed their defaults, and files what is in them. An option that is
    new since then was at its default.

    Args:
        config: what the run's config says now.
        known: what the run wrote down when it began.
        registry: where names are looked up.
        adapter: of the sensor, as it is now.
        weights: weight file of the foundation model, as it is now.
        digest: its sha256.
        image_size: the network's input, as it would be now.

    Raises:
        ConfigError: something differs, each by name.
    """
    transfer, tuner = registry.transfer_layer(config.mat), registry.tuner(config.tune)
    said: dict[str, tuple[object, object]] = {
        "modality": (adapter.name, known.modality),
        "channels": (config.channels, known.picks),
        "seed": (config.seed, known.seed),
        "image_size": (image_size, known.image_size),
        "aspect": (config.aspect, known.aspect),
        "mat": (config.mat, known.mat),
        "tune": (config.tune, known.tune),
    }
    if known.foundation_sha256 is None:  # else its weights show that it is the same, whatever its folder is called now
        said["foundation"] = (config.foundation, known.foundation)
    if config.mat == known.mat:
        options = merge_options("transfer layer", transfer.name, transfer.options, config.mat_options)
        said["mat_options"] = (_plain(options), _plain({**transfer.options, **known.mat_options}))
    if config.tune == known.tune:
        options = merge_options("tuner", tuner.name, tuner.options, config.tune_options)
        said["tune_options"] = (_plain(options), _plain({**tuner.options, **known.tune_options}))
    _refuse_changes(config, said)
    if declarations_of(adapter) != known.described:
        raise ConfigError(
            f"{config.modality} describes another sensor than the one this run began with; put it back, remove it to "
            "go on with what the run wrote down, or start a new run"
        )
    if digest != known.foundation_sha256:
        raise ConfigError(
            f"the weights of {config.foundation!r} are not those this run began with: {weights or 'no file'} has "
            f"sha256 {_short(digest)}, was {_short(known.foundation_sha256)}; put them back, name them by checkpoint "
            f"in {config.out / 'config.toml'}, or start a new run"
        )


def check_data(folder: RunFolder, begun: str, dataset: Dataset, contents: Contents) -> None:
    """Refuse to go on with other data: a byte that changed in any of its files, a sample more or fewer, another card.

    Args:
        folder: of the run.
        begun: fingerprint of the data that its state was made with.
        dataset: as it is now.
        contents: of it.

    Raises:
        ConfigError: it is another; where the run's own notes say so, how many parts differ and the first of them.
    """
    if is_same(begun, dataset, contents):
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
    return "nothing" if value is None else repr(value)


def _short(sha256: str | None) -> str:
    return f"{sha256[:12]}…" if sha256 is not None else "none"


def _plain(options: Mapping[str, object]) -> object:
    """Return options as json gives them back, where a tuple is a list."""
    return json.loads(json.dumps(dict(options)))
