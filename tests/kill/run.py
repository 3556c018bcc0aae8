"""Kill commands at random moments.

    python tests/kill [--kills N] [--seed S] [--seconds T]
    python tests/kill --seed S --one N     one trial again; its folder is kept

A trial is a command that is killed by SIGKILL one to three times, run again until it ends, and compared byte for byte
with a run that was never stopped. A kill is before a change to a file, so it is the same in every run. Leaves with code
1 where a trial failed, and prints the numbers of the changes.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from kill.commands import COMMANDS, Command, Files, make_inputs
from simmat.io.files import STALE_S, TEMPORARY_MARK

_CHANGES = frozenset(
    {
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
    }
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Ended(NamedTuple):
    """How a process ended: exit code (negative the signal), number of changes to files, what it printed."""

    code: int
    changes: int
    said: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return its exit code."""
    options = _options(arguments)
    # Loaded once, so that a moment falls into the work of a command and not into imports.
    for name in ("accelerate", "matplotlib.pyplot", "simmat.bundle", "simmat.training"):
        import_module(name)
    if find_spec("simmat_plugin_scenes"):
        import_module("simmat_plugin_scenes.dataset")
    folder = Path(tempfile.mkdtemp(prefix="simmat-kill-"))
    deadline = time.monotonic() + (
        options.seconds if options.seconds is not None else float("inf")
    )
    inputs = make_inputs(folder / "inputs")
    whole: dict[str, tuple[Files, Ended]] = {}
    trials, kills, failed = 0, 0, 0
    for number in range(options.kills) if options.one is None else [options.one]:
        if time.monotonic() > deadline:
            break
        rng = random.Random(f"{options.seed}:{number}")
        (command,) = rng.choices(COMMANDS, [one.weight for one in COMMANDS])
        if command.name not in whole:
            whole[command.name] = _run_whole(
                command, inputs, folder / f"whole-{len(whole)}"
            )
        moments, problem = _run_trial(
            rng, command, *whole[command.name], inputs, folder / f"trial-{number}"
        )
        trials, kills, failed = trials + 1, kills + len(moments), failed + bool(problem)
        print(
            f"trial {number} (seed {options.seed}): {command.name}, killed {moments}: {problem or 'as never stopped'}"
        )
        if problem:
            print(
                f"    again: python tests/kill --seed {options.seed} --one {number}",
                flush=True,
            )
        elif options.one is None:
            shutil.rmtree(folder / f"trial-{number}")
    if options.one is not None:
        print(f"kept: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{trials} trials, {kills} kills, {failed} failed")
    return 1 if failed else 0


def _run_whole(command: Command, inputs: Path, folder: Path) -> tuple[Files, Ended]:
    """Run a command without a kill; return its files, and how it ended."""
    folder.mkdir(parents=True)
    ended = _run(command.first(inputs, folder), folder)
    if ended.code:
        raise RuntimeError(f"{command.name} failed without a kill: {ended.said[-500:]}")
    return command.files(folder), ended


def _run_trial(
    rng: random.Random,
    command: Command,
    whole: Files,
    ended: Ended,
    inputs: Path,
    folder: Path,
) -> tuple[list[int], str]:
    """Kill a command one to three times, let it end, and compare with a run that was never stopped.

    Returns the changes before which it was killed, and what was wrong, "" where nothing was.
    """
    moments: list[int] = []
    folder.mkdir(parents=True)
    arguments: list[str] | None = command.first(inputs, folder)
    for last in [False] * rng.choice((1, 1, 2, 3)) + [True]:
        if arguments is None:
            break
        if last:
            _age_temporary(folder)
        change = None if last else rng.randrange(max(ended.changes, 1))
        stopped = _run(arguments, folder, change)
        if stopped.code == -signal.SIGKILL and change is not None:
            moments.append(change)
        elif stopped.code:
            return moments, f"exit code {stopped.code}: {stopped.said[-500:]}"
        try:
            command.check(folder, whole)
        except Exception as error:
            return moments, f"half-written after the kill: {error}"
        arguments = command.again(inputs, folder)
    found = command.files(folder)
    wrong = {
        "missing": sorted(set(whole) - set(found)),
        "left over": sorted(set(found) - set(whole)),
        "different": [
            name for name in whole if name in found and whole[name] != found[name]
        ],
    }
    return moments, "; ".join(
        f"{what}: {', '.join(names)}" for what, names in wrong.items() if names
    )


def _age_temporary(folder: Path) -> None:
    """Make what killed runs left look old: in a folder that others may write to, only then may it be removed."""
    then = time.time() - 2 * STALE_S
    for path in folder.rglob(f"*{TEMPORARY_MARK}*"):
        os.utime(path, (then, then))


def _run(arguments: list[str], folder: Path, last: int | None = None) -> Ended:
    """Run `simmat` with these arguments in a fork of this process, and kill it before a change, if it gets there.

    Args:
        arguments: of the command line.
        folder: changes below it count; what is printed goes into a log beside it.
        last: number of the change, from 0; None lets it end by itself.
    """
    log, counted = (
        folder.with_name(f"{folder.name}.log"),
        folder.with_name(f"{folder.name}.changes"),
    )
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            printed = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(printed, 1)
            os.dup2(printed, 2)
            _count_changes(str(folder), counted, last)
            code = import_module("simmat.cli").run(arguments)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    changes = counted.stat().st_size if counted.exists() else 0
    said = log.read_text(errors="replace") if log.exists() else ""
    return Ended(os.waitstatus_to_exitcode(status), changes, said)


def _count_changes(folder: str, counted: Path, last: int | None) -> None:
    """Write a byte for each change below a folder, and die before number `last`."""
    marks = os.open(counted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    made = 0

    def note(event: str, values: tuple[Any, ...]) -> None:
        nonlocal made
        changes = event in _CHANGES or (
            event == "open" and isinstance(values[2], int) and values[2] & _WRITES
        )
        if (
            changes
            and isinstance(values[0], str | os.PathLike)
            and os.fspath(values[0]).startswith(folder)
        ):
            if made == last:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1
            os.write(marks, b".")

    sys.addaudithook(note)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "tests/kill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kills", type=int, default=50, help="trials (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides every trial (default: %(default)s)"
    )
    parser.add_argument(
        "--one", type=int, help="run this trial alone, and keep its folder"
    )
    parser.add_argument("--seconds", type=float, help="begin no trial after so long")
    return parser.parse_args(arguments)
