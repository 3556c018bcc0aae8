"""The state of a run: one safetensors file, so that it is there as a whole or not at all.

It holds what the run has moved (transfer layer, tuned weights), the optimiser's moments, and as
metadata one json with everything else. Random states need no place in it: every random number of
a run is drawn from (seed, position), see `simmat.data.batches`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from simmat.documents import Document, InvalidDocument, validate
from simmat.errors import DataError
from simmat.io.files import atomic_write_bytes, parse_json, require_file
from simmat.model_spec import ModelSpec

FORMAT = 1


class Best(Document):
    """The best validation so far.

    Attributes:
        miou: mean IoU over objects.
        step: it was reached at.
    """

    miou: float
    step: int


class RunNotes(Document):
    """What a state says of its run; further values may stand there.

    Attributes:
        step: optimiser steps done.
        settings: of the run, see `simmat.training.resume_checks`.
        spec: of the network.
        fingerprint: of the data.
        best: None before the first validation.
        scaler: loss scale of fp16; None in other precisions.
    """

    model_config = ConfigDict(extra="ignore")

    step: int = Field(ge=0)
    settings: dict[str, Any]
    spec: ModelSpec
    fingerprint: str
    best: Best | None
    scaler: dict[str, Any] | None

    def problems(self) -> Iterator[str]:
        """Say what does not go together in the spec."""
        yield from self.spec.problems()


@dataclass(frozen=True)
class RunState:
    """Where a run stands.

    Attributes:
        model: tensors of the network, see `simmat.bundle.trained_tensors`.
        optimizer: "PARAMETER/key" -> tensor.
        notes: what it says of the run.
    """

    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    notes: RunNotes


def save_state(path: Path, state: RunState) -> None:
    """Write a state; until the last byte is there the old file stays.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {f"model/{name}": tensor for name, tensor in state.model.items()}
    tensors |= {f"optimizer/{name}": tensor for name, tensor in state.optimizer.items()}
    notes = {"format": FORMAT, **state.notes.model_dump(mode="json")}
    atomic_write_bytes(path, save(tensors, metadata={"simmat": json.dumps(notes, sort_keys=True)}))


def load_state(path: Path) -> RunState:
    """Read a state.

    Raises:
        DataError: it is missing, damaged, or of another format.
    """
    with _reading(path) as file:
        notes = _notes_of(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return RunState(_below(tensors, "model/"), _below(tensors, "optimizer/"), notes)


def fingerprint_in(path: Path) -> str:
    """Return the fingerprint of the data in a state, without reading its tensors.

    Raises:
        DataError: the state is missing, damaged, or of another format.
    """
    with _reading(path) as file:
        return _notes_of(file, path).fingerprint


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    if not path.exists():
        raise DataError(f"no state to resume at {path}; the run saved none yet: start it again without --resume")
    require_file(path, "state of a run")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except InvalidDocument as error:
        raise _damaged(path, str(error)) from error
    except (
        ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, SafetensorError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _notes_of(file: Any, path: Path) -> RunNotes:
    notes: dict[str, Any] = parse_json((file.metadata() or {})["simmat"], constants=True)
    if notes.pop("format") != FORMAT:
        raise DataError(f"{path} was written by another version of simmat; resume it with that version")
    return validate(RunNotes, notes)


def _damaged(path: Path | str, why: str) -> DataError:
    return DataError(
        f"{path} is damaged ({why}); copy it again or start a new run. The best bundle beside it is still usable"
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
    """Put back what `optimizer_tensors` gave.

    Raises:
        DataError: it is of another network; the message names `origin`.
    """
    parameters = dict(module.named_parameters())
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        if name not in parameters:
            raise _damaged(origin, f"it holds {path!r} of a parameter that the network does not have")
        parameter = parameters[name]
        # AdamW keeps its step count on the CPU, its moments beside the parameter and laid out as it is.
        moved = value.clone() if key == "step" else torch.empty_like(parameter, requires_grad=False).copy_(value)
        optimizer.state[parameter][key] = moved


def scaler_notes(scaler: torch.amp.GradScaler | None) -> dict[str, float] | None:
    """Return the loss scale of fp16 and how long it has held, as json values; None in other precisions."""
    return None if scaler is None else dict(scaler.state_dict())


def load_scaler_notes(scaler: torch.amp.GradScaler | None, notes: object, origin: str) -> None:
    """Put back what `scaler_notes` gave; None, of a device that scales nothing, lets the scale begin anew.

    Raises:
        DataError: they are not those of a scaler; the message names `origin`.
    """
    if scaler is None or notes is None:
        return
    names = scaler.state_dict().keys()
    if (
        not isinstance(notes, dict)
        or notes.keys() != names
        or not all(isinstance(v, int | float) for v in notes.values())
    ):
        raise _damaged(origin, f"its loss scale is {notes!r}")
    scaler.load_state_dict(notes)
