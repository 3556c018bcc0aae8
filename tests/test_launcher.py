"""accelerate's variables in the environment do not change what a run computes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from runs import config, gray_set

from simmat.cli import run
from simmat.errors import ConfigError
from simmat.evaluation import join_processes
from simmat.nn.device import check_launcher
from simmat.training.accelerator import make_accelerator

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
CHANGING = [
    ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
    ("ACCELERATE_DYNAMO_BACKEND", "eager"),
    ("ACCELERATE_DYNAMO_BACKEND", "no such thing"),
    ("ACCELERATE_USE_DEEPSPEED", "true"),
    ("ACCELERATE_USE_FSDP", "1"),
    ("ACCELERATE_USE_MEGATRON_LM", "true"),
    ("ACCELERATE_USE_PARALLELISM_CONFIG", "true"),
    ("ACCELERATE_FP8_BACKEND", "TE"),
    ("ACCELERATE_FP8_BACKEND", "no"),
]
LAUNCHED = {
    "ACCELERATE_USE_CPU": "False",
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "NO",
    "ACCELERATE_DYNAMO_MODE": "default",
    "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False",
    "ACCELERATE_DYNAMO_USE_DYNAMIC": "False",
    "ACCELERATE_DYNAMO_USE_REGIONAL_COMPILATION": "False",
    "ACCELERATE_FP8_BACKEND": "NO",
    "ACCELERATE_CPU_AFFINITY": "0",
    "ACCELERATE_DEBUG_MODE": "false",
    "ACCELERATE_LOG_LEVEL": "info",
}
"""What `accelerate launch` sets where it is asked for nothing, and what changes no number."""


@pytest.mark.parametrize(("variable", "value"), CHANGING)
def test_a_variable_that_changes_the_computation_is_refused_by_name(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forgotten export would train a compiled, cut-up or 8-bit network that no setting of the run tells of."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        make_accelerator(config(tmp_path, tmp_path / "run"))
    assert f"{variable}={value}" in str(caught.value)
    assert f"unset {variable}" in str(caught.value)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=variable):
        join_processes("cpu")


def test_a_run_that_is_refused_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ended as a fault of SimMAT: accelerate raises an ImportError where DeepSpeed is not installed."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    data, out = gray_set(tmp_path / "set"), tmp_path / "run"
    settings = "--modality gray --foundation tiny --image-size 64 --steps 1 --device cpu"
    assert run(["train", *settings.split(), "--data", str(data), "--out", str(out)]) == 2
    assert "ACCELERATE_USE_DEEPSPEED=true" in capsys.readouterr().err
    assert not out.exists()


def test_what_the_launcher_sets_by_itself_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch` is how several devices are used."""
    for variable, value in LAUNCHED.items():
        monkeypatch.setenv(variable, value)
    before = dict(os.environ)
    accelerator = make_accelerator(config(tmp_path, tmp_path / "run"))
    assert str(accelerator.state.dynamo_plugin.backend).endswith("NO")
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
        ("ACCELERATE_DYNAMO_USE_FULLGRAPH", "perhaps"),
        ("ACCELERATE_DYNAMO_MODE", "max-autotune"),
    ],
)
def test_where_a_setting_of_the_run_says_it_the_variable_does_not(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.toml would state one precision, accumulation or device, and the run have another."""
    monkeypatch.setenv(variable, value)
    accelerator = make_accelerator(config(tmp_path, tmp_path / "run", device="cpu"))
    assert accelerator.mixed_precision == "no"
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.device.type == "cpu"
    assert os.environ[variable] == value


@pytest.mark.parametrize(("value", "device"), [("true", CPU), ("1", CPU), ("False", CPU), ("no", GPU)])
def test_a_launcher_for_the_cpu_fits_a_run_on_the_cpu(
    value: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`accelerate launch --cpu` sets it."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", value)
    check_launcher(device)


@pytest.mark.parametrize(("value", "device"), [("true", GPU), ("perhaps", CPU)])
def test_a_launcher_for_the_cpu_fits_no_run_on_a_gpu(
    value: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run would be on the CPU although --device names a GPU."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", value)
    with pytest.raises(ConfigError, match=rf"ACCELERATE_USE_CPU={value}.*--device cpu"):
        check_launcher(device)
