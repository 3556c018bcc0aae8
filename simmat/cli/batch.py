"""Work on many images: skip what is done, share the rest between processes, report failures at the end."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from simmat.cli.common import progress_bar
from simmat.errors import ConfigError, DataError, OutputError, SimMATError, all_problems
from simmat.io.files import read_json
from simmat.terminal import say

if TYPE_CHECKING:
    from tqdm import tqdm

    from simmat.evaluation import Processes
    from simmat.predictor import Predictor

WINDOWS_TOGETHER = 16
"""Windows of one task of an executor."""


class Work(Protocol):
    """What is to be done with one image."""

    @property
    def name(self) -> str:
        """Name of the image, for messages."""

    @property
    def files(self) -> Mapping[str, Path]:
        """Source name -> file."""

    @property
    def windows(self) -> int:
        """How many parts of the image several processes can share; 1 if one process takes all."""

    def is_done(self) -> bool:
        """Return whether an earlier call did it."""

    def start(self) -> Callable[[], list[str]]:
        """Do what needs the network; return a function that does the rest in any thread and returns lines to print."""

    def run(self) -> list[str]:
        """Do all of it, and return lines to print."""

    def prepare(self, indices: Sequence[int]) -> list[str]:
        """Do some of the parts, for a `run` that follows, and return lines to print."""


class Tasks(Protocol):
    """The work of `run_on` as a worker does it; picklable."""

    def run(self, name: str, files: Mapping[str, Path]) -> list[str]:
        """Do all work on one image."""

    def prepare(self, name: str, files: Mapping[str, Path], indices: Sequence[int]) -> list[str]:
        """Do some parts of one image."""


@dataclass(frozen=True)
class Outcome:
    """What became of the work.

    Attributes:
        error: of the images that failed, to be raised at the end; None if none did.
    """

    done: tuple[str, ...]
    error: SimMATError | None = None


def run_all(works: Sequence[Work], out: Path, processes: Processes | None = None) -> Outcome:
    """Do all work, or this process's share of it; the main process returns what all have done.

    `works` are the same in all processes. An OutputError, such as a full disk, stops the call.
    """
    main = processes is None or processes.is_main
    failed: dict[str, SimMATError] = {}
    done = {work.name for work in works if work.is_done()}
    if processes is not None:  # while one process looks, another may finish its first image
        done = processes.gather(done)[0]
    left = [work for work in works if work.name not in done]
    if main and done:
        say(f"note: {len(done)} of {len(works)} images were done by an earlier call", err=True)
    several = processes is not None and processes.count > 1
    own = [work for work in left if not several or work.windows == 1]
    finished: list[str] = []
    with progress_bar("predict", "image", total=len(left), shown=main and len(left) > 1) as bar:
        try:
            _each(own if processes is None else processes.share(own), finished, failed, bar)
            if processes is not None and several:
                shared = [work for work in left if work.windows > 1]
                for work in shared:
                    _attempt(work.name, partial(work.prepare, processes.share(range(work.windows))), failed, bar)
                failed = {name: error for part in processes.gather(failed) for name, error in part.items()}
                for work in shared if main else ():
                    if work.name not in failed and _attempt(work.name, work.run, failed, bar):
                        finished.append(work.name)
        except BaseException:
            if finished:
                say(f"{len(finished)} of {len(left)} images are done, and their results are in {out}", err=True)
            raise
    return _outcome(works, failed, out)


def _each(works: Sequence[Work], finished: list[str], failed: dict[str, SimMATError], bar: tqdm[object]) -> None:
    """Do all work; an image's files are written while the next image is segmented. Add names to `finished`."""
    writing: tuple[str, Future[list[str]]] | None = None

    def settle() -> None:
        if writing is not None and _attempt(writing[0], writing[1].result, failed, bar):
            finished.append(writing[0])

    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            for work in works:
                rest = _started(work)
                settle()
                writing = work.name, thread.submit(rest)
        finally:  # what is written counts, even if the next one was stopped
            settle()


def _started(work: Work) -> Callable[[], list[str]]:
    """Start work; an error is kept, and raised when the rest is called."""
    try:
        return work.start()
    except OutputError:
        raise
    except SimMATError as error:
        return partial(_fail, error)


def _fail(error: SimMATError) -> list[str]:
    raise error


def run_on(executor: Executor, works: Sequence[Work], tasks: Tasks, out: Path) -> Outcome:
    """Do all work on an executor whose workers see the same files; results as `run_all`.

    `works` are of this process, which joins the parts of an image; `tasks` do the same work in any working folder.
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
    open_parts = {work.name: sum(other is work for other in parts.values()) for work in left}
    with progress_bar("predict", "image", total=len(left), shown=len(left) > 1) as bar:
        try:
            for future in as_completed(parts):
                work = parts[future]
                open_parts[work.name] -= 1
                _attempt(work.name, partial(_result, future, work.name), failed, bar, step=work.windows == 1)
                if work.windows > 1 and not open_parts[work.name] and work.name not in failed:
                    _attempt(work.name, work.run, failed, bar)
        finally:
            for future in parts:
                future.cancel()
    return _outcome(works, failed, out)


def _result(future: Future[list[str]], name: str) -> list[str]:
    """Return what a task returned; turn dask's errors into ours."""
    try:
        return future.result()
    except CancelledError as error:
        raise ConfigError(
            f"{name}: the dask scheduler ended, or dropped the work; start it and repeat the call"
        ) from error
    except Exception as error:
        if type(error).__name__ != "KilledWorker":  # of dask, which need not be installed
            raise
        raise DataError(f"{name}: the dask workers that segmented it died, perhaps for lack of memory") from error


