"""What a case is, and how one is run: in a folder of its own, with limits of time and memory."""

from __future__ import annotations

import importlib.util
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fuzz.damage import CODE, CODE_RAN, mutate_file
from fuzz.seeds import Seeds
from simmat.errors import PluginError, SimMATError
from simmat.io.limits import LIMIT_VARIABLE
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.types import SensorImage

CPU_SECONDS = 10
"""Computing time of a case. Time on the clock would depend on what else the machine does."""
MEMORY_BYTES = 2 << 30
"""Memory that a case may take beside what the process has already."""
_ADDRESS_BYTES = 4 * MEMORY_BYTES
"""Address space that the cases of a process may take beside what is loaded already; much of it is never used."""
_IMAGE_GIB = 0.25
"""Limit of decoded images: what a reader makes of one may take eight times as much."""
_RECURSION = 20_000
"""While a case is made: its values are nested deeper than most readers allow."""


class Place(NamedTuple):
    """Where one case works.

    Attributes:
        seeds: the valid files.
        files: an empty folder for the damaged files; the reader must leave nothing else in it.
        scratch: an empty folder for whatever the case itself writes.
    """

    seeds: Seeds
    files: Path
    scratch: Path

    def damaged(
        self, kind: str, rng: random.Random, endings: tuple[str, ...] = ()
    ) -> Path:
        """Pick a seed of one kind, and put a damaged copy of it into `files`."""
        seed = rng.choice(self.seeds.files(kind, endings))
        return self.put(seed.name, mutate_file(seed, rng))

    def put(self, name: str, content: bytes) -> Path:
        """Write a file into `files`."""
        path = self.files / name
        path.write_bytes(content)
        return path

    def link(self, seed: Path) -> Path:
        """Link an undamaged file or folder of the seeds into `files`."""
        path = self.files / seed.name
        path.symlink_to(seed)
        return path


class Case(NamedTuple):
    """A damaged file and what reads it.

    Attributes:
        read: calls the reader. It returns where the reader gave what it promises, and raises AssertionError where it
            gave something else; what the reader raises goes through.
        outputs: patterns of the files, relative to `Place.files`, that may be there after it returned.
    """

    read: Callable[[], object]
    outputs: frozenset[str] = frozenset()


class Target(NamedTuple):
    """A reader.

    Attributes:
        name: on the command line.
        prepare: makes a case of a place and a source of random numbers.
        needs: modules of plugins and their libraries; where one is not installed, the target is skipped.
        weight: how many times the work of an ordinary case one of it is; a block has that many fewer cases.
    """

    name: str
    prepare: Callable[[Place, random.Random], Case]
    needs: tuple[str, ...] = ()
    weight: int = 1

    @property
    def missing_module(self) -> str | None:
        """The first module that is needed and not installed, or None."""
        return next(
            (name for name in self.needs if importlib.util.find_spec(name) is None),
            None,
        )


class Outcome(NamedTuple):
    """How a case ended.

    Attributes:
        kind: "value" (which holds what it promises) or "refused" (by a SimMATError), or what went wrong; "test" is a
            fault of the test.
        what: the exception and the place in SimMAT where it arose, or what was left; then its text.
        memory: bytes that it took at most, beside what the process had.
    """

    kind: str
    what: str = ""
    memory: int = 0

    @property
    def failed(self) -> bool:
        """True where it ended in another way than allowed."""
        return self.kind not in ("value", "refused")


def run_case(target: Target, rng: random.Random, seeds: Seeds, work: Path) -> Outcome:
    """Make a case of random numbers, read its file, and say how that ended.

    Args:
        target: the reader.
        rng: decides the case.
        seeds: the valid files.
        work: a folder for this process alone; its `files` are those of the case until the next one.
    """
    place, recursion = _new_place(seeds, work), sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(_RECURSION)
        case = target.prepare(place, rng)
    except Exception as error:
        return Outcome("test", _describe(error))
    finally:
        sys.setrecursionlimit(recursion)
    before = _names(work)
    outcome = _measured(case)
    allowed = case.outputs if outcome.kind == "value" else frozenset()
    new = sorted(
        name
        for name in _names(work) - before
        if not any(fnmatch(name, f"files/{one}") for one in allowed)
    )
    if f"cwd/{CODE_RAN}" in new:
        return outcome._replace(
            kind="code run", what=f"a command in the file was run; {outcome.what}"
        )
    if new and not outcome.failed:
        return outcome._replace(
            kind="leftovers", what=f"{', '.join(new)[:200]}; {outcome.what}"
        )
    return outcome


