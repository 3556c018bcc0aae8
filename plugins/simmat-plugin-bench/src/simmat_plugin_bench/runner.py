"""Runs the cells of a bench, each in a process of its own, several at once where there are devices."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from simmat.config import dump_toml
from simmat.files import atomic_write_json, atomic_write_text
from simmat_plugin_bench.cells import FORMAT, Cell, matches, write_order
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.prepare import remove_losers
from simmat_plugin_bench.results import Job, all_jobs, arm_state

LOG_LINES = 8
"""Last lines of the log that a failure keeps."""
GRACE_SECONDS = 90
"""How long a run that is asked to stop may take to end its step and save."""


@dataclass(frozen=True)
class Devices:
    """What the jobs run on.

    Attributes:
        jobs: how many at once.
        gpus: CUDA devices as CUDA_VISIBLE_DEVICES names them; a job gets one; empty on a CPU.
        threads: of each job on a CPU; None where the environment says OMP_NUM_THREADS.
    """

    jobs: int
    gpus: tuple[str, ...] = ()
    threads: int | None = None

    def environment(self, slot: int) -> dict[str, str]:
        """Return the variables of the job in slot `slot`, 0 <= slot < jobs."""
        said = {"PYTHONUNBUFFERED": "1"}
        if self.gpus:
            said["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        if self.threads is not None:
            said["OMP_NUM_THREADS"] = str(self.threads)
        return said


def find_devices(jobs: int | None, environment: Mapping[str, str] = os.environ) -> Devices:
    """Return one job a GPU, or on a CPU one job with all cores, unless `jobs` says how many."""
    import torch

    count = torch.cuda.device_count()
    visible = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    gpus = tuple(visible[:count]) if visible else tuple(str(index) for index in range(count))
    if gpus:
        return Devices(jobs or len(gpus), gpus)
    threads = None if "OMP_NUM_THREADS" in environment else max((os.cpu_count() or 1) // (jobs or 1), 1)
    return Devices(jobs or 1, (), threads)


class Progress(Protocol):
    """Told of every job."""

    def ended(self, job: Job, seconds: float, failure: str) -> None:
        """A job has ended; `failure` says why it failed, "" where it did not."""


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    slot: int
    began: float = field(default_factory=time.monotonic)


class Runner:
    """Runs what is to be done in a bench.

    Args:
        bench: the bench.
        devices: what the jobs run on.
        progress: told of every job.
        only: run only cells whose name matches this pattern, as of a shell.

    Attributes:
        failed: the cells that failed, with the last lines of their logs.
        stopped: whether a signal ended it.
    """

    def __init__(self, bench: Bench, devices: Devices, progress: Progress, only: str | None = None) -> None:
        self.bench, self.devices, self.progress, self.only = bench, devices, progress, only
        self.failed: dict[str, str] = {}
        self.stopped = False
        self._running: dict[Path, _Running] = {}
        self._free = deque(range(devices.jobs))

    def run(self) -> None:
        """Run until nothing is left that can run, or a signal comes."""
        with _signals(self._ask_to_stop):
            while not self.stopped:
                for job in self._ready():
                    if not self._free:
                        break
                    self._start(job)
                if not self._running:
                    return
                self._wait()
            self._end_all()

    def _ready(self) -> Iterator[Job]:
        for job in all_jobs(self.bench):
            busy = job.cell.root in self._running or job.cell.name in self.failed
            if not busy and matches(job.cell, self.only):
                yield job

    def _start(self, job: Job) -> None:
        folder = job.cell.folder
        write_order(job.cell)
        atomic_write_text(folder.config, dump_toml(job.cell.config))
        folder.failure.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-P",
            "-m",
            "simmat_plugin_bench.job",
            str(folder.root),
            *(["--test"] if job.test else []),
        ]
        slot = self._free.popleft()
        log = folder.log.open("ab")
        # A session of its own: Ctrl-C reaches only us, and we pass it on once.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.devices.environment(slot)},
            start_new_session=True,
        )
        self._running[folder.root] = _Running(job, process, log, slot)

    def _wait(self) -> None:
        while not self.stopped:
            ended = [one for one in self._running.values() if one.process.poll() is not None]
            for one in ended:
                self._finish(one)
            if ended:
                return
            time.sleep(0.05)

    def _finish(self, one: _Running) -> None:
        code = one.process.wait()
        one.log.close()
        assert one.process.stdin is not None  # it is a pipe
        one.process.stdin.close()
        del self._running[one.job.cell.root]
        self._free.append(one.slot)
        failure = ""
        if code and not self.stopped:
            failure = _last_lines(one.job.cell.folder.log, code)
            self.failed[one.job.cell.name] = failure
            atomic_write_json(one.job.cell.folder.failure, {"format": FORMAT, "code": code, "log": failure})
        self._tidy(one.job.cell)
        self.progress.ended(one.job, time.monotonic() - one.began, failure)

    def _tidy(self, cell: Cell) -> None:
        for data, arm in self.bench.pairs():
            if (data.name, arm.name, arm.foundation) == (cell.dataset, cell.arm, cell.foundation):
                chosen = arm_state(self.bench, data, arm).chosen
                cells = self.bench.cells_of(data, arm)
                remove_losers(chosen, cells, keep_bundles=self.bench.settings.keep_bundles)

    def _end_all(self) -> None:
        """Ask every job to save and stop; after a while, or a second signal, kill what is left."""
        for one in self._running.values():
            one.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        try:
            for one in self._running.values():
                one.process.wait(max(until - time.monotonic(), 0))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for one in self._running.values():
                one.process.kill()
        for one in list(self._running.values()):
            self._finish(one)

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
