"""How many CPU threads this process may use, and how long they spin while they wait for each other.

OpenMP's threads do torch's work on a CPU. One that spins at the end of a parallel loop continues at once, but burns a
core that another process may need; one that sleeps is woken too late. `prepare_threads` lets them spin for well under a
millisecond, in place of libgomp's few, which is as fast on free cores and close to one thread on busy ones
(`benchmarks/threads.py`). OpenMP counts the cores of the machine, not the quota of its container.

Where others take the cores even a short spin costs several times the CPU time of one thread, so prediction and
evaluation use as many threads as cores are free (`CpuLoad`). Training does not: with another number of threads, numbers
are added in another order, so a run would not give the same bits twice.
"""

from __future__ import annotations

import math
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

THREADS_VARIABLE = "OMP_NUM_THREADS"
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that say how OpenMP's threads wait: the standard's, GNU's, and Intel's and LLVM's."""
SHORT_SPIN = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
"""Rounds of a loop that does nothing, well under a millisecond; and milliseconds, the shortest that is not 0."""

_UNLIMITED_BYTES = 1 << 60
"""Version 1 of cgroups states a limit near 2**63 where there is none."""


@dataclass(frozen=True)
class Limits:
    """What the container or service of this process may use.

    Attributes:
        cpus: CPU time per time, such as 1.5; None without a limit.
        memory_bytes: None without a limit.
    """

    cpus: float | None = None
    memory_bytes: int | None = None


def cgroup_limits(root: Path = Path("/")) -> Limits:
    """Return the limits of the control groups of this process, the lowest of all levels; none outside of Linux."""
    cpus: list[float] = []
    memory: list[int] = []
    for folder in _cgroup_folders(root):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # version 2, version 1
            with suppress(OSError, ValueError):  # without a limit "max", which is no number, or -1
                quota, period = " ".join((folder / name).read_text() for name in names).split()
                cpus.append(int(quota) / int(period))
        for name in ("memory.max", "memory.limit_in_bytes"):
            with suppress(OSError, ValueError):
                memory.append(int((folder / name).read_text()))
    return Limits(
        min((limit for limit in cpus if limit > 0), default=None),
        min((limit for limit in memory if 0 < limit < _UNLIMITED_BYTES), default=None),
    )


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Yield the folders of this process's control groups and of those above them."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mount = root / "sys/fs/cgroup" / controllers
        inner = Path(path.lstrip("/"))
        for below in (inner, *inner.parents):  # the last is the mount, which a container sees as its own group
            yield mount / below


def affinity_cpus() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usable_cpus() -> int:
    """Return the number of cores this process can keep busy: of its affinity and its container's quota, at least 1."""
    quota = cgroup_limits().cpus
    return affinity_cpus() if quota is None else max(min(affinity_cpus(), math.ceil(quota)), 1)


class CpuLoad:
    """How many cores the other processes leave free, since it was asked last."""

    _MIN_INTERVAL_S = 0.2
    """Linux counts in hundredths of a second."""

    def __init__(self) -> None:
        self._free = math.inf
        self._before = self._now()

    def free_cpus(self) -> float:
        """Return the cores that this process uses or that are idle; infinity where the system does not tell."""
        clock, spent = self._before
        if time.monotonic() - clock >= self._MIN_INTERVAL_S:
            self._before = now, used = self._now()
            self._free = (used - spent) / (now - clock) if math.isfinite(used) else math.inf
        return self._free

    def _now(self) -> tuple[float, float]:
        """Return the time, and the seconds in which cores were idle or worked for this process; infinity if unknown."""
        try:
            lines = Path("/proc/stat").read_text().splitlines()
        except OSError:  # another system than Linux
            return time.monotonic(), math.inf
        own, idle = os.sched_getaffinity(0), 0
        for name, *ticks in (line.split() for line in lines if line.startswith("cpu")):
            if name != "cpu" and int(name[3:]) in own:
                idle += int(ticks[3]) + int(ticks[4])  # idle, and waiting for a disk
        return time.monotonic(), idle / os.sysconf("SC_CLK_TCK") + time.process_time()


def prepare_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that OpenMP reads when torch loads it, each unless the user has set it.

    `import simmat` calls this. It does nothing if torch is already loaded, because OpenMP reads them only once.
    Processes that are started later inherit them.
    """
    if "torch" in sys.modules:
        return
    if not any(name in environment for name in WAIT_VARIABLES):
        environment.update(SHORT_SPIN)
    if THREADS_VARIABLE not in environment and (cpus := usable_cpus()) < affinity_cpus():
        environment[THREADS_VARIABLE] = str(cpus)


def chosen_threads(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the number of threads that a user or a launcher has set; None if it is left to SimMAT."""
    value, cpus = environment.get(THREADS_VARIABLE), usable_cpus()
    ours = str(cpus) if cpus < affinity_cpus() else None
    return None if value == ours else value


def cpu_name() -> str:
    """Return the name of the processor, as far as the system tells it."""
    return cpu_field("model name") or platform.processor() or platform.machine()


def cpu_field(pattern: str) -> str:
    """Return the first value of a field in /proc/cpuinfo; "" elsewhere than on Linux."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^(?:{pattern})\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else ""
