"""Run damaged files against the readers.

    python tests/fuzz/run.py [TARGET…] [--cases N] [--seed S] [--jobs J] [--seconds T]
    python tests/fuzz/run.py TARGET --seed S --block N     one block again, with the traceback

Hypothesis draws the cases of a block from target, seed and number, and shrinks one that fails; its files stay in
.fuzz/failed. What passed is kept in .fuzz/: the same call continues where it was stopped, and tries again what failed.
Leaves with code 1 where a case failed.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

_TESTS = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(_TESTS)  # not this folder: its modules have names of their own in `fuzz`
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402 - the path and the threads come first
from hypothesis import strategies as st  # noqa: E402

from fuzz.case import Outcome, limit_memory, run_case  # noqa: E402
from fuzz.probes import PROBES  # noqa: E402
from fuzz.seeds import Seeds  # noqa: E402
from fuzz.targets import TARGETS  # noqa: E402

BLOCK = 100
"""Cases that a child works through; of a heavy target (`Target.weight`) as many fewer as one of them is heavier."""
CLOCK_SECONDS = 120
"""After so long on the clock a case hangs, in C or in a wait, where its own limit of computing time does not reach."""

_START_SECONDS = 600
"""Time for loading the libraries of all readers."""
_DRAWN_BYTES = 800
"""Of random numbers, for a case; more are zeros."""


class Block(NamedTuple):
    """Cases of one target that a child works through: they are decided by its name, a seed and a number."""

    target: str
    seed: int
    number: int


class Result(NamedTuple):
    """How the cases of a block ended, by kind, and what was wrong, "" where nothing was."""

    kinds: Counter[str]
    problem: str


def run_block(
    block: Block,
    seeds: Path,
    *,
    kept: Path | None = None,
    verbose: bool = False,
    isolated: bool = False,
    clock_seconds: float = CLOCK_SECONDS,
) -> Result:
    """Run a block in a child; where that dies or hangs, again with a process for each case, which can be shrunk.

    Args:
        block: which.
        seeds: folder of the valid files, which several processes may share.
        kept: folder for the files of a failed case; None keeps none.
        verbose: whether the child prints, with the traceback.
        isolated: whether each case runs in a process of its own.
        clock_seconds: a case that takes longer is ended.
    """
    context, kinds, problem = _fork_server(), Counter[str](), "died or hangs"
    receiving, sending = context.Pipe(duplex=False)
    work = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    arguments = (block, seeds, work, sending, kept, verbose, isolated, clock_seconds)
    child = context.Process(target=_work, args=arguments, daemon=True)
    child.start()
    sending.close()
    try:
        seconds: float = _START_SECONDS
        while receiving.poll(seconds):
            said, seconds = receiving.recv(), 2 * clock_seconds if isolated else clock_seconds
            if isinstance(said, Result):
                problem = said.problem
                break
            kinds += Counter(filter(None, [said]))
    except EOFError:
        pass
    finally:
        child.kill()
        child.join()
        receiving.close()
        shutil.rmtree(work, ignore_errors=True)
    if problem == "died or hangs" and not isolated:
        return run_block(block, seeds, kept=kept, verbose=verbose, isolated=True, clock_seconds=clock_seconds)
    return Result(kinds, problem)


def _fork_server() -> Any:
    """Return where children come from: a process that loads everything once, alone and with one thread."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))
    context = multiprocessing.get_context("forkserver")
    needed = {name: None for target in TARGETS.values() for name in target.needs}
    context.set_forkserver_preload(["fuzz.run", *needed])
    return context


