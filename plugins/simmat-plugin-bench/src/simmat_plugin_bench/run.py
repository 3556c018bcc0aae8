"""Prepare a bench, and run its cells, each in a process of its own, several at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simmat_plugin_scenes.dataset import simulate_dataset

from simmat.config import TrainConfig, dump_toml
from simmat.data.digest import DatasetDigest
from simmat.data.index import digest_dataset
from simmat.documents import listed
from simmat.errors import ConfigError, DataError, OutputError, SimMATError, all_problems
from simmat.evaluation import nothing_to_score
from simmat.io.files import (
    atomic_write_json,
    atomic_write_text,
    check_writable,
    locked,
    recover_folder,
    remove_folder,
)
from simmat.plugins.registry import Registry
from simmat.threads import THREADS_VARIABLE, threads_are_chosen, usable_cpus
from simmat.training import RunFolder, changes_noted, fingerprint_in, open_data
from simmat_plugin_bench.cells import (
    FORMAT,
    Cell,
    CellFolder,
    CellResult,
    matches,
    read_cell_file,
    write_cell_settings,
)
from simmat_plugin_bench.grid import Bench, slug
from simmat_plugin_bench.schedule import Job, all_jobs, arm_state
from simmat_plugin_bench.settings import EVERYTHING

RUN_WITH = "bench.toml"
"""Copy of the TOML in the bench's folder."""
_BENCH_FILES = {RUN_WITH, "cells"}
"""Names by which the folder of a bench is recognised."""
LOG_LINES = 8
"""Last lines of the log that are kept of a failed cell."""
GRACE_SECONDS = 90
"""Longest time of a stopped run to finish its step and save."""
_POLL_SECONDS = 0.1


@contextmanager
def lock_folder(bench: Bench) -> Iterator[None]:
    """Lock the bench's folder for this process.

    Raises:
        OutputError: it cannot be written, has other content, or another bench runs in it.
    """
    if (
        bench.out.is_dir()
        and (found := {file.name for file in bench.out.iterdir()})
        and not found & _BENCH_FILES
    ):
        raise OutputError(
            f"{bench.out} is not empty and not a bench; choose another --out, or remove it first"
        )
    check_writable(bench.out)
    bench.out.mkdir(parents=True, exist_ok=True)
    with locked(bench.out) as free:
        if not free:
            raise OutputError(
                f"another bench is running in {bench.out}; wait for it, or choose another --out"
            )
        yield


def check_inputs(bench: Bench, cells: Iterable[Cell], registry: Registry) -> None:
    """Check all data sets and weight files before the first cell runs.

    Raises:
        ConfigError: a data set cannot be opened or has nothing to test on, or a checkpoint is missing; the message
            holds every problem.
    """
    problems: list[str] = []
    opened: set[tuple[str, float]] = set()
    for cell in cells:
        config = cell.config
        if config.checkpoint is not None and not config.checkpoint.is_file():
            problems.append(
                f"checkpoint of {cell.foundation}: {config.checkpoint} does not exist"
            )
        key = _reading(config), config.paste
        if cell.simulate is not None or key in opened:
            continue
        opened.add(key)
        try:
            dataset = open_data(config, registry)
            test = dataset.split("test")
            if not any(dataset.label(sample).regions for sample in test):
                raise nothing_to_score(dataset, test)
        except SimMATError as error:
            problems.append(f"data {cell.dataset!r}: {error}")
    if problems:
        raise ConfigError(listed(str(bench.path), problems))


