"""Run the cells of a bench, each in a process of its own, several at once."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simmat.config import dump_toml
from simmat.io.files import atomic_write_json, atomic_write_text
from simmat.threads import THREADS_VARIABLE, usable_cpus
from simmat_plugin_bench.cells import FORMAT, Cell, CellFolder, matches, write_order
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.prepare import remove_losers
from simmat_plugin_bench.schedule import Job, all_jobs, arm_state
from simmat_plugin_bench.settings import EVERYTHING

LOG_LINES = 8
"""Last lines of the log that are kept of a failed cell."""
GRACE_SECONDS = 90
"""How long a stopped run may take to finish its step and save."""
_POLL_SECONDS = 0.1

Ended = Callable[[Job, float, str], None]
"""Called with a job that has ended, its seconds, and its error; "" if it succeeded or was stopped."""


@dataclass(frozen=True)
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    variables: Mapping[str, str]
    began: float


class Runner:
    """Runs the jobs of a bench.

    Args:
        slots: environment variables of each process that may run at once, see `process_slots`.
        only: run only cells whose name matches this shell pattern.

    Attributes:
        failed: names of failed cells -> last lines of their logs.
        stopped: True after a signal.
    """

    def __init__(self, bench: Bench, slots: list[dict[str, str]], ended: Ended, only: str | None = None) -> None:
        self.bench, self.ended, self.only = bench, ended, only
        self.failed: dict[str, str] = {}
        self.stopped = False
        self._running: list[_Running] = []
        self._free: deque[Mapping[str, str]] = deque(slots)

    def run(self) -> None:
        """Run until no job is left, or a signal arrives."""
        with _signals(self._ask_to_stop):
            try:
                while not self.stopped:
                    self._start()
                    if not self._running:
                        break
                    while not (self._collect() or self.stopped):
                        time.sleep(_POLL_SECONDS)
            finally:
                if self._running:
                    self._end_all()

    def _start(self) -> None:
        """Start only as many jobs as can run at once, because every result may change the next job."""
        busy = {one.job.cell.root for one in self._running}
        everything = self.bench.settings.score.startswith(EVERYTHING)
        for job in all_jobs(self.bench):
            cell = job.cell
            if not self._free:
                return
            if cell.root in busy or cell.name in self.failed or not matches(cell, self.only):
                continue
            write_order(cell)
            atomic_write_text(cell.folder.config, dump_toml(cell.config))
            cell.folder.failure.unlink(missing_ok=True)
            variables = self._free.popleft()
            try:
                process = start_cell(cell.root, variables, test=job.test, everything=everything)
            except OSError as error:  # such as a full disk
                self._free.append(variables)
                self._finish(job, 0.0, 1, f"{type(error).__name__}: {error}")
            else:
                self._running.append(_Running(job, process, variables, time.monotonic()))

    def _collect(self) -> bool:
        """Finish the jobs whose processes have ended; return whether there is one."""
        ended = [one for one in self._running if one.process.poll() is not None]
        for one in ended:
            self._running.remove(one)
            self._free.append(one.variables)
            code = one.process.wait()
            if one.process.stdin is not None:
                one.process.stdin.close()
            failure = _last_lines(one.job.cell.folder.log, code) if code and not self.stopped else ""
            self._finish(one.job, time.monotonic() - one.began, code, failure)
        return bool(ended)

    def _finish(self, job: Job, seconds: float, code: int, failure: str) -> None:
        cell = job.cell
        if failure:
            self.failed[cell.name] = failure
            atomic_write_json(cell.folder.failure, {"format": FORMAT, "code": code, "log": failure})
        self._tidy(cell)
        self.ended(job, seconds, failure)

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
            for one in self._running:
                if one.process.stdin is not None:
                    one.process.stdin.close()  # not `terminate`, which on Windows lets nothing be saved
            end = time.monotonic() + GRACE_SECONDS
            while self._running and time.monotonic() < end:
                self._collect()
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            pass
        for one in self._running:
            one.process.kill()
            one.process.wait()
        self._collect()

    def _ask_to_stop(self) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True


def start_cell(
    root: Path, variables: Mapping[str, str], *, test: bool, everything: bool = False
) -> subprocess.Popen[bytes]:
    """Start the process of one cell; its output goes into the cell's log.

    It stops by itself if this process dies, because its standard input closes.

    Args:
        root: the cell's folder.
        variables: additional environment variables.
        everything: find every object of the test split without prompts, too, also by a model without a dense head.
    """
    flags = [flag for flag, given in (("--test", test), ("--everything", everything)) if given]
    with CellFolder(root).log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "simmat_plugin_bench.job", str(root), *flags],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            start_new_session=True,  # so that Ctrl-C reaches only the bench, which passes it on once
        )


def process_slots(jobs: int | None, environment: Mapping[str, str] = os.environ) -> list[dict[str, str]]:
    """Return the environment variables of each of `jobs` processes; by default one per GPU, or one on all CPU cores.

    Each gets one GPU, named as in CUDA_VISIBLE_DEVICES. On a CPU they share the cores, unless the environment sets
    OMP_NUM_THREADS.
    """
    import torch

    count = torch.cuda.device_count()
    visible = [name.strip() for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    if gpus := visible[:count] if visible else list(map(str, range(count))):
        return [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(jobs or len(gpus))]
    cpus, jobs = usable_cpus(), jobs or 1
    chosen = environment.get(THREADS_VARIABLE, str(cpus)) != str(cpus)  # simmat sets the quota of a container
    return [{} if chosen else {THREADS_VARIABLE: str(max(cpus // jobs, 1))} for _ in range(jobs)]


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
