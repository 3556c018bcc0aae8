"""A pretraining run on disk: weights, their running mean and the optimizer in safetensors, the rest in json.

Every random choice of a run is a function of seed and step, so no generator's state need be kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from simmat.errors import DataError
from simmat.files import atomic_path, atomic_write_json, read_json

FORMAT = 1
STATE_FILE = "state.json"


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write safetensors, whole or not at all."""
    with atomic_path(path) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary)


class RunningMean:
    """Exponential moving average of a model's weights and buffers (EMA)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: t.detach().clone() for name, t in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards the model; faster in the first steps, which are soon forgotten."""
        keep = min(self.decay, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            mine = self.tensors[name]
            if mine.is_floating_point():
                mine.lerp_(tensor.to(mine.dtype), 1 - keep)
            else:
                mine.copy_(tensor)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def save_run(
    folder: Path,
    step: int,
    model: nn.Module,
    mean: RunningMean,
    optimizer: torch.optim.Optimizer,
    facts: dict[str, Any],
) -> None:
    """Keep the run at `step`; the previous state goes once the new one is whole."""
    tensors = {f"model.{name}": t for name, t in model.state_dict().items()}
    tensors |= {f"mean.{name}": t for name, t in mean.tensors.items()}
    tensors |= _optimizer_tensors(optimizer)
    file = folder / f"state-{step:06d}.safetensors"
    write_tensors(file, tensors)
    atomic_write_json(folder / STATE_FILE, {"format": FORMAT, "step": step, "file": file.name, **facts})
    for old in folder.glob("state-*.safetensors"):
        if old != file:
            old.unlink()


def read_state(folder: Path) -> dict[str, Any]:
    """Return what `save_run` wrote beside the tensors: format, step, file and the facts.

    Raises:
        ValueError: there is no run, its state is damaged or was written by another format.
    """
    path = folder / STATE_FILE
    if not path.exists():
        raise ValueError(f"there is no {path}; give the folder of a pretraining run that has saved a state")
    try:
        state = read_json(path, "state", constants=True)
    except DataError as error:
        raise ValueError(f"{path} is damaged ({error}); start a new --out folder") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"{path} has format {found!r}, this version reads {FORMAT}; start a new --out folder")
    return state


def load_run(folder: Path, model: nn.Module, mean: RunningMean, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Bring a run back as `save_run` kept it.

    Returns:
        the facts kept beside it, with `step`.

    Raises:
        ValueError: see `read_state`.
    """
    facts = read_state(folder)
    tensors = load_file(folder / facts["file"])
    pick: dict[str, dict[str, Tensor]] = {kind: {} for kind in ("model", "mean", "optimizer")}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        pick[kind][rest] = tensor
    model.load_state_dict(pick["model"])
    for name, tensor in pick["mean"].items():
        mean.tensors[name].copy_(tensor)
    whole = optimizer.state_dict()
    whole["state"] = {}
    for name, tensor in pick["optimizer"].items():
        index, _, key = name.partition(".")
        whole["state"].setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict(whole)
    return facts
