"""The device of a run, its threads on a CPU, and its processes and their launcher."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Literal, TypeVar

import torch
from torch import nn

from simmat.errors import ConfigError
from simmat.threads import CpuLoad, threads_are_chosen

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
"""Parameters of glibc's mallopt."""
_KEPT_BYTES = 1 << 30
_OTHER_TRAININGS = ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")
"""Ways to train that SimMAT does not support, as accelerate's launcher says them: ACCELERATE_USE_…"""
_GATHER_TIMEOUT = timedelta(days=7)
"""How long a process waits for the shares of the others; the launcher ends it if one of them fails."""
_MEASURED_STEPS = 5
"""In each precision; the fastest one counts, whatever else runs."""
_CLEARLY_FASTER = 1.25
"""Ratio from which a step gains by bf16: losses and optimiser stay in fp32."""
Item = TypeVar("Item")


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
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,4})?", str(name)):
        raise ConfigError(
            f"unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps"
        )
    kind, _, number = str(name).partition(":")
    if processes > 1 and (kind == "mps" or number):
        raise ConfigError(
            f"--device {name} is one device, but there are {processes} processes; use cuda, cpu or auto"
        )
    # torch wraps large numbers around
    if kind == "cuda" and int(number or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(
            f"no device {name!r}: there are {count} CUDA devices here; use --device cpu or auto"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"no device {name!r} here; use --device cpu or auto")
    return torch.device(str(name))


@cache
def keep_freed_memory() -> bool:
    """Let the process keep freed memory, and return whether that could be set.

    glibc takes results of more than 32 MiB from the system anew each time, which clears every page: a third of the time
    in which a CPU encodes 8 images. Variables of the user (MALLOC_*, GLIBC_TUNABLES) stay.
    """
    if platform.libc_ver()[0] != "glibc" or any(
        name.startswith(("MALLOC_", "GLIBC_TUN")) for name in os.environ
    ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES) and mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
    )


def launched_processes() -> int:
    """Return how many processes the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@cache
def faster_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """Measure in which precision convolutions learn clearly faster; this takes a fraction of a second.

    That a CPU has instructions for bf16 does not tell (pytorch/pytorch#183815).
    """
    with torch.random.fork_rng():
        layers = nn.Sequential(
            nn.Conv2d(64, 64, 3, padding=1), nn.GELU(), nn.Conv2d(64, 256, 1)
        )
        images = torch.rand(2, 64, 64, 64)
    layers.to(device)
    images = images.to(device).contiguous(memory_format=torch.channels_last)

    fastest = {}
    for half in (False, True):
        seconds = []
        for _ in range(_MEASURED_STEPS):
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                answer = layers(images)
            answer.float().sum().backward()
            wait_for(device)
            seconds.append(time.perf_counter() - start)
        fastest[half] = min(seconds)
    if fastest[True] * _CLEARLY_FASTER <= fastest[False]:
        return "bf16"
    return "fp32"


def wait_for(device: torch.device) -> None:
    """Wait until a device has finished its queued work, for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def own_settings(device: torch.device | None) -> Iterator[None]:
    """Hide accelerate's variables (ACCELERATE_*) while it starts: SimMAT's own settings say how a run computes.

    Args:
        device: the device it gets; None lets it choose, so that several processes use one GPU each.

    Raises:
        ConfigError: the launcher wants another kind of training, such as DeepSpeed or FSDP.
    """
    hidden = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("ACCELERATE_")
    }
    for name in (f"ACCELERATE_USE_{training}" for training in _OTHER_TRAININGS):
        if hidden.get(name, "").lower() in ("1", "true", "yes", "on", "y", "t"):
            raise ConfigError(
                f"the environment has {name}={hidden[name]}, which SimMAT does not support; unset {name}, or launch "
                "with accelerate launch --multi_gpu and without that option (accelerate config may have set it)"
            )
    for name in hidden:
        del os.environ[name]
    if device is not None:
        # accelerate takes a device from here only
        os.environ["ACCELERATE_TORCH_DEVICE"] = str(device)
    try:
        yield
    finally:
        os.environ.pop("ACCELERATE_TORCH_DEVICE", None)
        os.environ.update(hidden)


_load = CpuLoad()
_fixed: list[None] = []
"""One entry for each `fixed_threads` that is open."""
_lock = threading.Lock()
_before_load: list[int] = []
"""The number of torch's threads before the first `threads_for_load` that is open, once for each that is open."""


@contextmanager
def threads_for_load() -> Iterator[None]:
    """Let torch use as many threads in this block as cores are free: at least one, at most as many as now.

    Python threads may enter it at once; then all return to the number before the first. It changes nothing if a user
    has set the number of threads, or in `fixed_threads`.
    """
    if _fixed or threads_are_chosen():
        yield
        return
    with _lock:
        before = _before_load[0] if _before_load else torch.get_num_threads()
        _before_load.append(before)
        free = _load.free_cpus() + 0.25  # others always do a little
    torch.set_num_threads(before if free >= before else max(int(free), 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
        with _lock:
            _before_load.pop()


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Keep the number of torch's threads in this block, whatever the load, so that it gives the same bits again."""
    _fixed.append(None)
    try:
        yield
    finally:
        _fixed.pop()


@dataclass(frozen=True)
class Processes:
    """The processes that share a job, as this one sees them.

    Attributes:
        device: where this process computes.
        rank: number of this process, from 0.
        count: how many processes there are.
    """

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """True for the process that prints and writes."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of some items; each item is in exactly one part."""
        return items[self.rank :: self.count]

    def gather(self, value: Item) -> list[Item]:
        """Return the values of all processes, by rank."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[Item] = gather_object([value])
        return gathered


def join_processes(device: str | None) -> Processes:
    """Join the processes of the launcher; without a launcher this process is the only one.

    Args:
        device: as `pick_device` takes it. Several processes take one GPU each, so cuda:N is refused.

    Raises:
        ConfigError: the device does not exist, or the launcher wants another kind of training.
    """
    processes = launched_processes()
    picked = pick_device(device, processes=processes)
    if processes == 1:
        return Processes(picked)
    from accelerate import PartialState

    with own_settings(None):
        state = PartialState(cpu=picked.type == "cpu", timeout=_GATHER_TIMEOUT)
    return Processes(state.device, state.process_index, state.num_processes)
