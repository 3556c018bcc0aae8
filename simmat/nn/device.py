"""The device of a run, its threads on a CPU, and the processes and environment variables of a launcher."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from simmat.errors import ConfigError
from simmat.threads import CpuLoad, chosen_threads

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""
_KEPT_BYTES = 1 << 30
_load = CpuLoad()
_fixed: list[None] = []
"""One entry for each `fixed_threads` that is open."""


def pick_device(name: str | None, *, processes: int = 1) -> torch.device:
    """Return the device with a name: auto (the first GPU, else the CPU), cpu, cuda, cuda:N or mps.

    Args:
        name: the name; None means auto.
        processes: number of processes of the run; several use one GPU each, so one GPU cannot be named.

    Raises:
        ConfigError: the name is unknown, the device is not available, or several processes would share one GPU.
    """
    if name in (None, "auto"):
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]+)?", str(name)):
        raise ConfigError(f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    kind, _, number = str(name).partition(":")
    if processes > 1 and (kind == "mps" or number):
        raise ConfigError(f"--device {name} is one device, but there are {processes} processes; use cuda, cpu or auto")
    if kind == "cuda" and int(number or 0) >= (count := torch.cuda.device_count()):  # torch wraps large numbers around
        raise ConfigError(f"no device {name!r}: there are {count} CUDA devices here; use --device cpu or auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"no device {name!r} here; use --device cpu or auto")
    return torch.device(str(name))


@cache
def keep_freed_memory() -> bool:
    """Let the process keep freed memory, and return whether that could be set.

    glibc takes results of more than 32 MiB from the system anew each time, which clears every page: a third of the time
    in which a CPU encodes 8 images (`benchmarks/scaling.py`). Variables of the user (MALLOC_*, GLIBC_TUNABLES) stay.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUN")) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, _KEPT_BYTES))


def launched_processes() -> int:
    """Return how many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished its queued work, for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


_FALSE = ("0", "false", "no", "off", "n", "f")
_TRUE = ("1", "true", "yes", "on", "y", "t")
"""Values of a flag that accelerate accepts, in upper or lower case."""
_REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed splits the weights; SimMAT keeps all weights on every device",
    "ACCELERATE_USE_FSDP": "FSDP splits the weights; SimMAT keeps all weights on every device",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM splits the weights; SimMAT keeps all weights on every device",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "SimMAT distributes only the images over devices",
    "ACCELERATE_DYNAMO_BACKEND": "SimMAT does not compile its networks",
    "ACCELERATE_FP8_BACKEND": "SimMAT computes in the precision of --precision: fp32, bf16 or fp16",
}
"""Variables that change how a run computes -> why they are refused; values that mean "no" are allowed."""
_REPLACED = ("ACCELERATE_TORCH_DEVICE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
"""Variables replaced by `device`, `precision` and `grad_accumulation` of a run."""
_REPLACED_PREFIX = "ACCELERATE_DYNAMO_"


def check_launcher(device: torch.device) -> None:
    """Check that no environment variable of accelerate changes how this process computes.

    Args:
        device: the device of the run.

    Raises:
        ConfigError: a variable does; the message names it, its value and the remedy.
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
            f"the environment has ACCELERATE_USE_CPU={value}, but this run uses {device}; use --device cpu, or "
            "unset ACCELERATE_USE_CPU (accelerate launch --cpu and accelerate config set it)"
        )


@contextmanager
def own_settings(device: torch.device | None) -> Iterator[None]:
    """Hide from accelerate, while it starts, the variables that SimMAT's own settings replace.

    Args:
        device: the device for accelerate, which reads it from the environment only; None lets accelerate choose, so
            that several processes use one GPU each.
    """
    hidden = [name for name in os.environ if name in _REPLACED or name.startswith(_REPLACED_PREFIX)]
    before = {name: os.environ.pop(name) for name in hidden}
    if device is not None:
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    try:
        yield
    finally:
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
        os.environ.update(before)


@cache
def _is_chosen() -> bool:
    return chosen_threads() is not None


@contextmanager
def threads_for_load() -> Iterator[None]:
    """Let torch use in this block as many threads as cores are free, at most those it uses now and at least one.

    It changes nothing where a user has set the number of threads, or in `fixed_threads`.
    """
    before = torch.get_num_threads()
    if before == 1 or _fixed or _is_chosen():
        yield
        return
    free = _load.free_cpus() + 0.25  # others always do a little
    torch.set_num_threads(before if free >= before else max(int(free), 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Keep the number of torch's threads in this block, whatever the load, so that it gives the same bits again."""
    _fixed.append(None)
    try:
        yield
    finally:
        _fixed.pop()
