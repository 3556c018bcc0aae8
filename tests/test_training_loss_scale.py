"""The loss scale of fp16 outlives an interruption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from runs import config, gray_set, registry

from simmat import training
from simmat.config import TrainConfig
from simmat.errors import DataError
from simmat.training.state import load_scaler_notes, load_state, scaler_notes

LIVED = {"scale": 1024.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3, "_growth_tracker": 2}


def fresh() -> torch.amp.GradScaler:
    """A scaler as a run makes one when it starts."""
    return torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=3)


def one_step(scaler: torch.amp.GradScaler) -> None:
    """A step whose gradient is finite: the scale holds, or grows where it has held for its interval."""
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    scaler.scale(weight.sum()).backward()
    scaler.step(optimizer)
    scaler.update()


def test_a_resumed_run_keeps_the_state_of_its_scaler() -> None:
    """A scale that starts at 65536 again overflows, and the run loses the steps it takes to come down."""
    scaler = fresh()
    load_scaler_notes(scaler, LIVED, "last.safetensors")
    for _ in range(5):  # grows after the first step, and once more after three
        one_step(scaler)
    again = fresh()
    load_scaler_notes(again, json.loads(json.dumps(scaler_notes(scaler))), "last.safetensors")
    assert scaler_notes(again) == {**LIVED, "scale": 4096.0, "_growth_tracker": 1}
    one_step(scaler), one_step(again)
    assert (again.get_scale(), scaler_notes(again)) == (scaler.get_scale(), scaler_notes(scaler))


@pytest.mark.parametrize("notes", [{}, [], {"scale": 1.0}, {**LIVED, "scale": "big"}])
def test_a_damaged_scale_is_refused(notes: object) -> None:
    """A cut or edited state ends in a message, not in a traceback or in a run of another scale."""
    with pytest.raises(DataError, match=r"last\.safetensors is damaged"):
        load_scaler_notes(fresh(), notes, "last.safetensors")


def test_a_state_without_a_scale_is_resumed() -> None:
    """A run in another precision has none, nor does a device that scales nothing, and runs may change device."""
    scaler = fresh()
    load_scaler_notes(scaler, None, "last.safetensors")
    load_scaler_notes(None, LIVED, "last.safetensors")
    assert scaler.get_scale() == 65536
    assert scaler_notes(None) is None


class StopAfter(training.Callback):
    """Stops a run without a word after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        if step == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_scale_of_one_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state carries it from run to run, beside the moments it belongs to."""
    real = training.loop.make_accelerator

    def scaling(settings: TrainConfig) -> Accelerator:
        accelerator = real(settings)  # of a CPU, where accelerate itself scales nothing
        accelerator.scaler = fresh()
        return accelerator

    monkeypatch.setattr(training.loop, "make_accelerator", scaling)
    data = gray_set(tmp_path / "set")
    training.train(config(data, tmp_path / "whole", grad_clip=0.0), registry())
    with pytest.raises(KeyboardInterrupt):
        training.train(config(data, tmp_path / "cut", grad_clip=0.0), registry(), StopAfter(5))
    training.resume(tmp_path / "cut", registry())
    whole, cut = (load_state(tmp_path / name / "last.safetensors") for name in ("whole", "cut"))
    assert whole.notes.scaler["scale"] == 4 * 65536  # grew after steps 3 and 6; the cut fell into its interval
    assert cut.notes.scaler == whole.notes.scaler
