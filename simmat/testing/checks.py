"""A check of the conformance kit, how it is run, and what it runs in a fresh interpreter."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

CaseT = TypeVar("CaseT")

Status = Literal["ok", "failed", "skipped"]


class CheckFailed(AssertionError):
    """A rule is broken.

    Attributes:
        found: what was found, with the numbers.
        advice: what the author should do.
    """

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(f"{found}; {advice}")
        self.found = found
        self.advice = advice


class CheckSkipped(Exception):
    """A check cannot be asked here; the message says why."""


class NoSamples(CheckSkipped):
    """There are no sample files, so that nothing can be said of reading them."""


@dataclass(frozen=True)
class Check(Generic[CaseT]):
    """One rule of a contract.

    Attributes:
        run: the function.
        full: True where it is slow and run only when all is asked for.
    """

    run: Callable[[CaseT], None]
    full: bool = False

    @property
    def id(self) -> str:
        """Its name, as reports and test ids show it."""
        return self.run.__name__.replace("_", "-")

    @property
    def rule(self) -> str:
        """The first paragraph of the function's docstring."""
        return " ".join((inspect.getdoc(self.run) or "").partition("\n\n")[0].split())


@dataclass(frozen=True)
class Result:
    """What became of one check.

    Attributes:
        check: its id.
        rule: what it asks for.
        status: "ok", "failed" or "skipped".
        found: what was found, or why it was skipped; empty where it is ok.
        advice: what to do; empty unless it failed.
        seconds: how long it took.
        error: the exception behind a failure.
        lacks_samples: True where it was skipped for want of sample files.
    """

    check: str
    rule: str
    status: Status
    found: str = ""
    advice: str = ""
    seconds: float = 0.0
    error: BaseException | None = None
    lacks_samples: bool = False

    @property
    def why(self) -> str:
        """What was found and what to do, on one line."""
        return " ".join("; ".join(part for part in (self.found, self.advice) if part).split())


def run_check(check: Check[CaseT], case: CaseT) -> Result:
    """Run one check on one case; whatever a plugin raises is its failure, not ours."""
    start = time.perf_counter()

    def result(status: Status, **more: Any) -> Result:
        return Result(check.id, check.rule, status, seconds=time.perf_counter() - start, **more)

    try:
        check.run(case)
    except CheckSkipped as reason:
        return result("skipped", found=str(reason), lacks_samples=isinstance(reason, NoSamples))
    except CheckFailed as failure:
        return result("failed", found=failure.found, advice=failure.advice, error=failure)
    except (Exception, SystemExit) as error:  # a plugin must not be able to end the host
        return result(
            "failed",
            found=f"{type(error).__name__}: {error}",
            advice="the check could not go on; see where it was raised",
            error=error,
        )
    return result("ok")


def run_checks(checks: Sequence[Check[CaseT]], case: CaseT, *, full: bool = False) -> Iterator[Result]:
    """Run the checks in order; those marked `full` only where `full` is asked for."""
    for check in checks:
        if full or not check.full:
            yield run_check(check, case)


SECONDS = 120
"""A process that takes longer is taken for dead."""

_BEGIN = """
import json, sys
sys.path[:] = json.loads({path!r})
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError("torch is imported while loading")
sys.meta_path.insert(0, NoTorch())
"""


def python_without_torch(code: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run code in a new Python with this one's search path, in which importing torch raises ImportError."""
    begin = _BEGIN.format(path=json.dumps(sys.path))
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", begin + code], input=data, capture_output=True, check=False, timeout=SECONDS, env=env
    )


def last_line(answer: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line a process wrote to standard error, where Python names the exception."""
    lines = answer.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it ended with code {answer.returncode} and without a word"
