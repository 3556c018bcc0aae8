"""Run cells on an executor as in `concurrent.futures`: threads on this machine, or dask."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simmat.errors import OutputError
from simmat.executors import check_workers, dask_client
from simmat.io.files import atomic_write_text
from simmat.threads import chosen_threads, usable_cpus
from simmat_plugin_bench.cells import CellFolder
from simmat_plugin_bench.prepare import RUN_WITH

LOCAL = "local"
STOP, KILL = "stop", "kill"
"""Contents of the stop file: finish the step and save; stop at once."""
_STOP_REQUESTS: dict[str, str] = {}
"""Stop file -> its content, for the cells that this process runs: it works even if the disk is full."""
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Devices:
    """The devices that cells run on.

    Attributes:
        gpus: CUDA devices, named as in CUDA_VISIBLE_DEVICES, of which each cell gets one; empty on a CPU and with dask.
        threads: CPU threads of each cell; None if the environment sets OMP_NUM_THREADS.
    """

    jobs: int
    gpus: tuple[str, ...] = ()
    threads: int | None = None

    def environment(self, slot: int) -> dict[str, str]:
        """Return the environment variables of the cell in slot `slot`, 0 <= slot < jobs."""
        variables = {"PYTHONUNBUFFERED": "1"}
        if self.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        if self.threads is not None:
            variables["OMP_NUM_THREADS"] = str(self.threads)
        return variables


def find_devices(jobs: int | None, environment: Mapping[str, str] = os.environ) -> Devices:
    """Return the devices of this machine for `jobs` cells at once; by default one per GPU, or one on all CPU cores."""
    import torch

    count = torch.cuda.device_count()
    visible = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    gpus = tuple(visible[:count]) if visible else tuple(str(index) for index in range(count))
    if gpus:
        return Devices(jobs or len(gpus), gpus)
    threads = None if chosen_threads(environment) else max(usable_cpus() // (jobs or 1), 1)
    return Devices(jobs or 1, (), threads)


@dataclass(frozen=True)
class Workers:
    """An executor and its devices.

    Attributes:
        executor: runs `run_cell`.
        devices: number of cells at once, and their environment variables.
        client: the dask client; None if the cells run on this machine.
    """

    executor: Executor
    devices: Devices
    client: Any = None

    def check_folder(self, out: Path) -> None:
        """Check that every worker sees the bench's folder, by the copy of the TOML in it.

        Raises:
            ConfigError: a worker does not see it, or lacks this package.
        """
        if self.client is not None:
            check_workers(self.client, [out / RUN_WITH], "simmat and simmat-plugin-bench")


@contextmanager
def workers_for(where: str, jobs: int | None) -> Iterator[Workers]:
    """Yield an executor, and shut it down at the end.

    Args:
        where: "local" for this machine, or tcp://HOST:PORT of a dask scheduler.
        jobs: cells at once; None is one per GPU or one on this machine, and one per thread of the workers with dask.

    Raises:
        ConfigError: `where` is neither, dask is not installed, no scheduler answers, or it has no workers.
    """
    if where == LOCAL:
        devices = find_devices(jobs)
        with ThreadPoolExecutor(devices.jobs) as pool:
            yield Workers(pool, devices)
        return
    with dask_client(where, "simmat-plugin-bench[dask]") as client:
        devices = Devices(jobs or sum(client.nthreads().values()))
        with client.get_executor(pure=False) as executor:
            yield Workers(executor, devices, client)


def run_cell(root: str, stop: str, environment: Mapping[str, str], *, test: bool, everything: bool = False) -> int:
    """Run one cell in a new process and wait for it.

    The new process stops by itself if this one dies, because its standard input closes.

    Args:
        root: the cell's folder.
        stop: the stop file of the bench; `STOP` or `KILL` in it stops the cell.
        environment: additional environment variables of the new process.
        everything: find every object of the test split without prompts, too, also by a model without a dense head.

    Returns:
        The exit code; -N if signal N ended the process.
    """
    flags = [flag for flag, given in (("--test", test), ("--everything", everything)) if given]
    command = [sys.executable, "-P", "-m", "simmat_plugin_bench.job", root, *flags]
    last = ""
    # In its own session, so that Ctrl-C reaches only the bench, which passes it on once.
    with (
        CellFolder(Path(root)).log.open("ab") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
            start_new_session=True,
        ) as process,
    ):
        while True:
            try:
                return process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                request = _STOP_REQUESTS.get(stop) or _read(stop)
            if request == KILL:
                process.kill()
            elif request and not last:
                process.terminate()
            last = request


def request_stop(stop: Path, request: str) -> None:
    """Stop all cells with this stop file, on this and other machines: `STOP` or `KILL`."""
    _STOP_REQUESTS[str(stop)] = request
    with suppress(OutputError):
        atomic_write_text(stop, request)


def clear_stop(stop: Path) -> None:
    """Let cells with this stop file run again."""
    _STOP_REQUESTS.pop(str(stop), None)
    stop.unlink(missing_ok=True)


def _read(stop: str) -> str:
    try:
        return Path(stop).read_text(encoding="utf-8")
    except OSError:
        return ""