def ready_to_run(
    bench: Bench,
    cells: Sequence[Cell],
    registry: Registry,
    *,
    rerun_changed: bool,
    echo: Callable[[str], object],
) -> None:
    """Simulate data sets, and remove or refuse cells that were run with other settings or data.

    Args:
        cells: the cells to run; all others stay as they are.
        rerun_changed: remove cells that were run with other settings or data, so that they run again.
        echo: called with a sentence for everything that is made or removed.

    Raises:
        ConfigError: cells were run with other settings or data, and `rerun_changed` is False.
        SimMATError: a data set cannot be simulated or opened.
    """

    def clear(changed: Sequence[tuple[Cell, str]]) -> None:
        if changed and not rerun_changed:
            raise ConfigError(
                all_problems(
                    f"{len(changed)} cells in {bench.out} were run with other settings or data than {bench.path} has "
                    "now; restore them, choose another --out, or remove and rerun the cells with --rerun-changed:",
                    [f"{cell.name}: {why}" for cell, why in changed],
                )
            )
        for cell, why in changed:
            echo(
                f"removed {cell.name}, which was run with other settings or data: {why}"
            )
            remove_folder(cell.root)

    clear([(cell, cell.changes()) for cell in cells if cell.state() == "changed"])
    _simulate(bench, {cell.dataset for cell in cells}, registry, echo)
    configs = {_reading(cell.config): cell.config for cell in cells}
    contents = {
        key: digest_dataset(open_data(config, registry))
        for key, config in configs.items()
    }
    clear(
        [
            (cell, why)
            for cell in cells
            if (why := _data_change(cell, contents[_reading(cell.config)]))
        ]
    )
    atomic_write_text(bench.out / RUN_WITH, bench.path.read_text(encoding="utf-8"))


def _data_change(cell: Cell, contents: DatasetDigest) -> str:
    """Return how the data changed since a cell was run or started; "" if it did not, or that is unknown."""
    run = RunFolder(cell.folder.run)
    if cell.state() in ("open", "changed"):
        return ""
    if cell.folder.result.is_file():  # a cell whose test failed has one, too
        before = str(
            read_cell_file(cell.folder.result, CellResult)["data"]["fingerprint"]
        )
    else:
        try:
            before = fingerprint_in(run.state)
        except DataError:  # missing or damaged: the cell's own run reports it
            return ""
    if before == contents.fingerprint:
        return ""
    what = changes_noted(run, before, contents)
    return "its data has changed" + (f": {what}" if what else "")


def _reading(config: TrainConfig) -> str:
    """Return a key of all settings that affect how the data is read."""
    return repr(
        (
            config.data,
            config.modality,
            config.modality_options,
            config.channels,
            config.card_overrides(),
        )
    )


