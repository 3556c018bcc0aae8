"""Run damaged files against the readers.

    python tests/fuzz/run.py [TARGET…] [--cases N] [--seed S] [--start K] [--jobs J] [--seconds T]
    python tests/fuzz/run.py TARGET --seed S --one N     one case again, with its traceback

What was run is kept in .fuzz/: the same call continues where it was stopped, and tries again what failed. The files of
failed cases stay there. Leaves with code 1 where a case failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
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

_BLOCK = 200
"""Cases that a child works through before another target has its turn."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return its exit code."""
    options = _options(arguments)
    folder: Path = options.folder
    seeds = Seeds(folder / "seeds")
    names = [name for name in options.targets or TARGETS if not _skipped(name)]
    if options.one is not None:
        return _run_one(names, options.seed, options.one, seeds, folder)
    deadline = None if options.seconds is None else time.monotonic() + options.seconds
    journals = {name: Journal(folder / f"seed-{options.seed}" / f"{name}.jsonl") for name in names}
    blocks = _blocks(journals, options.seed, options.start, options.cases)
    began, done, failed = time.monotonic(), 0, 0
    try:
        for block, outcome in Runner(seeds, folder / "failed").run(blocks, jobs=options.jobs, deadline=deadline):
            journals[block.target].add(outcome)
            done += 1
            if outcome.failed:
                failed += 1
                print(told(block.target, block.seed, outcome), flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command continues")
    finally:
        for journal in journals.values():
            journal.write()
    _print_table(journals, options.start, options.cases)
    rest = sum(options.cases - journal.passed(options.start, options.cases) for journal in journals.values()) - failed
    seconds = time.monotonic() - began
    print(
        f"{done} cases in {seconds:.0f} s, {failed} failed" + (f"; {rest} are left, run it again" if rest > 0 else "")
    )
    return 1 if any(journal.failures for journal in journals.values()) else 0


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


def _run_one(names: Sequence[str], seed: int, number: int, seeds: Seeds, folder: Path) -> int:
    code = 0
    for name in names:
        for block, outcome in Runner(seeds, folder / "failed", verbose=True).run([Block(name, seed, (number,))]):
            print(told(name, seed, outcome) if outcome.failed else f"{name} {number} (seed {seed}): {outcome}")
            if outcome.failed:
                code = 1
                print(f"    files: {folder / 'failed' / f'{block.target}-{seed}-{number}'}")
    return code


def _blocks(journals: dict[str, Journal], seed: int, start: int, cases: int) -> Iterator[Block]:
    """Yield blocks of what is open, of each target in turn, so that a short run sees them all."""
    numbers = {name: list(journal.open_numbers(start, cases)) for name, journal in journals.items()}
    for first in range(0, cases, _BLOCK):
        for name, found in numbers.items():
            if part := tuple(found[first : first + _BLOCK]):
                yield Block(name, seed, part)


def _print_table(journals: dict[str, Journal], start: int, cases: int) -> None:
    print(f"\n{'TARGET':<16}{'PASSED':>8}{'OF':>8}{'VALUE':>8}{'REFUSED':>9}{'FAILED':>8}")
    for name, journal in journals.items():
        passed, counts = journal.passed(start, cases), journal.counts
        print(
            f"{name:<16}{passed:>8}{cases:>8}{counts['value']:>8}{counts['refused']:>9}{len(journal.failures):>8}",
        )


if __name__ == "__main__":
    sys.exit(main())
