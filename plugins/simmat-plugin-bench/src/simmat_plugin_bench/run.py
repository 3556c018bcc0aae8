"""Run the cells of a bench on an executor, several at once."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simmat.config import dump_toml
from simmat.io.files import atomic_write_json, atomic_write_text
from simmat_plugin_bench.cells import FORMAT, Cell, matches, write_order
from simmat_plugin_bench.executors import KILL, STOP, Workers, clear_stop, request_stop, run_cell
from simmat_plugin_bench.grid import Bench
from simmat_plugin_bench.prepare import remove_losers
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
