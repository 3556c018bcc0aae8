"""The folder of a run: its files, its lock, and the log that a resumed run continues."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from simmat.bundle import FILE_NAME
from simmat.errors import ConfigError, OutputError
from simmat.io.files import TEMPORARY_MARK, atomic_write_text, check_writable, output_error, read_log, remove_temporary

STATES = ".states"
"""Folder of the states of a training on several sensors."""
_LOCK = ".lock"
_LOCK_TIMEOUT_S = 0.3
"""Seconds that a training waits for the lock, which `RunFolder.running` holds for a moment."""


class RunFolder:
    """The folder given as `--out`, and the paths in it.

    Args:
        root: the folder.
        sensor: name of the run's sensor in a bundle of several.
        whole: the folder of a training on several sensors, which has the state and the bundle.

    Attributes:
        config: the resolved config, TOML.
        metrics: the log, one json object per line: {"kind": "train" or "val", "step": …}.
        states: the folder of the states of several sensors; None of one.
        state: the last state, to resume from.
        contents: digests of the data set's files, to name those that changed.
        bundle_file: the best bundle by validation, which holds all sensors of a training on several.
        bundle: the path by which the bundle of this run's sensor is loaded.
        report: what the page shows beside settings, log and bundle.
        page: the page that shows the run.
        resume_command: the command that resumes the training.
    """

    def __init__(self, root: Path, sensor: str | None = None, whole: Path | None = None) -> None:
        self.root = root
        self.sensor = sensor or ""
        self.states = None if whole is None else whole / STATES
        self.config = root / "config.toml"
        self.metrics = root / "metrics.jsonl"
        if self.states is None:
            self.state = root / "last.safetensors"
        else:
            self.state = self.states / f"{sensor}.safetensors"
        self.contents = root / "data.json"
        self.bundle_file = (whole or root) / FILE_NAME
        self.bundle = self.bundle_file / self.sensor
        self.report = root / "report.json"
        self.page = root / "report.html"
        self.resume_command = shlex.join(["simmat", "train", "--resume", str(whole or root)])

    def create(self, data: Path) -> None:
        """Check that the folder can take a new run; writing the first file makes it.

        The remains of a run that was killed before it wrote its settings, which `reopen` removes, and the data set of
        the run are allowed. Raises ConfigError if the folder is not empty, OutputError if it cannot be written to.
        """
        try:
            occupied = self.root.is_dir() and not all(_is_leftover(path, data) for path in self.root.iterdir())
        except OSError as error:
            raise output_error(error, self.root) from error
        if occupied:
            if self.config.exists():
                hint = f"resume it with `{self.resume_command}`"
            else:
                hint = "choose another"
            raise ConfigError(f"--out {self.root} is not empty; {hint} or remove it first")
        check_writable(self.root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder against other trainings while the block runs; OutputError if another one holds it."""
        check_writable(self.root)
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / _LOCK)
        try:
            lock.acquire(timeout=_LOCK_TIMEOUT_S)
        except Timeout:
            raise OutputError(
                f"another training is running in {self.root}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise output_error(error, self.root / _LOCK) from error
        try:
            yield
        finally:
            lock.release()

    @property
    def running(self) -> bool:
        """Whether a training holds the folder now; False where the lock cannot be tried, as in a read-only copy."""
        if not (self.root / _LOCK).is_file():
            return False
        try:
            with FileLock(self.root / _LOCK, timeout=0):
                return False
        except Timeout:
            return True
        except OSError:
            return False

    def reopen(self, step: int) -> None:
        """Remove temporary files and log records after `step` (-1: all records), which will be written again.

        Call it within `locked`: a running training has temporary files, too.
        """
        remove_temporary(self.root)
        kept = [record for record in self.records() if record["step"] <= step]
        atomic_write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))

    def log(self, record: dict[str, Any]) -> None:
        """Append one record."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """Return the log's records, see `read_log`."""
        return read_log(self.metrics)


def _is_leftover(path: Path, data: Path) -> bool:
    """Return whether a run makes this file before it writes its settings, or the data set is there."""
    empty_log = path.name == "metrics.jsonl" and path.stat().st_size == 0
    return path.name == _LOCK or path == data or TEMPORARY_MARK in path.name or empty_log
