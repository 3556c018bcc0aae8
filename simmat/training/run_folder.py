"""The folder of a run: its files, its lock, the log that a resumed run continues, and the state that it resumes from.

A state is one safetensors file, written atomically. It holds the trained weights, the optimiser's moments, and
everything else as json in the metadata. It needs no random states: every random number of a run is drawn from (seed,
position), see `simmat.data.batches`.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import ConfigDict, Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from simmat.bundle import FILE_NAME
from simmat.config import MUTABLE_ON_RESUME, PATH_SETTINGS, TrainConfig
from simmat.data.digest import DatasetDigest
from simmat.documents import StrictModel, validate
from simmat.errors import ConfigError, DataError, OutputError, what_is_wrong
from simmat.io.files import (
    TEMPORARY_MARK,
    atomic_path,
    atomic_write_bytes,
    check_writable,
    output_error,
    remove_temporary,
)
from simmat.io.paths import require_file
from simmat.io.reading import parse_json, read_json, read_log
from simmat.model_spec import ModelSpec
from simmat.nn.tensor_files import check_dimensions

STATES = ".states"
"""Folder of the states of a training on several sensors."""
STATE_FORMAT = 1
_LOCK = ".lock"
_LOCK_TIMEOUT_S = 0.3
"""Seconds that a training waits for the lock, which `RunFolder.running` holds for a moment."""


class RunFolder:
    """The folder given as `--out`, and the paths in it.

    Args:
        root: the folder.
        sensor: name of the run's sensor in a bundle of several; None in a bundle of one.
        training_root: the folder of a training on several sensors, in which `root` is the folder of one. It has the
            states and the bundle.

    Attributes:
        config: the resolved config, TOML.
        metrics: the log, one json object per line: {"kind": "train", "val" or "new", "step": …}; "new" has the scores
            of the bundle of --init on images that it does not know.
        states: the folder of the states of several sensors; None in a training of one.
        state: the last state, to resume from.
        contents: digests of the data set's files, to name those that changed.
        bundle_file: the best bundle by validation, or the last one, which holds all sensors of a training on several.
        bundle: the path by which the bundle of this run's sensor is loaded.
        report: what the page shows beside settings, log and bundle.
        page: the page that shows the run.
        resume_command: the command that resumes the training.
    """

    def __init__(
        self,
        root: Path,
        sensor: str | None = None,
        training_root: Path | None = None,
    ) -> None:
        self.root = root
        self.sensor = sensor or ""
        self.states = None if training_root is None else training_root / STATES
        self.config = root / "config.toml"
        self.metrics = root / "metrics.jsonl"
        if self.states is None:
            self.state = root / "last.safetensors"
        else:
            self.state = self.states / f"{sensor}.safetensors"
        self.contents = root / "data.json"
        self.bundle_file = (training_root or root) / FILE_NAME
        self.bundle = self.bundle_file / self.sensor
        self.report = root / "report.json"
        self.page = root / "report.html"
        self.resume_command = shlex.join(
            ["simmat", "train", "--resume", str(training_root or root)]
        )

    def create(self, data: Path) -> None:
        """Check that the folder can take a new run. It is made by `locked`, not here, so that a refusal leaves nothing.

        Args:
            data: the data set of the run, which may be in the folder. So may what is left of a run that was killed
                before it wrote its settings.

        Raises:
            ConfigError: the folder is not empty.
            OutputError: it cannot be written to.
        """
        try:
            occupied = self.root.is_dir() and not all(
                _is_leftover(path, data) for path in self.root.iterdir()
            )
        except OSError as error:
            raise output_error(error, self.root) from error
        if occupied:
            if self.config.exists():
                hint = f"resume it with `{self.resume_command}`"
            else:
                hint = "choose another"
            raise ConfigError(
                f"--out {self.root} is not empty; {hint} or remove it first"
            )
        check_writable(self.root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other trainings while the block runs; OutputError if another one holds it."""
        check_writable(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / _LOCK)
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout:
            raise OutputError(
                f"another training is running in {self.root}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise output_error(error, self.root / _LOCK) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def running(self) -> bool:
        """Whether a training holds the folder now; False where the lock cannot be tried, as in a read-only copy."""
        if not (self.root / _LOCK).is_file():
            return False
        try:
            with FileLock(self.root / _LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def remove_records_after(self, step: int) -> None:
        """Remove the records of the log after a step, which will be written again, and temporary files.

        Call it within `locked`: a running training has temporary files, too.

        Args:
            step: that of the state from which the run continues; -1 removes all records.
        """
        remove_temporary(self.root, older_than_s=0)
        with (
            atomic_path(self.metrics) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as file,
        ):
            for record in self.records():
                if record["step"] <= step:
                    file.write(json.dumps(record) + "\n")

    def log(self, record: dict[str, Any]) -> None:
        """Append one record."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the log's records, see `read_log`."""
        return read_log(self.metrics)


def _is_leftover(path: Path, data: Path) -> bool:
    """Return whether a run makes this file before it writes its settings, or the data set is there."""
    empty_log = path.name == "metrics.jsonl" and path.stat().st_size == 0
    return (
        path.name == _LOCK or path == data or TEMPORARY_MARK in path.name or empty_log
    )


class Best(StrictModel):
    """The validation of the bundle: the best so far, or with `keep = "last"` the last one.

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
        settings: those of `settings_of` at the start of the run.
        spec: the network.
        fingerprint: of the data set, see `DatasetDigest`.
        best: the validation of the bundle; None before the first.
        scores: of all regular validations, by which an open end is decided.
        scaler: loss scale of fp16; None in other precisions.
    """

    model_config = ConfigDict(extra="ignore")

    step: int = Field(ge=0)
    settings: dict[str, Any]
    spec: ModelSpec
    fingerprint: str
    best: Best | None
    scores: list[float] = Field(default_factory=list)
    scaler: dict[str, int | float] | None

    def problems(self) -> Iterator[str]:
        """Yield the problems of the spec."""
        yield from self.spec.problems()


@dataclass(frozen=True)
class RunState:
    """The state of a run.

    Attributes:
        model: name -> trained tensor.
        optimizer: "PARAMETER/key" -> moment of the optimiser, or its number of steps.
        notes: the rest, which is written as json.
    """

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    notes: RunNotes


def save_state(path: Path, state: RunState) -> None:
    """Write a state atomically; raise OutputError if that fails."""
    tensors = {f"model/{name}": tensor for name, tensor in state.model.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    notes = {"format": STATE_FORMAT, **state.notes.model_dump(mode="json")}
    atomic_write_bytes(
        path, save(tensors, metadata={"simmat": json.dumps(notes, sort_keys=True)})
    )


def load_state(path: Path, *, tensors: bool = True) -> RunState:
    """Read a state, or its notes alone; raise DataError if it is missing, damaged or of another format."""
    if not path.exists():
        raise DataError(
            f"no state to resume at {path}; the run has not saved one: start it again without --resume"
        )
    require_file(path, "state of a run")
    try:
        with safe_open(path, framework="pt") as file:
            notes: dict[str, Any] = parse_json(
                (file.metadata() or {})["simmat"], constants=True
            )
            if notes.pop("format") != STATE_FORMAT:
                raise DataError(
                    f"{path} was written by another version of simmat; resume it with that version"
                )
            found = {}
            if tensors:
                for name in file.keys():  # noqa: SIM118 (no mapping)
                    found[name] = file.get_tensor(name)
        check_dimensions(found)
        return RunState(
            _below(found, "model/"),
            _below(found, "optimizer/"),
            validate(RunNotes, notes),
        )
    except DataError:
        raise
    except Exception as error:  # the kinds differ between versions of safetensors
        raise _damaged(path, what_is_wrong(error)) from error


def fingerprint_in(path: Path) -> str:
    """Return the data fingerprint of a state; raises as `load_state`."""
    return load_state(path, tensors=False).notes.fingerprint


def _damaged(path: Path | str, why: str) -> DataError:
    return DataError(
        f"{path} is damaged ({why}); copy it again or start a new run. The best bundle next to it is still usable"
    )


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def optimizer_tensors(
    optimizer: torch.optim.Optimizer, module: nn.Module
) -> dict[str, Tensor]:
    """Return the optimiser's moments by parameter name, on the CPU."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    kept = {}
    for parameter, moments in optimizer.state.items():
        for key, value in moments.items():
            moment = torch.as_tensor(value).detach().cpu()
            kept[f"{names[id(parameter)]}/{key}"] = moment.contiguous().clone()
    return kept


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    origin: str,
) -> None:
    """Load what `optimizer_tensors` returned; raise DataError for tensors of another network."""
    parameters = dict(module.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise _damaged(
                origin, f"it has {path!r}, a parameter that the network does not have"
            )
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU, and its moments with the parameter's device and memory layout.
        if key == "step":
            moved = value.clone()
        else:
            moved = torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][key] = moved


def settings_of(config: TrainConfig) -> dict[str, Any]:
    """Return as json values the settings that must not change on resume."""
    return config.model_dump(
        mode="json", exclude=set(MUTABLE_ON_RESUME | PATH_SETTINGS)
    )


def changes_noted(folder: RunFolder, started: str, contents: DatasetDigest) -> str:
    """Return what changed in the data since a run was started, by the run's `data.json`; "" without that file."""
    try:
        return contents.changes_since(read_json(folder.contents), started)
    except DataError:  # the file is missing or damaged
        return ""