def _simulate(
    bench: Bench,
    names: Collection[str],
    registry: Registry,
    echo: Callable[[str], object],
) -> None:
    """Simulate the data sets of these names, except those already simulated with the present settings."""
    for data in bench.settings.data:
        if data.simulate is None or data.name not in names:
            continue
        folder = recover_folder(bench.out / "data" / slug(data.name))
        made, note = data.simulate, folder.with_name(f"{folder.name}.json")
        how = json.dumps(
            {"modality": data.modality, **made.model_dump(mode="json")}, sort_keys=True
        )
        if folder.is_dir():
            if note.is_file() and note.read_bytes() == how.encode():
                continue
            remove_folder(folder)
        simulate_dataset(
            registry.modality(data.modality),
            folder,
            made.count,
            made.seed,
            size_hw=made.size[::-1],
        )
        atomic_write_text(note, how)
        echo(f"simulated {made.count} samples of {data.modality} in {folder}")


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

    def __init__(
        self,
        bench: Bench,
        slots: list[dict[str, str]],
        ended: Ended,
        only: str | None = None,
    ) -> None:
        self.bench, self.ended, self.only = bench, ended, only
        self.failed: dict[str, str] = {}
        self.stopped = False
        self.running: list[_Running] = []
        self._free: deque[Mapping[str, str]] = deque(slots)

    def run(self) -> None:
        """Run until no job is left, or a signal arrives."""
        with _signals(self._ask_to_stop):
            try:
                while not self.stopped:
                    self._start()
                    if not self.running:
                        break
                    while not (self._collect() or self.stopped):
                        time.sleep(_POLL_SECONDS)
            finally:
                if self.running:
                    self._end_all()

    def _start(self) -> None:
        """Start only as many jobs as can run at once, because every result may change the next job."""
        busy = {one.job.cell.root for one in self.running}
        everything = self.bench.settings.score.startswith(EVERYTHING)
        for job in all_jobs(self.bench):
            cell = job.cell
            if not self._free:
                return
            if (
                cell.root in busy
                or cell.name in self.failed
                or not matches(cell, self.only)
            ):
                continue
            write_cell_settings(cell)
            atomic_write_text(cell.folder.config, dump_toml(cell.config))
            cell.folder.failure.unlink(missing_ok=True)
            variables = self._free.popleft()
            try:
                process = start_cell(
                    cell.root, variables, test=job.test, everything=everything
                )
            except OSError as error:  # such as a full disk
                self._free.append(variables)
                self._finish(job, 0.0, 1, f"{type(error).__name__}: {error}")
            else:
                self.running.append(_Running(job, process, variables, time.monotonic()))

    def _collect(self) -> bool:
        """Finish the jobs whose processes have ended; return whether there is one."""
        ended = [one for one in self.running if one.process.poll() is not None]
        for one in ended:
            self.running.remove(one)
            self._free.append(one.variables)
            one.process.communicate()  # closes its standard input
            code = one.process.returncode
            failure = (
                _last_lines(one.job.cell.folder.log, code)
                if code and not self.stopped
                else ""
            )
            self._finish(one.job, time.monotonic() - one.began, code, failure)
        return bool(ended)

    def _finish(self, job: Job, seconds: float, code: int, failure: str) -> None:
        cell = job.cell
        if failure:
            self.failed[cell.name] = failure
            atomic_write_json(
                cell.folder.failure, {"format": FORMAT, "code": code, "log": failure}
            )
        remove_bundles(self.bench, cell)
        self.ended(job, seconds, failure)

    def _end_all(self) -> None:
        """Let every job save and stop; after `GRACE_SECONDS` or a second signal, kill the others."""
        self.stopped = True
        try:
            for one in self.running:
                if one.process.stdin is not None:
                    # not `terminate`, which on Windows lets nothing be saved
                    one.process.stdin.close()
            end = time.monotonic() + GRACE_SECONDS
            while self.running and time.monotonic() < end:
                self._collect()
                time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            pass
        for one in self.running:
            one.process.kill()
            one.process.wait()
        self._collect()

    def _ask_to_stop(self) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True


def remove_bundles(bench: Bench, ended: Cell) -> None:
    """Remove bundles of the arm of a cell: of learning rates not chosen, and without `keep_bundles` of tested cells."""
    for data, arm in bench.pairs():
        cells = bench.cells_of(data, arm)
        if ended not in cells:
            continue
        chosen = arm_state(bench, data, arm).chosen
        for cell in cells:
            state = cell.state()
            lost = bool(chosen) and cell not in chosen and state == "trained"
            if lost or (state == "tested" and not bench.settings.keep_bundles):
                RunFolder(cell.folder.run).bundle_file.unlink(missing_ok=True)


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
    flags = [
        flag
        for flag, given in (("--test", test), ("--everything", everything))
        if given
    ]
    with CellFolder(root).log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "simmat_plugin_bench.job", str(root), *flags],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **variables},
            # so that Ctrl-C reaches only the bench, which passes it on once
            start_new_session=True,
        )


def process_slots(jobs: int | None) -> list[dict[str, str]]:
    """Return the environment variables of each of `jobs` processes; by default one per GPU, or one on all CPU cores.

    Each gets one GPU, named as in CUDA_VISIBLE_DEVICES. On a CPU they share the cores, unless the environment sets
    OMP_NUM_THREADS.
    """
    import torch

    count = torch.cuda.device_count()
    visible = [
        name.strip()
        for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if name.strip()
    ]
    if gpus := visible[:count] if visible else list(map(str, range(count))):
        return [
            {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]}
            for slot in range(jobs or len(gpus))
        ]
    jobs = jobs or 1
    own: dict[str, str] = (
        {}
        if threads_are_chosen()
        else {THREADS_VARIABLE: str(max(usable_cpus() // jobs, 1))}
    )
    return [own] * jobs


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
    before = {
        number: signal.signal(number, lambda *_: ask())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
