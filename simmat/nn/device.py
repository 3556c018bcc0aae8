"""The device of a run, its threads on a CPU, its processes and their launcher, and compiled networks."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from simmat.errors import ConfigError
from simmat.nn.tensor_files import first_line
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
_REFUSED = (
    *(f"ACCELERATE_USE_{name}" for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")),
    "ACCELERATE_DYNAMO_BACKEND",
    "ACCELERATE_FP8_BACKEND",
)
"""Variables that change how a run computes; values that mean "no" are allowed."""
_REPLACED = ("ACCELERATE_TORCH_DEVICE", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
"""Variables replaced by `device`, `precision` and `grad_accumulation` of a run."""
_REPLACED_PREFIX = "ACCELERATE_DYNAMO_"


def check_launcher(device: torch.device) -> None:
    """Raise ConfigError if an environment variable of accelerate changes how a process of this device computes."""
    for variable in _REFUSED:
        value = os.environ.get(variable)
        if value is None or value == "NO" or (value.lower() in _FALSE and variable != "ACCELERATE_FP8_BACKEND"):
            continue
        raise ConfigError(
            f"the environment has {variable}={value}, which would change how SimMAT computes; unset {variable}, or "
            "launch with accelerate launch --multi_gpu and without that option (accelerate config may have set it)"
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

    It reads the device from the environment only; with None it chooses, so that several processes use one GPU each.
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


Item = TypeVar("Item")
_GATHER_TIMEOUT = timedelta(days=7)
"""How long a process waits for the shares of the others; the launcher ends it if one of them fails."""


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
        ConfigError: the device does not exist, or accelerate's environment variables would change how it computes.
    """
    processes = launched_processes()
    picked = pick_device(device, processes=processes)
    if processes == 1:
        return Processes(picked)
    from accelerate import PartialState

    check_launcher(picked)
    with own_settings(None):
        state = PartialState(cpu=picked.type == "cpu", timeout=_GATHER_TIMEOUT)
    return Processes(state.device, state.process_index, state.num_processes)


Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compile_network(network: nn.Module, device: torch.device) -> None:
    """Let a network compile its methods `encode` and `decode` when each is called first; weights keep their names.

    Raises:
        ConfigError: torch cannot compile for this device here.
    """
    try:
        _compiled(_probe)(torch.ones(8, device=device))
    except (ImportError, OSError, RuntimeError) as error:
        cause = first_line(error).partition(" Set TORCHDYNAMO")[0]  # for developers of torch
        what = "a C++ compiler (g++ or clang++; the variable CXX may name one)" if device.type == "cpu" else "triton"
        raise ConfigError(
            f"--compile: torch.compile does not work for {device} here ({cause}); install {what}, or leave "
            "--compile out"
        ) from error
    for name in ("encode", "decode"):
        setattr(network, name, _compiled(getattr(network, name)))


def _compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    # `dynamic` is torch's default: a size is fixed until a call has another one, such as a second click. Fixed sizes
    # alone would compile every number of prompts anew, and sizes that are all open give slower code.
    return torch.compile(function)


def _probe(x: Tensor) -> Tensor:
    return x.sin() + 1
