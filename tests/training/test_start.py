"""accelerate's variables in the environment do not change what a run computes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runs import config, gray_set

from simmat.cli import run
from simmat.training.build import make_accelerator


def test_another_kind_of_training_is_refused_by_name_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forgotten `accelerate config` would train a cut-up network that no setting of the run tells of."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    data, out = gray_set(tmp_path / "set"), tmp_path / "run"
    settings = (
        "--modality gray --foundation tiny --image-size 64 --steps 1 --device cpu"
    )
    assert (
        run(["train", *settings.split(), "--data", str(data), "--out", str(out)]) == 2
    )
    assert "ACCELERATE_USE_DEEPSPEED=true" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCELERATE_USE_CPU", "False"),
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
        ("ACCELERATE_DYNAMO_USE_FULLGRAPH", "perhaps"),
        ("ACCELERATE_FP8_BACKEND", "TE"),
    ],
)
def test_what_the_launcher_sets_does_not_change_the_run(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.toml would state one precision, accumulation or device, and the run have another."""
    monkeypatch.setenv(variable, value)
    accelerator = make_accelerator(config(tmp_path, tmp_path / "run", device="cpu"))
    assert accelerator.mixed_precision == "no"
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.device.type == "cpu"
    assert str(accelerator.state.dynamo_plugin.backend).endswith("NO")
    assert os.environ[variable] == value
