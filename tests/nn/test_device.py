"""On which device a network runs, with one process and with several."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.utils import DistributedType
from runs import config

from simmat.errors import ConfigError
from simmat.nn import device as device_module
from simmat.nn.device import (
    faster_precision,
    join_processes,
    pick_device,
)
from simmat.training import build as module

VARIABLE = "ACCELERATE_TORCH_DEVICE"


class Starting:
    """Stands for accelerate where there is no GPU to start it on: keeps what it would read."""

    num_processes = 1
    distributed_type = DistributedType.NO

    def __init__(self, **settings: Any) -> None:
        self.named = os.environ.get(VARIABLE)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two GPUs, as far as names go."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(module, "Accelerator", Starting)
    for name in ("WORLD_SIZE", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def named(device: str) -> str | None:
    """The device that accelerate is told of when it starts."""
    started: Any = module.make_accelerator(
        config(Path("data"), Path("out"), device=device)
    )
    return started.named


def test_one_process_takes_the_gpu_it_is_given(gpus: pytest.MonkeyPatch) -> None:
    """Several runs share a machine, each on its GPU."""
    assert named("cuda:1") == "cuda:1"


def test_several_processes_are_not_put_on_one_gpu(gpus: pytest.MonkeyPatch) -> None:
    """accelerate gives each process its GPU only where none is named; all on the first one run out of memory."""
    gpus.setenv("WORLD_SIZE", "2")
    assert named("cuda") is None


def test_the_next_run_of_a_program_does_not_inherit_the_device(
    gpus: pytest.MonkeyPatch,
) -> None:
    """A notebook trains twice; `auto` the second time must not mean the GPU of the first."""
    named("cuda:1")
    assert named("auto") is None
    gpus.setenv(VARIABLE, "cuda:0")
    named("cuda:1")
    assert os.environ[VARIABLE] == "cuda:0"


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_one_device_for_several_processes_is_refused(
    gpus: pytest.MonkeyPatch, device: str
) -> None:
    """It would be ignored, or hold all of them."""
    gpus.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        ConfigError, match=rf"--device {device} .*2 processes.*cuda, cpu or auto"
    ):
        named(device)
    with pytest.raises(ConfigError, match=rf"--device {device} .*2 processes"):
        join_processes(device)


@pytest.mark.parametrize(
    "name", ["meta", "xpu", "cpu:1", "cuda:", "cuda:-1", "cuda:٣", "gpu", ""]
)
def test_devices_that_are_not_supported_are_refused(name: str) -> None:
    """torch knows names on which a network computes nothing, as meta, or on which no score was ever taken."""
    with pytest.raises(ConfigError, match="auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)


@pytest.mark.parametrize("number", ["7", "128", "300", "9999"])
def test_a_gpu_that_is_not_there_is_refused(number: str) -> None:
    """torch would take 300 for 44."""
    with pytest.raises(ConfigError, match=f"no device 'cuda:{number}': there are"):
        pick_device(f"cuda:{number}")


@pytest.mark.parametrize(
    ("seconds", "chosen"), [(0.5, "bf16"), (0.9, "fp32"), (3.0, "fp32")]
)
def test_half_precision_is_chosen_where_it_is_clearly_faster(
    seconds: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step in fp32 takes a second here. The random numbers of the training stay as they are."""
    times = []
    now = 0.0
    steps = device_module._MEASURED_STEPS
    for duration in [1.0] * steps + [seconds] * steps:
        times += [now, now + duration]
        now += duration
    monkeypatch.setattr(device_module.time, "perf_counter", iter(times).__next__)
    before = torch.random.get_rng_state()
    assert faster_precision.__wrapped__(torch.device("cpu")) == chosen
    assert torch.equal(torch.random.get_rng_state(), before)
