"""One trial: a command killed one to three times at random moments, then let end, and compared."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from kill.commands import COMMANDS, WEIGHTS, Command, Files
from kill.moments import Ended, Moment, run

_MOST_SECONDS = 1.05
"""A moment is drawn up to so many times what a whole run took: a slower one must be hit late, too."""


@dataclass(frozen=True)
class Whole:
    """A run that was never stopped.

    Attributes:
        files: name -> bytes.
        ended: how long it took, and how much it changed.
    """

    files: Files
    ended: Ended


@dataclass(frozen=True)
class Trial:
    """What happened in a trial.

    Attributes:
        number: with the seed it decides the trial.
        command: its name.
        moments: in words, those at which it really was killed.
        problem: what was wrong, "" where nothing was.
    """

    number: int
    command: str
    moments: tuple[str, ...]
    problem: str


def drawn_command(rng: random.Random) -> Command:
    """Draw the command of a trial."""
    return rng.choices(COMMANDS, WEIGHTS)[0]


def run_whole(command: Command, inputs: Path, folder: Path) -> Whole:
    """Run a command without a kill.

    Raises:
        RuntimeError: it failed.
    """
    folder.mkdir(parents=True)
    ended = run(command.first(inputs, folder), folder, _log_of(folder))
    if ended.code:
        raise RuntimeError(f"{command.name} failed without a kill: {ended.said[-500:]}")
    return Whole(command.files(folder), ended)


def run_trial(number: int, seed: int, command: Command, whole: Whole, inputs: Path, folder: Path) -> Trial:
    """Kill a command one to three times, let it end, and compare with a run that was never stopped."""
    rng = random.Random(f"moments:{seed}:{number}")
    folder.mkdir(parents=True)
    moments: list[str] = []
    arguments: list[str] | None = command.first(inputs, folder)
    for _ in range(rng.choice((1, 1, 2, 3))):
        moment = _drawn(rng, whole)
        if arguments is None:
            break
        ended = run(arguments, folder, _log_of(folder), moment)
        if ended.killed:
            moments.append(str(moment))
        elif ended.code:
            return Trial(number, command.name, tuple(moments), f"exit code {ended.code}: {ended.said[-500:]}")
        try:
            command.check(folder, whole.files)
        except Exception as error:
            return Trial(number, command.name, tuple(moments), f"half-written after the kill: {error}")
        arguments = command.again(inputs, folder)
    if arguments is not None and (ended := run(arguments, folder, _log_of(folder))).code:
        return Trial(number, command.name, tuple(moments), f"exit code {ended.code}: {ended.said[-500:]}")
    return Trial(number, command.name, tuple(moments), _difference(whole.files, command.files(folder)))


def _drawn(rng: random.Random, whole: Whole) -> Moment:
    if rng.random() < 0.5:
        return Moment(change=rng.randrange(max(whole.ended.changes, 1)))
    return Moment(seconds=rng.uniform(0, _MOST_SECONDS * whole.ended.seconds))


def _difference(whole: Files, found: Files) -> str:
    if missing := sorted(set(whole) - set(found)):
        return f"missing: {', '.join(missing)}"
    if left := sorted(set(found) - set(whole)):
        return f"left over: {', '.join(left)}"
    return f"{changed[0]} differs" if (changed := [name for name in whole if whole[name] != found[name]]) else ""


def _log_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")
