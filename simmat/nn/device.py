"""Which device a network runs on."""

from __future__ import annotations

import torch

from simmat.errors import ConfigError


def pick_device(name: str | None) -> torch.device:
    """Return the device of a name: auto (the first GPU, else the CPU), cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: it is not there.
    """
    if name in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(str(name))
    except RuntimeError:
        raise ConfigError(f"no device {name!r}; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        have = torch.cuda.device_count()
        raise ConfigError(f"no device {name!r}: there are {have} CUDA devices here; use --device cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"no device {name!r} here; use --device cpu or auto")
    return device
