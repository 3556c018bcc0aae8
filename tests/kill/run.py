"""Kill commands at random moments.

    python tests/kill/run.py [--kills N] [--seed S] [--start K] [--seconds T]
    python tests/kill/run.py --seed S --one N     one trial again; its folder is kept

A trial is a command that is killed by SIGKILL one to three times, run again until it ends, and compared byte for byte
with a run that was never stopped: half of the moments are before a change to a file (the same in every run), half are
times on the clock. Leaves with code 1 where a trial failed, and prints its moments.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from kill.commands import make_inputs
from kill.trial import Trial, Whole, drawn_command, run_trial, run_whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return its exit code."""
    options = _options(arguments)
    _load()
    folder = Path(tempfile.mkdtemp(prefix="simmat-kill-"))
    numbers = range(options.start, options.start + options.kills) if options.one is None else [options.one]
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    trials: list[Trial] = []
    try:
        for trial in run_trials(numbers, options.seed, folder, deadline=deadline):
            trials.append(trial)
            if trial.problem:
                print(_told(trial, options.seed), flush=True)
    finally:
        if options.one is not None:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    failed = sum(bool(trial.problem) for trial in trials)
    kills = sum(len(trial.moments) for trial in trials)
    for name, count in sorted(Counter(trial.command for trial in trials).items()):
        print(f"{name:<24}{count:>4} trials")
    print(f"{len(trials)} of {len(numbers)} trials, {kills} kills, {failed} failed")
    return 1 if failed else 0


def run_trials(numbers: Sequence[int], seed: int, folder: Path, *, deadline: float | None = None) -> Iterator[Trial]:
    """Yield the trials of these numbers, up to a deadline of `time.monotonic`; each command runs whole once before."""
    inputs = make_inputs(folder / "inputs")
    whole: dict[str, Whole] = {}
    for number in numbers:
        if deadline is not None and time.monotonic() > deadline:
            return
        command = drawn_command(random.Random(f"command:{seed}:{number}"))
        if command.name not in whole:
            whole[command.name] = run_whole(command, inputs, folder / f"whole-{len(whole)}")
        trial = run_trial(number, seed, command, whole[command.name], inputs, folder / f"trial-{number}")
        if not trial.problem and len(numbers) > 1:
            shutil.rmtree(folder / f"trial-{number}")
        yield trial


def _load() -> None:
    """Load what the commands need, once, so that a moment falls into their work and not into imports."""
    for name in ("accelerate", "matplotlib.pyplot", "simmat.bundle", "simmat.training"):
        import_module(name)
    if find_spec("simmat_plugin_scenes"):
        import_module("simmat_plugin_scenes.dataset")


def _told(trial: Trial, seed: int) -> str:
    killed = "; ".join(trial.moments) or "never"
    return (
        f"FAILED trial {trial.number} (seed {seed}): {trial.command}, killed {killed}: {trial.problem}\n"
        f"    again: python tests/kill/run.py --seed {seed} --one {trial.number}"
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="trials (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides every trial (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="number of the first trial (default: %(default)s)")
    parser.add_argument("--one", type=int, help="run this trial alone, and keep its folder")
    parser.add_argument("--seconds", type=float, help="begin no trial after so long")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
