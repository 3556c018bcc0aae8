"""Process many images: skip finished ones, share the rest between processes, report failures at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from simmat.cli.common import progress_bar
from simmat.errors import ConfigError, DataError, OutputError, SimMATError, all_problems
from simmat.terminal import say

if TYPE_CHECKING:
    from tqdm import tqdm

    from simmat.evaluation import Processes

WINDOWS_TOGETHER = 16
"""Number of windows in one task of an executor."""


class Work(ABC):
    """The work on one image.

    Attributes:
        name: name of the image, for messages.
        files: source name -> file.
    """

    name: str
    files: Mapping[str, Path]

    @property
    def windows(self) -> int:
        """Number of parts of the image that processes can share; 1 if one process does the whole image."""
        return 1

    @abstractmethod
    def is_done(self) -> bool:
        """Return whether an earlier call has done the work."""

    @abstractmethod
    def start(self) -> Callable[[], list[str]]:
        """Run the network; return a function that does the rest in any thread and returns lines to print."""

    def run(self) -> list[str]:
        """Do all the work, and return lines to print."""
        return self.start()()

    def prepare(self, indices: Sequence[int]) -> list[str]:
        """Do some parts for a later `run`, and return lines to print."""
        raise NotImplementedError("there is one part")


class Tasks(Protocol):
    """The work of `run_on` as a worker does it. Must be picklable."""

    def run(self, name: str, files: Mapping[str, Path]) -> list[str]:
        """Do all work on one image."""

    def prepare(self, name: str, files: Mapping[str, Path], indices: Sequence[int]) -> list[str]:
        """Do some parts of one image."""


@dataclass(frozen=True)
class Outcome:
    """Result of the work.

    Attributes:
        done: names of the images without an error.
        error: the errors of all failed images as one, to raise at the end; None if no image failed.
    """

    done: tuple[str, ...]
    error: SimMATError | None = None


def run_all(works: Sequence[Work], out: Path, processes: Processes | None = None) -> Outcome:
    """Do all work, or the share of this process; the main process returns the outcome of all.

    `works` must be the same in all processes. An OutputError, such as a full disk, stops the call.
    """
    main = processes is None or processes.is_main
    failed: dict[str, SimMATError] = {}
    done = {work.name for work in works if work.is_done()}
    if processes is not None:  # another process may finish an image while this one checks
        done = processes.gather(done)[0]
    left = [work for work in works if work.name not in done]
    if main and done:
        say(f"note: {len(done)} of {len(works)} images were done by an earlier call", err=True)
    is_shared = processes is not None and processes.count > 1
    own_works = [work for work in left if not is_shared or work.windows == 1]
    finished: list[str] = []
    with progress_bar("predict", "image", total=len(left), shown=main and len(left) > 1) as bar:
        try:
            _run_in_turn(own_works if processes is None else processes.share(own_works), finished, failed, bar)
            if processes is not None and is_shared:
                shared = [work for work in left if work.windows > 1]
                for work in shared:
                    _attempt(work.name, partial(work.prepare, processes.share(range(work.windows))), failed, bar)
                failed = {name: error for part in processes.gather(failed) for name, error in part.items()}
                for work in shared if main else ():
                    if work.name not in failed and _attempt(work.name, work.run, failed, bar):
                        finished.append(work.name)
        except BaseException:
            if finished:
                say(f"{len(finished)} of {len(left)} images are done; their results are in {out}", err=True)
            raise
    return _outcome(works, failed, out)


def _run_in_turn(works: Sequence[Work], finished: list[str], failed: dict[str, SimMATError], bar: tqdm[object]) -> None:
    """Do all work, and add names to `finished`; files are written while the next image is segmented."""
    writing: tuple[str, Future[list[str]]] | None = None

    def finish_writing() -> None:
        if writing is not None and _attempt(writing[0], writing[1].result, failed, bar):
            finished.append(writing[0])

    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            for work in works:
                write = _start(work)
                finish_writing()
                writing = work.name, thread.submit(write)
        finally:  # count the image being written, even if the next one was interrupted
            finish_writing()


def _start(work: Work) -> Callable[[], list[str]]:
    """Start work; an error is raised only when the returned function is called."""
    try:
        return work.start()
    except OutputError:
        raise
    except SimMATError as error:
        return partial(_raise, error)


def _raise(error: SimMATError) -> list[str]:
    raise error


def run_on(executor: Executor, works: Sequence[Work], tasks: Tasks, out: Path) -> Outcome:
    """Do all work on an executor whose workers see the same files, like `run_all`.

    This process uses `works` to join the parts of images; workers use `tasks`, which do not depend on the working
    folder.
    """
    failed: dict[str, SimMATError] = {}
    left = [work for work in works if not work.is_done()]
    if len(left) < len(works):
        say(f"note: {len(works) - len(left)} of {len(works)} images were done by an earlier call", err=True)
    parts: dict[Future[list[str]], Work] = {}
    for work in left:
        if work.windows == 1:
            parts[executor.submit(tasks.run, work.name, work.files)] = work
            continue
        for start in range(0, work.windows, WINDOWS_TOGETHER):
            indices = range(start, min(start + WINDOWS_TOGETHER, work.windows))
            parts[executor.submit(tasks.prepare, work.name, work.files, list(indices))] = work
    pending_parts = {work.name: sum(other is work for other in parts.values()) for work in left}
    with progress_bar("predict", "image", total=len(left), shown=len(left) > 1) as bar:
        try:
            for future in as_completed(parts):
                work = parts[future]
                pending_parts[work.name] -= 1
                _attempt(work.name, partial(_result, future, work.name), failed, bar, advance=work.windows == 1)
                if work.windows > 1 and not pending_parts[work.name] and work.name not in failed:
                    _attempt(work.name, work.run, failed, bar)
        finally:
            for future in parts:
                future.cancel()
    return _outcome(works, failed, out)


def _result(future: Future[list[str]], name: str) -> list[str]:
    """Return the result of a task; errors of dask become errors of SimMAT."""
    try:
        return future.result()
    except CancelledError as error:
        raise ConfigError(
            f"{name}: the dask scheduler stopped or dropped the work; start it and run the command again"
        ) from error
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # a class of dask, which may not be installed
            raise
        raise DataError(
            f"{name}: the dask workers that segmented it died, perhaps because they ran out of memory"
        ) from error


def _attempt(
    name: str,
    function: Callable[[], list[str]],
    failed: dict[str, SimMATError],
    bar: tqdm[object],
    *,
    advance: bool = True,
) -> bool:
    """Call a function of an image and print its lines; store an error in `failed`, but raise an OutputError.

    Returns:
        True if there was no error.
    """
    try:
        lines = function()
    except OutputError:
        raise
    except SimMATError as error:
        failed[name] = error
        return False
    finally:
        bar.update(advance)
    with bar.external_write_mode():
        for line in lines:
            say(line)
    return True


def _outcome(works: Sequence[Work], failed: Mapping[str, SimMATError], out: Path) -> Outcome:
    done = tuple(work.name for work in works if work.name not in failed)
    if not failed:
        return Outcome(done)
    first = next(iter(failed.values()))
    if len(works) == 1:
        return Outcome(done, first)
    title = f"{len(failed)} of {len(works)} images failed; the results of the other {len(done)} are in {out}:"
    return Outcome(done, type(first)(all_problems(title, [str(error) for error in failed.values()])))
