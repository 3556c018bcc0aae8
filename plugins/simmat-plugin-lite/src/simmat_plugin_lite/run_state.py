"""A pretraining run on disk: weights, their running mean and the optimizer in safetensors, the rest in json.

Every random choice of a run is a function of seed and step, so no generator's state need be kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from simmat.files import atomic_path, atomic_write_json

FORMAT = 1


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write safetensors, whole or not at all."""
    with atomic_path(path) as temporary:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, metadata=metadata)


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
    atomic_write_json(folder / "state.json", {"format": FORMAT, "step": step, "file": file.name, **facts})
    for old in folder.glob("state-*.safetensors"):
        if old != file:
            old.unlink()


def load_run(folder: Path, model: nn.Module, mean: RunningMean, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Bring a run back as `save_run` kept it.

    Returns:
        the facts kept beside it, with `step`.

    Raises:
        ValueError: the state was written by another format.
    """
    facts: dict[str, Any] = json.loads((folder / "state.json").read_text())
    if facts.get("format") != FORMAT:
        raise ValueError(
            f"{folder / 'state.json'} has format {facts.get('format')!r}, this version reads {FORMAT}; "
            f"start a new --out folder"
        )
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
