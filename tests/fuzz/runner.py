"""Child processes that work through cases; one that dies or hangs is replaced, and its case has failed."""

from __future__ import annotations

import importlib
import json
import os
import selectors
import shutil
import signal
import stat
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fuzz.child import limit_memory, run_case
from fuzz.outcome import Outcome
from fuzz.seeds import Seeds
from fuzz.targets import TARGETS, Target

CLOCK_SECONDS = 120
"""After so long on the clock a case hangs, in C or in a wait, where its own limit of computing time does not reach."""


@dataclass(frozen=True)
class Block:
    """Cases of one target that a child works through.

    Attributes:
        target: its name.
        seed: of the cases.
        numbers: of the cases.
    """

    target: str
    seed: int
    numbers: tuple[int, ...]


@dataclass
class _Child:
    pid: int
    pipe: int
    work: Path
    block: Block
    left: deque[int]
    current: int | None = None
    since: float = field(default_factory=time.monotonic)
    hangs: bool = False
    unread: bytes = b""


class Runner:
    """Runs blocks of cases.

    Args:
        seeds: the valid files.
        kept: folder for the files of failed cases; None keeps none.
        verbose: whether the children print, with tracebacks.
    """

    def __init__(self, seeds: Seeds, kept: Path | None = None, *, verbose: bool = False) -> None:
        self.seeds = seeds
        self.kept = kept
        self.verbose = verbose
        self.cpu_seconds: dict[str, float] = defaultdict(float)
        """Computing time of the children, by target."""

    def run(
        self, blocks: Iterable[Block], *, jobs: int = 1, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[Block, Outcome]]:
        """Yield the outcome of every case, those of one block in order.

        Args:
            blocks: taken one after the other.
            jobs: number of children at a time.
            stop: asked twice a second or more; once it says True, what is not done is left.
        """
        root = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
        waiting, again, children = iter(blocks), deque[Block](), dict[int, _Child]()
        try:
            with selectors.DefaultSelector() as selector:
                while not stop():
                    while len(children) < jobs and (block := again.popleft() if again else next(waiting, None)):
                        child = self._start(block, root / f"{block.target}-{block.numbers[0]}")
                        children[child.pipe] = child
                        selector.register(child.pipe, selectors.EVENT_READ)
                    if not children:
                        return
                    for key, _ in selector.select(timeout=0.5):
                        child = children[key.fd]
                        if data := os.read(key.fd, 1 << 16):
                            for outcome in _outcomes(child, data):
                                yield child.block, outcome
                            continue
                        selector.unregister(key.fd)
                        del children[key.fd]
                        if last := self._ended(child):
                            yield child.block, last
                        if child.left:
                            again.append(Block(child.block.target, child.block.seed, tuple(child.left)))
                    _kill_hanging(children.values())
        finally:
            for child in children.values():
                os.kill(child.pid, signal.SIGKILL)
                self._wait(child)
                os.close(child.pipe)
            shutil.rmtree(root, ignore_errors=True)

    def _start(self, block: Block, work: Path) -> _Child:
        target = TARGETS[block.target]
        for name in target.needs:
            importlib.import_module(name)  # once here, not in every child
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                self._work(target, block, work, writing)
            finally:
                os._exit(1)
        os.close(writing)
        return _Child(pid, reading, work, block, deque(block.numbers))

    def _work(self, target: Target, block: Block, work: Path, pipe: int) -> None:
        """Be the child."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not self.verbose:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1)
            os.dup2(nothing, 2)
        limit_memory()
        for number in block.numbers:
            os.write(pipe, json.dumps({"started": number}).encode() + b"\n")
            outcome = run_case(target, block.seed, number, self.seeds, work, verbose=self.verbose)
            if outcome.failed:
                self._keep(block, number, work)
            os.write(pipe, json.dumps(asdict(outcome)).encode() + b"\n")
        os._exit(0)

    def _ended(self, child: _Child) -> Outcome | None:
        """Take leave of a child; return the outcome of the case it died in."""
        os.close(child.pipe)
        status = self._wait(child)
        number = child.current
        if number is None and child.left and status:
            number = child.left[0]  # it died before it could say which case it began
        outcome = None
        if number is not None:
            if child.left and child.left[0] == number:
                child.left.popleft()
            self._keep(child.block, number, child.work)
            outcome = (
                Outcome(number, "time", f"{CLOCK_SECONDS} s on the clock") if child.hangs else _crash(number, status)
            )
        shutil.rmtree(child.work, ignore_errors=True)
        return outcome

    def _wait(self, child: _Child) -> int:
        _, status, used = os.wait4(child.pid, 0)
        self.cpu_seconds[child.block.target] += used.ru_utime + used.ru_stime
        return status

    def _keep(self, block: Block, number: int, work: Path) -> None:
        """Copy the files of a case that failed to where they stay."""
        if self.kept is None or not (work / "files").is_dir():
            return
        target = self.kept / f"{block.target}-{block.seed}-{number}"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(work / "files", target, symlinks=True, ignore=_special_files)


def _outcomes(child: _Child, data: bytes) -> Iterator[Outcome]:
    """Take in what a child says."""
    *lines, child.unread = (child.unread + data).split(b"\n")
    child.since = time.monotonic()
    for line in lines:
        said = json.loads(line)
        if "started" in said:
            child.current = said["started"]
        else:
            child.current = None
            child.left.remove(said["number"])
            yield Outcome(**said)


def _kill_hanging(children: Iterable[_Child]) -> None:
    for child in children:
        if time.monotonic() - child.since > CLOCK_SECONDS and not child.hangs:
            child.hangs = True
            os.kill(child.pid, signal.SIGKILL)


def _crash(number: int, status: int) -> Outcome:
    code = os.waitstatus_to_exitcode(status)
    return Outcome(number, "crash", f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


def _special_files(folder: str, names: Sequence[str]) -> list[str]:
    """Return those of `names` that cannot be copied, as a pipe cannot."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    return [name for name, mode in modes.items() if stat.S_IFMT(mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)]
