"""Which device a network runs on."""

from __future__ import annotations

import os
import re

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
