"""Run the cells of a bench on an executor, several at once: threads on this machine, or dask."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simmat.config import dump_toml
from simmat.errors import OutputError
from simmat.executors import check_workers, dask_client
from simmat.io.files import atomic_write_json, atomic_write_text
from simmat.threads import THREADS_VARIABLE, usable_cpus
from simmat_plugin_bench.cells import FORMAT, Cell, CellFolder, matches, write_order
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.prepare import RUN_WITH, remove_losers
from simmat_plugin_bench.schedule import Job, all_jobs, arm_state
from simmat_plugin_bench.settings import EVERYTHING

LOG_LINES = 8
"""Last lines of the log that are kept of a failed cell."""
GRACE_SECONDS = 90
"""How long a stopped run may take to finish its step and save."""
_KILL_SECONDS = 10


Ended = Callable[[Job, float, str], None]
"""Called with a job that has ended, its seconds, and its error; "" if it succeeded or was stopped."""


@dataclass(frozen=True)
class _Running:
    job: Job
    slot: int
    began: float = field(default_factory=time.monotonic)


class Runner:
    """Runs the jobs of a bench.

    Args:
        only: run only cells whose name matches this shell pattern.

    Attributes:
        failed: names of failed cells -> last lines of their logs.
        stopped: True after a signal.
    """

    def __init__(self, bench: Bench, workers: Workers, ended: Ended, only: str | None = None) -> None:
        self.bench, self.workers, self.ended, self.only = bench, workers, ended, only
        self.failed: dict[str, str] = {}
        self.stopped = False
        self._stop_file = bench.out / ".stop"
        self._running: dict[Future[int], _Running] = {}
        self._free = deque(range(workers.devices.jobs))

    def run(self) -> None:
        """Run until no job is left, or a signal arrives."""
        clear_stop(self._stop_file)
        with _signals(self._ask_to_stop):
            try:
                while not self.stopped:
                    self._submit()
                    if not self._running:
                        break
                    self._collect()
            finally:
                if self._running:
                    self._end_all()
                clear_stop(self._stop_file)

    def _submit(self) -> None:
        """Submit only as many jobs as can run at once, because every result may change the next job."""
        busy = {one.job.cell.root for one in self._running.values()}
        for job in all_jobs(self.bench) if self._free else ():
            cell = job.cell
            if cell.root in busy or cell.name in self.failed or not matches(cell, self.only):
                continue
            write_order(cell)
            atomic_write_text(cell.folder.config, dump_toml(cell.config))
            cell.folder.failure.unlink(missing_ok=True)
            slot = self._free.popleft()
            variables = self.workers.devices.environment(slot)
            everything = self.bench.settings.score.startswith(EVERYTHING)
            future = self.workers.executor.submit(
                run_cell, str(cell.root), str(self._stop_file), variables, test=job.test, everything=everything
            )
            self._running[future] = _Running(job, slot)
            if not self._free:
                return

    def _collect(self) -> None:
        """Wait until a job has ended or a signal has arrived."""
        ended: set[Future[int]] = set()
        while not (ended or self.stopped):
            ended, _ = wait(self._running, timeout=0.1, return_when=FIRST_COMPLETED)
        for future in ended:
            self._finish(future)

    def _finish(self, future: Future[int]) -> None:
        one = self._running.pop(future)
        self._free.append(one.slot)
        cell = one.job.cell
        code, failure = 1, ""
        try:
            code = future.result(timeout=0)
            failure = _last_lines(cell.folder.log, code) if code else ""
        except (CancelledError, TimeoutError):
            failure = "the executor cancelled it"
        except Exception as error:  # from the executor: a full disk, a lost worker
            failure = f"{type(error).__name__}: {error}"
        if self.stopped:
            failure = ""
        if failure:
            self.failed[cell.name] = failure
            atomic_write_json(cell.folder.failure, {"format": FORMAT, "code": code, "log": failure})
        self._tidy(cell)
        self.ended(one.job, time.monotonic() - one.began, failure)

    def _tidy(self, cell: Cell) -> None:
        for data, arm in self.bench.pairs():
            if (data.name, arm.name, arm.foundation) == (cell.dataset, cell.arm, cell.foundation):
                chosen = arm_state(self.bench, data, arm).chosen
                cells = self.bench.cells_of(data, arm)
                remove_losers(chosen, cells, keep_bundles=self.bench.settings.keep_bundles)

    def _end_all(self) -> None:
        """Let every job save and stop; after `GRACE_SECONDS` or a second signal, kill the others."""
        self.stopped = True
        try:
            request_stop(self._stop_file, STOP)
            _, left = wait(self._running, timeout=GRACE_SECONDS)
        except KeyboardInterrupt:
            left = set(self._running)
        if left:
            request_stop(self._stop_file, KILL)
            _, left = wait(self._running, timeout=_KILL_SECONDS)
        for future in left:
            future.cancel()
        for future in list(self._running):
            self._finish(future)

    def _ask_to_stop(self) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True


def _last_lines(log: Path, code: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    if code < 0:
        lines.append(f"ended by signal {signal.Signals(-code).name}")
    return "\n".join(lines) or f"exit code {code}"


@contextmanager
def _signals(ask: Callable[[], Any]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: ask()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    cpus = usable_cpus()
    chosen = environment.get(THREADS_VARIABLE, str(cpus)) != str(cpus)  # simmat sets the quota of a container
    return Devices(jobs or 1, (), None if chosen else max(cpus // (jobs or 1), 1))


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
