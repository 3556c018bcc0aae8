"""Run damaged files against the readers.

    python tests/fuzz [TARGET…] [--cases N] [--seed S] [--jobs J] [--seconds T]
    python tests/fuzz TARGET --seed S --block N     one block again, with the traceback

Hypothesis draws the cases of a block from target, seed and number, and shrinks one that fails; its files stay in
.fuzz. Leaves with code 1 where a case failed.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

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
_DRAWN_BYTES = 800
"""Of random numbers, for a case; more are zeros."""


class Result(NamedTuple):
    """How the cases of a block ended.

    Attributes:
        kinds: how many, by kind.
        problem: what was wrong; "" if nothing was.
        memory: bytes that one of them took at most.
    """

    kinds: Counter[str]
    problem: str
    memory: int


def run_block(
    target: str,
    seed: int,
    number: int,
    seeds: Path,
    *,
    kept: Path | None = None,
    verbose: bool = False,
    clock_seconds: float = CLOCK_SECONDS,
) -> Result:
    """Run a block of cases in a child process, which may die or hang.

    Args:
        target: name of the reader.
        seed: with target and number, decides the cases.
        number: of the block.
        seeds: folder of the valid files, which several processes may share.
        kept: folder for the files of a failed case; None keeps none.
        verbose: whether the child prints, with the traceback.
        clock_seconds: a case that takes longer is ended.
    """
    context, kinds, problem = _fork_server(), Counter[str](), "died or hangs"
    memory = 0
    receiving, sending = context.Pipe(duplex=False)
    work = Path(
        tempfile.mkdtemp(
            prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        )
    )
    name = f"{target}-{seed}-{number}"
    child = context.Process(
        target=_work,
        args=(target, name, seeds, work / "case", sending, verbose),
        daemon=True,
    )
    child.start()
    sending.close()
    try:
        while receiving.poll(clock_seconds if kinds else _START_SECONDS):
            is_last, said, taken = receiving.recv()
            if is_last:
                problem = said
                break
            kinds[said] += 1
            memory = max(memory, taken)
    except EOFError:
        pass
    child.kill()
    child.join()
    if problem:
        problem = f"{problem}\n    again: python tests/fuzz {target} --seed {seed} --block {number}"
        # the smallest case that failed was the last one
        if kept is not None and (work / "case" / "files").is_dir():
            shutil.rmtree(kept / name, ignore_errors=True)
            shutil.copytree(
                work / "case" / "files", kept / name, symlinks=True, ignore=_pipes
            )
            problem += f"\n    files: {kept / name}"
    shutil.rmtree(work, ignore_errors=True)
    return Result(kinds, problem, memory)


def _fork_server() -> Any:
    """Return where children come from: a process that loads everything once, alone and with one thread."""
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(_TESTS), os.environ.get("PYTHONPATH")))
    )
    context = multiprocessing.get_context("forkserver")
    needed = {name: None for target in TARGETS.values() for name in target.needs}
    context.set_forkserver_preload(["fuzz.run", *needed])
    return context


def _pipes(folder: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_fifo()]


class DrawnRandom(random.Random):
    """Random numbers from bytes, then zeros: those of hypothesis' own generators are mostly small."""

    def __new__(cls, content: bytes) -> DrawnRandom:
        return super().__new__(cls)

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        super().__init__(0)

    def getrandbits(self, k: int, /) -> int:
        length = -(-k // 8)
        return int.from_bytes(self._content.read(length).ljust(length, b"\0")) % (
            1 << k
        )

    def random(self) -> float:
        return self.getrandbits(24) / 2**24


class _Failed(Exception):
    """A case ended in a way that is not allowed."""


class _TooLong(KeyboardInterrupt):
    """A case took too long to be shrunk; hypothesis lets this class through."""


def _work(
    target_name: str,
    name: str,
    seeds: Path,
    case: Path,
    pipe: Connection,
    verbose: bool,
) -> None:
    """Be the child: say the kind of each outcome, then what was wrong."""
    target = {**TARGETS, **PROBES}[target_name]
    if not verbose:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    limit_memory()

    @seed(name)
    @settings(
        max_examples=max(BLOCK // target.weight, 1),
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=st.binary(min_size=_DRAWN_BYTES, max_size=_DRAWN_BYTES))
    def check(content: bytes) -> None:
        outcome = run_case(target, DrawnRandom(content), Seeds(seeds), case)
        pipe.send((False, outcome.kind, outcome.memory))
        if outcome.failed:
            raise (_TooLong if outcome.kind == "time" else _Failed)(
                f"{outcome.kind}: {outcome.what}"
            )

    problem = ""
    try:
        check()
    except (Exception, _TooLong) as error:
        if verbose:
            traceback.print_exc()
        problem = str(error)
    pipe.send((True, problem, 0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run blocks of each target in turn, so that a short run sees them all; return the exit code."""
    options = _options(arguments)
    targets = [TARGETS[name] for name in options.targets or TARGETS]
    for target in targets:
        if target.missing_module:
            print(f"skipped {target.name}: {target.missing_module} is not installed")
    targets = [target for target in targets if not target.missing_module]
    counts = {
        target.name: -(-options.cases * target.weight // BLOCK) for target in targets
    }
    numbers = (
        range(max(counts.values(), default=0))
        if options.block is None
        else [options.block]
    )
    one = options.block is not None
    blocks = [
        (target, number)
        for number in numbers
        for target in targets
        if one or number < counts[target.name]
    ]
    began, kinds = time.monotonic(), {target.name: Counter[str]() for target in targets}
    memory = dict.fromkeys(kinds, 0)
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as seeds,
        ThreadPool(options.jobs) as pool,
    ):

        def run(block: tuple[Target, int]) -> None:
            if (
                options.seconds is not None
                and time.monotonic() - began >= options.seconds
            ):
                return
            result = run_block(
                block[0].name,
                options.seed,
                block[1],
                Path(seeds),
                kept=options.folder,
                verbose=one,
            )
            kinds[block[0].name] += result.kinds
            memory[block[0].name] = max(memory[block[0].name], result.memory)
            if result.problem:
                kinds[block[0].name]["failed"] += 1
                print(f"FAILED {block[0].name}: {result.problem}", flush=True)

        for _ in pool.imap_unordered(run, blocks):
            pass
    for name, found in kinds.items():
        print(f"{name:<20}{dict(found)}, at most {memory[name] >> 20} MiB a case")
    print(
        f"{sum(found.total() for found in kinds.values())} cases in {time.monotonic() - began:.0f} s"
    )
    return int(any(found["failed"] for found in kinds.values()))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "tests/fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="TARGET",
        help=f"of {', '.join(TARGETS)}; all by default",
    )
    parser.add_argument(
        "--cases",
        type=int,
        default=20_000,
        help="of each target (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="decides every case (default: %(default)s)"
    )
    parser.add_argument(
        "--block", type=int, help="run this block alone, and show what happens"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="processes (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, help="begin no block after so long")
    parser.add_argument(
        "--folder",
        type=Path,
        default=_TESTS.parent / ".fuzz",
        help="of files of failed cases",
    )
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no target {', '.join(unknown)}; targets: {', '.join(TARGETS)}")
    options.folder = options.folder.absolute()
    return options
