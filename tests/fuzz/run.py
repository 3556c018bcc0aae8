"""Run damaged files against the readers.

    python tests/fuzz [TARGET…] [--cases N] [--seed S] [--jobs J] [--seconds T]
    python tests/fuzz TARGET --seed S --one N     one case again

Target, seed and number decide a case. The files of one that failed stay in .fuzz. Leaves with code 1 where one failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.case import Target, limit_memory, run_case
from fuzz.probes import PROBES
from fuzz.seeds import Seeds
from fuzz.targets import TARGETS

_TESTS = Path(__file__).resolve().parents[1]
BLOCK = 100
"""Cases that a child works through; of a heavy target (`Target.weight`) as many fewer as one of them is heavier."""
CLOCK_SECONDS = 120
"""After so long on the clock a case hangs, in C or in a wait, where its own limit of computing time does not reach."""
_START_SECONDS = 600
"""Time for loading the libraries of all readers."""


class Result(NamedTuple):
    """How the cases of a block ended.

    Attributes:
        kinds: how many, by kind.
        problem: what was wrong with the last one; "" if nothing was.
        memory: bytes that one of them took at most.
    """

    kinds: Counter[str]
    problem: str
    memory: int


def block_size(target: Target) -> int:
    """Return how many cases of a target are run in one child."""
    return max(BLOCK // target.weight, 1)


def run_block(
    target: str,
    seed: int,
    numbers: range,
    seeds: Path,
    *,
    kept: Path | None = None,
    clock_seconds: float = CLOCK_SECONDS,
) -> Result:
    """Run cases in a child process, which may die or hang, until one fails.

    Args:
        target: name of the reader.
        seed: with target and number, decides a case.
        numbers: of the cases.
        seeds: folder of the valid files, which several processes may share.
        kept: folder for the files of a failed case; None keeps none.
        clock_seconds: a case that takes longer is ended.
    """
    context, kinds, problem = _fork_server(), Counter[str](), "died or hangs"
    memory, number = 0, numbers.start
    receiving, sending = context.Pipe(duplex=False)
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    work = Path(tempfile.mkdtemp(prefix="fuzz-", dir=shared))
    child = context.Process(
        target=_work, args=(target, seed, numbers, seeds, work, sending), daemon=True
    )
    child.start()
    sending.close()
    try:
        while receiving.poll(clock_seconds if kinds else _START_SECONDS):
            outcome = receiving.recv()
            if outcome is None:
                problem = ""
                break
            kinds[outcome.kind] += 1
            memory = max(memory, outcome.memory)
            if outcome.failed:
                problem = f"{outcome.kind}: {outcome.what}"
                break
            number += 1
    except EOFError:
        pass
    child.kill()
    child.join()
    if problem:
        problem += (
            f"\n    again: python tests/fuzz {target} --seed {seed} --one {number}"
        )
        files = work / "files"
        if kept is not None and files.is_dir():
            folder = kept / f"{target}-{seed}-{number}"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(files, folder, symlinks=True, ignore=_pipes)
            problem += f"\n    files: {folder}"
    shutil.rmtree(work, ignore_errors=True)
    return Result(kinds, problem, memory)


def _fork_server() -> Any:
    """Return where children come from: a process that loads everything once, alone and with one thread."""
    paths = (str(_TESTS), os.environ.get("PYTHONPATH"))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    context = multiprocessing.get_context("forkserver")
    needed = {name: None for target in TARGETS.values() for name in target.needs}
    context.set_forkserver_preload(["fuzz.run", *needed])
    return context


def _pipes(folder: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_fifo()]


def _work(
    name: str, seed: int, numbers: range, seeds: Path, work: Path, pipe: Connection
) -> None:
    """Be the child: say how each case ended, and None after the last one."""
    target = {**TARGETS, **PROBES}[name]
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    limit_memory()
    for number in numbers:
        rng = random.Random(f"{name}-{seed}-{number}")
        pipe.send(run_case(target, rng, Seeds(seeds), work))
    pipe.send(None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run blocks of each target in turn, so that a short run sees them all; return the exit code."""
    options = _options(arguments)
    targets = []
    for name in options.targets or TARGETS:
        target = TARGETS[name]
        if target.missing_module:
            print(f"skipped {name}: {target.missing_module} is not installed")
        else:
            targets.append(target)
    blocks: list[tuple[Target, range]] = []
    for first in range(0, options.cases, BLOCK):
        for target in targets:
            for start in range(first, first + BLOCK, block_size(target)):
                blocks.append((target, range(start, start + block_size(target))))
    if options.one is not None:
        one = range(options.one, options.one + 1)
        blocks = [(target, one) for target in targets]
    began, kinds = time.monotonic(), {target.name: Counter[str]() for target in targets}
    memory = dict.fromkeys(kinds, 0)
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as seeds,
        ThreadPool(options.jobs) as pool,
    ):

        def run(block: tuple[Target, range]) -> None:
            if time.monotonic() - began >= options.seconds:
                return
            name = block[0].name
            result = run_block(
                name, options.seed, block[1], Path(seeds), kept=options.folder
            )
            kinds[name] += result.kinds
            memory[name] = max(memory[name], result.memory)
            if result.problem:
                kinds[name]["failed"] += 1
                print(f"FAILED {name}: {result.problem}", flush=True)

        for _ in pool.imap_unordered(run, blocks):
            pass
    for name, found in kinds.items():
        print(f"{name:<20}{dict(found)}, at most {memory[name] >> 20} MiB a case")
    cases = sum(found.total() for found in kinds.values())
    print(f"{cases} cases in {time.monotonic() - began:.0f} s")
    return int(any(found["failed"] for found in kinds.values()))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "tests/fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", choices=[[], *TARGETS])
    add("--cases", type=int, default=20_000, help="of each target (%(default)s)")
    add("--seed", type=int, default=0, help="decides every case (%(default)s)")
    add("--one", type=int, help="run the case of this number alone")
    add("--jobs", type=int, default=1, help="processes (%(default)s)")
    add("--seconds", type=float, default=float("inf"), help="begin no block after")
    options = parser.parse_args(arguments)
    options.folder = _TESTS.parent / ".fuzz"
    return options
