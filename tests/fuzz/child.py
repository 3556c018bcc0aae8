"""One case after the other in a process of its own, with limits of time and memory."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from fuzz.mutate.code import CODE, CODE_RAN
from fuzz.outcome import Kind, Outcome, place_of
from fuzz.seeds import Seeds
from fuzz.targets import Case, Place, Target
from simmat.errors import PluginError, SimMATError
from simmat.io.images.limits import LIMIT_VARIABLE

CPU_SECONDS = 10
"""Computing time of a case. Time on the clock would depend on what else the machine does."""
MEMORY_BYTES = 2 << 30
"""Address space that the cases of a process may take beside what is loaded already."""
_IMAGE_GIB = 0.25
"""Limit of decoded images: what a reader makes of one may take eight times as much."""
_RECURSION = 20_000
"""While a case is made: its values are nested deeper than most readers allow."""


class _OutOfTime(BaseException):
    """A case took `CPU_SECONDS`; not an Exception, so that no reader catches it."""


def limit_memory() -> None:
    """Let this process take `MEMORY_BYTES` more than it has."""
    with open("/proc/self/status") as status:
        kibibytes = next(int(line.split()[1]) for line in status if line.startswith("VmSize"))
    most = kibibytes * 1024 + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run_case(target: Target, seed: int, number: int, seeds: Seeds, work: Path, *, verbose: bool = False) -> Outcome:
    """Make a case, read its file, and say how that ended.

    Args:
        target: the reader.
        seed: with target and number it decides the case.
        number: of the case.
        seeds: the valid files.
        work: a folder for this process alone; its `files` are those of the case until the next one.
        verbose: whether tracebacks are printed.
    """
    place = _new_place(seeds, work)
    rng = random.Random(f"{target.name}:{seed}:{number}")
    try:
        with _deep_recursion():
            case = target.prepare(place, rng)
        before = _names(work)
    except Exception as error:
        if verbose:
            traceback.print_exc()
        return Outcome(number, "test", place_of(error), str(error))
    kind, what, text = _read(case, verbose=verbose)
    allowed = case.outputs if kind == "value" else frozenset()
    new = sorted(name for name in _names(work) - before if not any(fnmatch(name, f"files/{one}") for one in allowed))
    if f"cwd/{CODE_RAN}" in new:
        return Outcome(number, "code run", "a command in the file was run", text)
    if new and kind in ("value", "refused"):
        return Outcome(number, "leftovers", ", ".join(new)[:200], text)
    return Outcome(number, kind, what, text[:500])


def _read(case: Case, *, verbose: bool) -> tuple[Kind, str, str]:
    try:
        with _time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case.read()
    except (Exception, _OutOfTime) as error:
        if verbose:
            traceback.print_exception(error)
        return _kind_of(error), place_of(error), str(error)
    return "value", "", ""


def _kind_of(error: BaseException) -> Kind:
    if isinstance(error, _OutOfTime):
        return "time"
    if isinstance(error, SimMATError):
        return _refusal(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return "memory"
    if isinstance(error, AssertionError) and "/tests/fuzz/" in traceback.extract_tb(error.__traceback__)[-1].filename:
        return "wrong value"
    return "exception"


def _refusal(error: SimMATError) -> Kind:
    """A plugin's own fault is told in a PluginError; the file is no reason for one."""
    if isinstance(error, PluginError):
        return "exception"
    return "refused" if str(error).strip() else "wrong value"


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
    found = set()
    for folder, folders, files in os.walk(work):
        if Path(folder) == work:
            folders.remove("scratch")
        found |= {os.path.relpath(os.path.join(folder, name), work) for name in (*folders, *files)}
    return found


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise _OutOfTime

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def _deep_recursion() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(_RECURSION)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)
