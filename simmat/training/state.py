"""The state of a run, one safetensors file, written atomically; and what must not have changed when it is resumed.

It holds the trained weights, the optimiser's moments, and everything else as json in the metadata. It needs no random
states: every random number of a run is drawn from (seed, position), see `simmat.data.batches`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from simmat.config import MUTABLE_ON_RESUME, PATH_SETTINGS, TrainConfig
from simmat.data.dataset import Dataset
from simmat.data.fingerprint import DatasetDigest
from simmat.documents import InvalidDocumentError, StrictModel, shown, validate
from simmat.errors import ConfigError, DataError
from simmat.io.files import atomic_write_bytes, parse_json, read_json, require_file
from simmat.model_spec import MEASURED_FIELDS, ModelSpec
from simmat.nn.tensor_files import check_dimensions
from simmat.sensors.normalize import describe
from simmat.training.run_folder import RunFolder
from simmat.types import Channel

FORMAT = 1


class Best(StrictModel):
    """The best validation so far.

    Attributes:
        miou: mean IoU over objects of one click.
        step: steps done before it.
        score: by which it was chosen, where that is not `miou`, see `simmat.training.fit.selection_score`.
    """

    miou: float
    step: int
    score: float | None = None

    @property
    def chosen_by(self) -> float:
        """The score that a better validation must exceed."""
        if self.score is None:
            return self.miou
        return self.score


class RunNotes(StrictModel):
    """The json metadata of a state; unknown keys are ignored.

    Attributes:
        step: optimiser steps done.
        best: the best validation; None before the first.
        scaler: loss scale of fp16; None in other precisions.
    """

    model_config = ConfigDict(extra="ignore")

    step: int = Field(ge=0)
    settings: dict[str, Any]
    spec: ModelSpec
    fingerprint: str
    best: Best | None
    scaler: dict[str, int | float] | None

    def problems(self) -> Iterator[str]:
        """Yield the problems of the spec."""
        yield from self.spec.problems()


@dataclass(frozen=True)
class RunState:
    """The state of a run: trained tensors, "PARAMETER/key" -> moment of the optimiser, and the rest as json."""

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    notes: RunNotes


def save_state(path: Path, state: RunState) -> None:
    """Write a state atomically; raise OutputError if that fails."""
    tensors = {f"model/{name}": tensor for name, tensor in state.model.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    notes = {"format": FORMAT, **state.notes.model_dump(mode="json")}
    atomic_write_bytes(path, save(tensors, metadata={"simmat": json.dumps(notes, sort_keys=True)}))


def load_state(path: Path, *, tensors: bool = True) -> RunState:
    """Read a state, or its notes alone; raise DataError if it is missing, damaged or of another format."""
    if not path.exists():
        raise DataError(f"no state to resume at {path}; the run has not saved one: start it again without --resume")
    require_file(path, "state of a run")
    try:
        with safe_open(path, framework="pt") as file:
            notes: dict[str, Any] = parse_json((file.metadata() or {})["simmat"], constants=True)
            if notes.pop("format") != FORMAT:
                raise DataError(f"{path} was written by another version of simmat; resume it with that version")
            found = {name: file.get_tensor(name) for name in file.keys()} if tensors else {}  # noqa: SIM118 (no mapping)
        check_dimensions(found)
        return RunState(_below(found, "model/"), _below(found, "optimizer/"), validate(RunNotes, notes))
    except DataError:
        raise
    except Exception as error:  # the kinds differ between versions of safetensors
        if isinstance(error, InvalidDocumentError):
            why = str(error)
        else:
            why = f"{type(error).__name__}: {error}"
        raise _damaged(path, why) from error


def fingerprint_in(path: Path) -> str:
    """Return the data fingerprint of a state; raises as `load_state`."""
    return load_state(path, tensors=False).notes.fingerprint


def _damaged(path: Path | str, why: str) -> DataError:
    return DataError(
        f"{path} is damaged ({why}); copy it again or start a new run. The best bundle next to it is still usable"
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Return the optimiser's moments by parameter name, on the CPU."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        f"{names[id(parameter)]}/{key}": torch.as_tensor(value).detach().cpu().contiguous().clone()
        for parameter, moments in optimizer.state.items()
        for key, value in moments.items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, module: nn.Module, tensors: Mapping[str, Tensor], origin: str
) -> None:
    """Load what `optimizer_tensors` returned; raise DataError for tensors of another network."""
    parameters = dict(module.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise _damaged(origin, f"it has {path!r}, a parameter that the network does not have")
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU, and its moments with the parameter's device and memory layout.
        if key == "step":
            moved = value.clone()
        else:
            moved = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][key] = moved


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
