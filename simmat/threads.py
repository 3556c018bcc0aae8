"""How many CPU threads and how much memory this process may use.

OpenMP's threads do torch's work on a CPU. It counts the cores of the machine, not the quota of its container, and its
threads spin for milliseconds while they wait, which costs much where other programs need the cores
(`benchmarks/threads.py`). Where others take the cores even a short spin costs, so prediction uses as many threads as
cores are free (`CpuLoad`). Training does not: with another number of threads, numbers are added in another order, so a
run would not give the same bits twice.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from functools import cache
from pathlib import Path

START_METHOD = "fork" if sys.platform == "linux" else "spawn"
"""How processes that load data are started: forked where that is safe, since they then inherit what they read."""
THREADS_VARIABLE = "OMP_NUM_THREADS"
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables that say how OpenMP's threads wait: the standard's, GNU's, and Intel's and LLVM's."""
SHORT_SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
"""Rounds of a loop that does nothing, some microseconds; and milliseconds, the shortest that is not 0."""


@cache  # each prompt asks for it
def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU time per time, such as 1.5, that the container of this process may use; None without a limit."""
    files = [
        *_cgroup_files(root, "cpu.max"),
        *_cgroup_files(root, "cpu.cfs_quota_us", "cpu.cfs_period_us"),
    ]
    parts = (text.split() for text in files)
    return min(
        (int(quota) / int(period) for quota, period in parts if quota.isdigit()),
        default=None,
    )


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that the container of this process may use; None without a limit."""
    files = [
        *_cgroup_files(root, "memory.max"),
        *_cgroup_files(root, "memory.limit_in_bytes"),
    ]
    limits = (int(text) for text in files if text.strip().isdigit())
    # version 1 says 2**63 for no limit
    return min((limit for limit in limits if limit < 1 << 60), default=None)


def peak_memory_bytes() -> int:
    """Return the most memory that this process has had so far."""
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # bytes on macOS, KiB on Linux
    return peak if sys.platform == "darwin" else peak * 1024


def _cgroup_files(root: Path, *names: str) -> Iterator[str]:
    """Yield the text of files of this process's control groups and of those above them, of either version."""
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            inner = Path(path.lstrip("/"))
            # the last is the mount, which a container sees as its own group
            for below in (inner, *inner.parents):
                folder = root / "sys/fs/cgroup" / controllers / below
                with suppress(OSError):
                    yield " ".join((folder / name).read_text() for name in names)


def affinity_cpus() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_cpus() -> int:
    """Return the number of cores this process can keep busy: of its affinity and its container's quota, at least 1."""
    quota = cpu_quota()
    if quota is None:
        return affinity_cpus()
    return max(min(affinity_cpus(), math.ceil(quota)), 1)


def cpu_clock() -> tuple[float, float]:
    """Return the time, and the seconds in which cores were idle or worked for this process."""
    import psutil  # prediction alone needs it

    cores = psutil.cpu_times(percpu=True)
    if hasattr(os, "sched_getaffinity"):
        cores = [
            cores[number] for number in os.sched_getaffinity(0) if number < len(cores)
        ]
    idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in cores)
    return time.monotonic(), idle + time.process_time()


class CpuLoad:
    """How many cores the other processes leave free, since it was asked last."""

    _MIN_INTERVAL_S = 0.2
    """The system counts in hundredths of a second."""

    def __init__(self, clock: Callable[[], tuple[float, float]] = cpu_clock) -> None:
        self._clock = clock
        self._free, self._before = math.inf, clock()

    def free_cpus(self) -> float:
        """Return the cores that this process uses or that are idle."""
        now, spent = self._clock()
        passed = now - self._before[0]
        if passed >= self._MIN_INTERVAL_S:
            self._free = (spent - self._before[1]) / passed
            self._before = now, spent
        return self._free


def prepare_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the variables that OpenMP reads when torch loads it, each unless the user has set it.

    `import simmat` calls this. Processes that are started later inherit them.
    """
    if "torch" in sys.modules:
        return
    if not any(name in environment for name in WAIT_VARIABLES):
        environment.update(SHORT_SPIN)
    if (
        THREADS_VARIABLE not in environment
        and (cpus := usable_cpus()) < affinity_cpus()
    ):
        environment[THREADS_VARIABLE] = str(cpus)


def threads_are_chosen() -> bool:
    """Return whether a user or a launcher has set the number of threads, not `prepare_threads`."""
    return os.environ.get(THREADS_VARIABLE, str(usable_cpus())) != str(usable_cpus())
