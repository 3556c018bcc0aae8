"""Run a command in a process of its own, and kill it at a moment."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHANGES = frozenset({"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"})
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Moment:
    """When a process is killed.

    Attributes:
        change: before its change number so-and-so to a file or folder, from 0: the same in every run; or None.
        seconds: after so long on the clock, in the middle of whatever it does then; or None.
    """

    change: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return f"before change {self.change}" if self.change is not None else f"after {self.seconds:.3f} s"


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code, negative the signal that ended it.
        changes: how many changes it made or was about to make.
        seconds: on the clock.
        said: what it printed.
    """

    code: int
    changes: int
    seconds: float
    said: str

    @property
    def killed(self) -> bool:
        """True where it was killed."""
        return self.code == -signal.SIGKILL


def run(arguments: list[str], folder: Path, log: Path, moment: Moment | None = None) -> Ended:
    """Run `simmat` with these arguments in a fork of this process, and kill it at a moment, if it gets there.

    Args:
        arguments: of the command line.
        folder: changes below it count.
        log: file for what it prints; its changes are counted beside it.
        moment: None lets it end.
    """
    counted = log.with_suffix(".changes")
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = _be_the_command(arguments, folder, log, counted, moment)
        finally:
            os._exit(code)
    if moment is not None and moment.seconds is not None:
        while time.monotonic() - began < moment.seconds:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(min(0.002, max(moment.seconds - (time.monotonic() - began), 0)))
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - began
    return Ended(
        os.waitstatus_to_exitcode(status),
        counted.stat().st_size if counted.exists() else 0,
        seconds,
        log.read_text(errors="replace") if log.exists() else "",
    )


def _be_the_command(arguments: list[str], folder: Path, log: Path, counted: Path, moment: Moment | None) -> int:
    printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    _count_changes(str(folder), counted, None if moment is None else moment.change)
    from simmat.cli import run as run_command

    code = run_command(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _count_changes(folder: str, counted: Path, last: int | None) -> None:
    """Write a byte for each change below a folder, and die before number `last`."""
    marks = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    made = 0

    def note(event: str, values: tuple[Any, ...]) -> None:
        nonlocal made
        changes = event in _CHANGES or (event == "open" and isinstance(values[2], int) and values[2] & _WRITES)
        if changes and isinstance(values[0], str | os.PathLike) and os.fspath(values[0]).startswith(folder):
            if made == last:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1
            os.write(marks, b".")

    sys.addaudithook(note)
