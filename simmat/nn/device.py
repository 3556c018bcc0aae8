"""The device a run uses, and the processes it shares with others under a launcher."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from simmat.errors import ConfigError


def pick_device(name: str | None, *, processes: int = 1) -> torch.device:
    """Return the device of a name: auto (the first GPU, else the CPU), cpu, cuda, cuda:N or mps.

    Args:
        name: None is auto.
        processes: how many work together; several take a GPU each, so none can be named.

    Raises:
        ConfigError: it is none of these, is not there, or is one device for several processes.
    """
    if name in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", str(name)):
        raise ConfigError(f"no device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    kind, _, number = str(name).partition(":")
    if processes > 1 and (kind == "mps" or number):
        raise ConfigError(f"--device {name} is one device, for {processes} processes; use cuda, cpu or auto")
    if kind == "cuda" and int(number or 0) >= (have := torch.cuda.device_count()):  # torch wraps a large number
        raise ConfigError(f"no device {name!r}: there are {have} CUDA devices here; use --device cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"no device {name!r} here; use --device cpu or auto")
    return torch.device(str(name))


def launched_processes() -> int:
    """Return how many processes the launcher started for this command; 1 where there was none."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all it was given; a clock read before that measures only the giving."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


_FALSE = ("0", "false", "no", "off", "n", "f")
_TRUE = ("1", "true", "yes", "on", "y", "t")
"""Words that accelerate takes for a flag, in any case."""
_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed cuts the weights up; SimMAT trains with whole ones on every device",
    "ACCELERATE_USE_FSDP": "FSDP cuts the weights up; SimMAT trains with whole ones on every device",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM cuts the weights up; SimMAT trains with whole ones on every device",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "SimMAT shares out images between devices, and nothing else",
    "ACCELERATE_DYNAMO_BACKEND": "SimMAT does not compile its networks",
    "ACCELERATE_FP8_BACKEND": "SimMAT computes in what --precision says: fp32, bf16 or fp16",
}
"""Variables that change how a run computes -> why they may not; words that accelerate takes for "no" are allowed."""
_OWN = ("ACCELERATE_TORCH_DEVICE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
"""Variables that `device`, `precision` and `grad_accumulation` of a run stand in for."""
_OWN_PREFIX = "ACCELERATE_DYNAMO_"


def check_launcher(device: torch.device) -> None:
    """Check that no environment variable of accelerate changes how this process computes.

    Args:
        device: what the settings choose.

    Raises:
        ConfigError: one does; says which, its value and what to do.
    """
    for variable, why in _REFUSED.items():
        value = os.environ.get(variable)
        if value is None or value == "NO" or (value.lower() in _FALSE and variable != "ACCELERATE_FP8_BACKEND"):
            continue
        raise ConfigError(
            f"the environment has {variable}={value}, and {why}; unset {variable}, or launch with accelerate launch "
            "--multi_gpu and without that option (accelerate config may have set it)"
        )
    value = os.environ.get("ACCELERATE_USE_CPU", "false")
    if value.lower() not in (*_TRUE, *_FALSE) or (value.lower() in _TRUE and device.type != "cpu"):
        raise ConfigError(
            f"the environment has ACCELERATE_USE_CPU={value}, and this run is to be on {device}; say --device cpu, or "
            "unset ACCELERATE_USE_CPU (accelerate launch --cpu and accelerate config set it)"
        )


@contextmanager
def own_settings(device: torch.device | None) -> Iterator[None]:
    """Hide from accelerate, while it starts, the variables that SimMAT's own settings stand in for.

    Args:
        device: the one it takes, which it reads from the environment only; None lets it choose, as several processes
            must to take a GPU each.
    """
    hidden = [name for name in os.environ if name in _OWN or name.startswith(_OWN_PREFIX)]
    before = {name: os.environ.pop(name) for name in hidden}
    if device is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    try:
        yield
    finally:
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
        os.environ.update(before)