class DrawnRandom(random.Random):
    """Random numbers from bytes, then zeros: those of hypothesis' own generators prefer small numbers."""

    def __new__(cls, content: bytes) -> DrawnRandom:
        return super().__new__(cls)

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        super().__init__(0)

    def getrandbits(self, k: int, /) -> int:
        length = -(-k // 8)
        return int.from_bytes(self._content.read(length).ljust(length, b"\0")) % (1 << k)

    def random(self) -> float:
        return self.getrandbits(24) / 2**24


class _Failed(Exception):
    """A case ended in a way that is not allowed."""


class _TooLong(KeyboardInterrupt):
    """A case took too long to be shrunk; hypothesis lets this class through."""


def _work(
    block: Block,
    seeds: Path,
    work: Path,
    pipe: Connection,
    kept: Path | None,
    verbose: bool,
    isolated: bool,
    clock_seconds: float,
) -> None:
    """Be the child: say the kind of each outcome, then the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    if not verbose:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
    limit_memory()
    pipe.send("")
    target = {**TARGETS, **PROBES}[block.target]

    @seed(":".join(map(str, block)))
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
        def run() -> Outcome:
            return run_case(target, DrawnRandom(content), Seeds(seeds), work / "case")

        outcome = _in_a_fork(run, clock_seconds) if isolated else run()
        pipe.send(outcome.kind)
        if outcome.failed:
            raise (_TooLong if outcome.kind == "time" else _Failed)(f"{outcome.kind}: {outcome.what}")

    problem = ""
    try:
        check()
    except (Exception, _TooLong) as error:
        if verbose:
            traceback.print_exc()
        problem = str(error)
        if kept is not None:
            problem += f"\n    files: {_keep(work / 'case' / 'files', kept / '-'.join(map(str, block)))}"
    pipe.send(Result(Counter(), problem))


def _in_a_fork(run: Any, clock_seconds: float) -> Outcome:
    """Return the outcome of a case that may end its process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome = run()
        os.write(writing, json.dumps(outcome.__dict__).encode())
        os._exit(0)
    os.close(writing)
    done, _, _ = select.select([reading], [], [], clock_seconds)
    said = os.read(reading, 1 << 16) if done else b""
    os.close(reading)
    if not done:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if said:
        return Outcome(**json.loads(said))
    return Outcome("crash", f"exit code {os.waitstatus_to_exitcode(status)}") if done else Outcome("time", "it hangs")


def _keep(files: Path, kept: Path) -> Path:
    """Copy the files of the last case, which is the smallest that failed; not a pipe, which cannot be copied."""
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(
        files, kept, symlinks=True, ignore=lambda folder, names: [n for n in names if Path(folder, n).is_fifo()]
    )
    return kept


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return its exit code."""
    options = _options(arguments)
    names = [name for name in options.targets or TARGETS if not _is_skipped(name)]
    with tempfile.TemporaryDirectory(prefix="fuzz-seeds-") as seeds:  # what SimMAT writes may have changed
        if options.block is not None:
            blocks = [Block(name, options.seed, options.block) for name in names]
            results = [run_block(block, Path(seeds), kept=options.folder / "failed", verbose=True) for block in blocks]
            for block, result in zip(blocks, results, strict=True):
                print(told(block, result.problem) if result.problem else f"{block.target}: {dict(result.kinds)}")
            return int(any(result.problem for result in results))
        return _run_many(names, options, Path(seeds))


def _run_many(names: Sequence[str], options: argparse.Namespace, seeds: Path) -> int:
    """Run blocks of each target in turn, so that a short run sees them all; note those that passed."""
    record = options.folder / f"seed-{options.seed}.json"
    passed: dict[str, dict[str, dict[str, int]]] = json.loads(record.read_text()) if record.is_file() else {}
    count = {name: -(-options.cases // max(BLOCK // TARGETS[name].weight, 1)) for name in names}
    blocks = [
        Block(name, options.seed, number)
        for number in range(max(count.values(), default=0))
        for name in names
        if number < count[name] and str(number) not in passed.get(name, {})
    ]
    began, failures = time.monotonic(), Counter[str]()
    done = 0

    def run(block: Block) -> tuple[Block, Result] | None:
        if options.seconds is not None and time.monotonic() - began >= options.seconds:
            return None
        return block, run_block(block, seeds, kept=options.folder / "failed")

    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT is ignored where a script starts it in the background
        signal.signal(number, signal.default_int_handler)
    try:
        with ThreadPool(options.jobs) as pool:
            for block, result in filter(None, pool.imap_unordered(run, blocks)):
                done += result.kinds.total()
                if result.problem:
                    failures[block.target] += 1
                    print(told(block, result.problem), flush=True)
                else:
                    passed.setdefault(block.target, {})[str(block.number)] = dict(result.kinds)
                    _write(record, json.dumps(passed))
    except KeyboardInterrupt:
        print("stopped; the same command continues")
    print(f"\n{'TARGET':<18}{'PASSED':>8}{'OF':>8}{'VALUE':>8}{'REFUSED':>9}{'FAILED':>8}")
    for name in names:
        kinds = sum((Counter(kinds) for kinds in passed.get(name, {}).values()), Counter[str]())
        row = f"{kinds.total():>8}{options.cases:>8}{kinds['value']:>8}{kinds['refused']:>9}{failures[name]:>8}"
        print(f"{name:<18}{row}")
    print(f"{done} cases in {time.monotonic() - began:.0f} s, seed {options.seed}; {failures.total()} blocks failed")
    return 1 if failures else 0


def told(block: Block, problem: str) -> str:
    """Return what to say of a failed block: what its smallest case did, and the command that runs it again."""
    again = f"python tests/fuzz/run.py {block.target} --seed {block.seed} --block {block.number}"
    return f"FAILED {block.target} (seed {block.seed}): {problem}\n    again: {again}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".new").write_text(text)
    path.with_suffix(".new").replace(path)


def _is_skipped(name: str) -> bool:
    if missing := TARGETS[name].missing_module:
        print(f"skipped {name}: {missing} is not installed")
    return missing is not None


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--cases", type=int, default=20_000, help="of each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides every case (default: %(default)s)")
    parser.add_argument("--block", type=int, help="run this block alone, and show what happens")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="begin no block after so long")
    parser.add_argument("--folder", type=Path, default=_TESTS.parent / ".fuzz", help="of progress and failed files")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - set(TARGETS)):
        parser.error(f"no target {', '.join(unknown)}; targets: {', '.join(TARGETS)}")
    options.folder = options.folder.absolute()
    return options


if __name__ == "__main__":
    sys.exit(main())