def limit_memory() -> None:
    """Let this process take `_ADDRESS_BYTES` more than it has."""
    limit = _status_bytes("VmSize") + _ADDRESS_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@cache
def registry() -> Registry:
    """Everything that is installed."""
    return load_plugins()


def check_image(image: SensorImage) -> SensorImage:
    """Check that an image holds what its type promises, and return it."""
    assert image.data.dtype == np.float32, f"data is {image.data.dtype}"
    assert image.data.ndim == 3, f"data has shape {image.data.shape}"
    assert 0 not in image.data.shape, f"data has shape {image.data.shape}"
    assert image.valid.dtype == np.bool_, f"valid is {image.valid.dtype}"
    assert image.valid.shape == image.data.shape, f"valid has shape {image.valid.shape}"
    assert len(image.channels) == len(image.data), (
        f"{len(image.channels)} channels of {len(image.data)} planes"
    )
    assert np.isfinite(image.data[image.valid]).all(), "a valid pixel is not finite"
    return image


def check_same(one: object, other: object, what: str) -> None:
    """Check that two values are equal; NaN counts as equal to itself."""
    assert one == other or repr(one) == repr(other), (
        f"{what}: {other!r:.300} is not {one!r:.300}"
    )


class _OutOfTime(BaseException):
    """A case took `CPU_SECONDS`; not an Exception, so that no reader catches it."""


def _measured(case: Case) -> Outcome:
    """Read the file of a case; too much memory is a failure even if it was refused in the end."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = _status_bytes("VmRSS")
    outcome = _read(case)
    memory = max(_status_bytes("VmHWM") - before, 0)
    if memory > MEMORY_BYTES and not outcome.failed:
        what = f"{memory >> 20} MiB; {outcome.what}"
        return Outcome("memory", what, memory)
    return outcome._replace(memory=memory)


def _status_bytes(name: str) -> int:
    """Return a number of /proc/self/status in bytes: VmSize, VmRSS, or VmHWM, the highest VmRSS."""
    with open("/proc/self/status") as status:
        kibibytes = next(
            int(line.split()[1]) for line in status if line.startswith(f"{name}:")
        )
    return kibibytes * 1024


def _read(case: Case) -> Outcome:
    def stop(*_: Any) -> None:
        raise _OutOfTime

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.read()
    except (Exception, _OutOfTime) as error:
        return Outcome(_kind_of(error), _describe(error))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Outcome("value")


def _kind_of(error: BaseException) -> str:
    if isinstance(error, _OutOfTime):
        return "time"
    # a plugin's own fault is in no file
    if isinstance(error, SimMATError) and not isinstance(error, PluginError):
        return "refused" if str(error).strip() else "wrong value"
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    ):
        return "memory"
    if (
        isinstance(error, AssertionError)
        and "/tests/fuzz/" in traceback.extract_tb(error.__traceback__)[-1].filename
    ):
        return "wrong value"
    return "exception"


def _describe(error: BaseException) -> str:
    """Return the class of an exception, the last place in SimMAT that it went through, and its text."""
    frames = traceback.extract_tb(error.__traceback__)
    last = (
        [f for f in frames if "/simmat" in f.filename and "/tests/" not in f.filename]
        or frames
    )[-1]
    text = " ".join(str(error).split())
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} in {last.name}: {text:.200}"


def _new_place(seeds: Seeds, work: Path) -> Place:
    """Empty the working folder, and make it the place of temporary files, of commands and of caches."""
    shutil.rmtree(work, ignore_errors=True)
    for name in ("files", "scratch", "tmp", "cwd", "bin"):
        (work / name).mkdir(parents=True)
    ghostscript = work / "bin" / "gs"
    ghostscript.write_text(f"#!/bin/sh\n{CODE}\n")
    ghostscript.chmod(0o755)
    os.chdir(work / "cwd")
    tempfile.tempdir = str(work / "tmp")
    os.environ |= {
        "TMPDIR": str(work / "tmp"),
        "PATH": f"{work / 'bin'}:/usr/bin:/bin",
        "XDG_CACHE_HOME": str(work / "scratch" / "cache"),
        "HF_HOME": str(work / "scratch" / "hf"),
        "HF_HUB_OFFLINE": "1",
        LIMIT_VARIABLE: str(_IMAGE_GIB),
        "TORCHINDUCTOR_CACHE_DIR": str(work / "scratch" / "inductor"),
    }
    return Place(seeds, work / "files", work / "scratch")


def _names(work: Path) -> set[str]:
    """Return every file and folder below the working folder, but for what the case itself writes."""
    return {
        name
        for path in work.rglob("*")
        if not (name := str(path.relative_to(work))).startswith("scratch")
    }
