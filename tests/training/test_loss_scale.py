"""The loss scale of fp16 outlives an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from runs import config, gray_set, registry

from simmat import training
from simmat.config import TrainConfig
from simmat.training.run_folder import load_state


def fresh() -> torch.amp.GradScaler:
    """A scaler as a run makes one when it starts."""
    return torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=3)


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
    real = training.start.make_accelerator

    def scaling(settings: TrainConfig) -> Accelerator:
        accelerator = real(settings)  # of a CPU, where accelerate itself scales nothing
        accelerator.scaler = fresh()
        return accelerator

    monkeypatch.setattr(training.start, "make_accelerator", scaling)
    data = gray_set(tmp_path / "set")
    training.train(config(data, tmp_path / "whole", grad_clip=0.0), registry())
    with pytest.raises(KeyboardInterrupt):
        training.train(
            config(data, tmp_path / "cut", grad_clip=0.0), registry(), StopAfter(5)
        )
    training.resume(tmp_path / "cut", registry())
    whole, cut = (
        load_state(tmp_path / name / "last.safetensors") for name in ("whole", "cut")
    )
    # grew after steps 3 and 6; the cut fell into its interval
    assert whole.notes.scaler["scale"] == 4 * 65536
    assert cut.notes.scaler == whole.notes.scaler
