"""Run damaged files against the readers.

    python tests/fuzz/run.py [TARGET…] [--cases N] [--seed S] [--start K] [--jobs J] [--seconds T]
    python tests/fuzz/run.py TARGET --seed S --one N     one case again, with its traceback

What was run is kept in .fuzz/: the same call continues where it was stopped, and tries again what failed. The files of
failed cases stay there. Leaves with code 1 where a case failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(_ROOT / "tests")  # not this folder: its modules have names of their own in `fuzz`
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from fuzz.journal import Journal  # noqa: E402 - the path and the threads come first
from fuzz.outcome import Outcome  # noqa: E402
from fuzz.runner import Block, Runner  # noqa: E402
from fuzz.seeds import Seeds  # noqa: E402
from fuzz.targets import TARGETS, missing_module  # noqa: E402

_MOST_TOLD = 20
"""Failures of a target that are printed; the table counts all, and .fuzz/ has all."""
_BLOCK = 200
"""Cases that a child works through before another target has its turn."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return its exit code."""
    options = _options(arguments)
    names = [name for name in options.targets or TARGETS if not _skipped(name)]
    # The seeds are made anew in each call: what SimMAT itself writes may have changed since the last one.
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as seeds:
        runner = Runner(Seeds(Path(seeds)), options.folder / "failed", verbose=options.one is not None)
        if options.one is not None:
            return _run_one(runner, names, options.seed, options.one)
        return _run_many(runner, names, options)


def _run_many(runner: Runner, names: Sequence[str], options: argparse.Namespace) -> int:
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    journals = {name: Journal(options.folder / f"seed-{options.seed}" / f"{name}.jsonl") for name in names}
    numbers = range(options.start, options.start + options.cases)
    began, done = time.monotonic(), Counter[str]()
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):  # noted, not raised: an exception may be lost within a library
        signal.signal(number, lambda number, _: signals.append(number))

    def stop() -> bool:
        return bool(signals) or (deadline is not None and time.monotonic() >= deadline)

    try:
        blocks = _blocks(journals, options.seed, numbers)
        for block, outcome in runner.run(blocks, jobs=options.jobs, stop=stop):
            journals[block.target].add(outcome)
            done[block.target] += 1
            if outcome.failed and len(journals[block.target].failures) <= _MOST_TOLD:
                print(told(block.target, block.seed, outcome), flush=True)
    finally:
        for journal in journals.values():
            journal.write()
    if signals:
        print("stopped; the same command continues")
    rates = {name: count / seconds for name, count in done.items() if (seconds := runner.cpu_seconds[name])}
    _print_table(journals, numbers, rates)
    failed = sum(len(journal.failures) for journal in journals.values())
    print(f"{done.total()} cases in {time.monotonic() - began:.0f} s, seed {options.seed}; {failed} failed")
    return 1 if failed else 0


def told(target: str, seed: int, outcome: Outcome) -> str:
    """Return what to say of a failed case: what it did, and the command that runs it again."""
    again = f"python tests/fuzz/run.py {target} --seed {seed} --one {outcome.number}"
    return f"FAILED {target} {outcome.number} (seed {seed}): {outcome}\n    again: {again}"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--cases", type=int, default=20_000, help="of each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides every case (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="number of the first case (default: %(default)s)")
    parser.add_argument("--one", type=int, help="run this case alone, and show what happens")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--folder", type=Path, default=_ROOT / ".fuzz", help="of progress and failed files")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no target {', '.join(unknown)}; targets: {', '.join(TARGETS)}")
    options.folder = options.folder.absolute()
    return options


def _skipped(name: str) -> bool:
    missing = missing_module(TARGETS[name])
    if missing is not None:
        print(f"skipped {name}: {missing} is not installed")
    return missing is not None


def _run_one(runner: Runner, names: Sequence[str], seed: int, number: int) -> int:
    code = 0
    for name in names:
        for _, outcome in runner.run([Block(name, seed, (number,))]):
            print(told(name, seed, outcome) if outcome.failed else f"{name} {number} (seed {seed}): {outcome}")
            if outcome.failed and runner.kept is not None:
                code = 1
                print(f"    files: {runner.kept / f'{name}-{seed}-{number}'}")
    return code


def _blocks(journals: dict[str, Journal], seed: int, numbers: range) -> Iterator[Block]:
    """Yield blocks of what is open, of each target in turn, so that a short run sees them all."""
    open_numbers = {name: list(journal.open_numbers(numbers)) for name, journal in journals.items()}
    for first in range(0, len(numbers), _BLOCK):
        for name, found in open_numbers.items():
            if part := tuple(found[first : first + _BLOCK]):
                yield Block(name, seed, part)


def _print_table(journals: dict[str, Journal], numbers: range, rates: dict[str, float]) -> None:
    """Print what has passed of these numbers, in all calls, and the cases a second of computing time in this one."""
    print(f"\n{'TARGET':<16}{'PASSED':>8}{'OF':>8}{'VALUE':>8}{'REFUSED':>9}{'FAILED':>8}{'CASES/S':>9}")
    for name, journal in journals.items():
        counts, rate = journal.counts, f"{rates[name]:.0f}" if name in rates else "-"
        print(
            f"{name:<16}{journal.passed(numbers):>8}{len(numbers):>8}{counts['value']:>8}{counts['refused']:>9}"
            f"{len(journal.failures):>8}{rate:>9}"
        )


if __name__ == "__main__":
    sys.exit(main())