def _attempt(
    name: str, act: Callable[[], list[str]], failed: dict[str, SimMATError], bar: tqdm[object], *, step: bool = True
) -> bool:
    """Act on an image and print what it returns; keep its error, unless nothing more can be written."""
    try:
        lines = act()
    except OutputError:
        raise
    except SimMATError as error:
        failed[name] = error
        return False
    finally:
        bar.update(step)
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


FORMAT = 1
"""Of the json of an image or object; raised with every change that an older reader would misread."""
COCO_FILE = "coco.json"
"""The objects of all images of a call."""
COCO_INFO = {"description": "Objects found by simmat predict"}
"""In that file, by which a later call knows that it may replace it."""


def read_record(file: Path) -> dict[str, Any]:
    """Return the json of an image; empty if there is none, or it is of another program."""
    try:
        found = read_json(file)
    except SimMATError:
        return {}
    return found if isinstance(found, dict) else {}


def files_key(files: Mapping[str, Path]) -> list[Any]:
    """Return paths, sizes and times of files; missing ones are reported when they are read."""
    found: list[Any] = []
    for source, file in files.items():
        status = file.stat() if file.exists() else None
        found.append([source, str(file.absolute()), *((status.st_size, status.st_mtime_ns) if status else ())])
    return found


def result_endings(formats: Iterable[str], kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the endings of an image's files of some `simmat.results.FORMATS` and kinds: "objects", "classes"."""
    endings: dict[str, tuple[str, ...]] = {"overlay": ("_overlay.png",), "geojson": (".geojson",), "gpkg": (".gpkg",)}
    for name, kept in (("labels", (".png", ".tif")), ("geotiff", (".tif",))):
        endings[name] = tuple(f"_{kind}{ending}" for kind in kinds for ending in kept)
    return (".json", *dict.fromkeys(ending for name in formats for ending in endings.get(name, ())))


def written_files(record: Mapping[str, Any], name: str) -> frozenset[str]:
    """Return the names of the files that an earlier call wrote for an image or object."""
    listed = record.get("written")
    own = (f"{name}.", f"{name}_")  # whatever the json of another program says, no other file is replaced
    return frozenset(
        file
        for file in (listed if isinstance(listed, list) else ())
        if isinstance(file, str) and file.startswith(own) and not set(file) & set("/\\\0")
    )


def is_written(out: Path, name: str, request: str) -> bool:
    """Return whether an earlier call did the same, and all files that it wrote still exist."""
    record = read_record(out / f"{name}.json")
    written = written_files(record, name)
    return record.get("request") == request and all((out / file).is_file() for file in written)


def record_of(
    request: str,
    files: Mapping[str, Path],
    predictor: Predictor,
    missing: Sequence[str | int],
    size_hw: tuple[int, int],
) -> dict[str, Any]:
    """Return the first values of the json of an image."""
    return {
        "format": FORMAT,
        "request": request,
        "files": {source: str(file) for source, file in files.items()},
        "missing": sorted(predictor.missing_channels(missing)),
        "bundle": str(predictor.bundle.path) if predictor.bundle else None,
        "size_hw": list(size_hw),
    }


def digest_of(*said: object) -> str:
    """Return the sha256 of what was asked, as json values."""
    return hashlib.sha256(json.dumps([FORMAT, *said]).encode()).hexdigest()


def own_files(out: Path, outputs: Iterable[str], endings: Sequence[str]) -> frozenset[str]:
    """Return the names of files that an earlier call wrote for these outputs."""
    own: set[str] = set()
    for name in outputs:
        existing = [f"{name}{ending}" for ending in endings if (out / f"{name}{ending}").exists()]
        written = written_files(read_record(out / f"{name}.json"), name) if existing else frozenset()
        if foreign := [file for file in existing if file not in written]:
            raise ConfigError(foreign_file(out / foreign[0]))
        own.update(written)
    return frozenset(own)


def foreign_file(file: Path) -> str:
    """Return why a file that another program or a person made is not replaced."""
    return f"{file} exists already and was not written by simmat predict; choose another --out, or move it away"


def check_coco(out: Path, names: Iterable[str]) -> None:
    """Refuse to write the COCO file of all images over another file."""
    name, file = Path(COCO_FILE).stem, out / COCO_FILE
    if name in names:
        raise ConfigError(
            f"the results of the image {name!r} and the objects of all images would both be {COCO_FILE}; rename the "
            "image, or leave coco out of --format"
        )
    if file.exists() and read_record(file).get("info") != COCO_INFO:
        raise ConfigError(foreign_file(file))


def refuse_twice(names: Sequence[str]) -> None:
    """Refuse images or objects whose files would have one name."""
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ConfigError(f"several masks would be written as {twice[:5]}; rename the files, or use separate calls")
