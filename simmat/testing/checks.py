"""A check of the conformance kit, how it is run, and a Python without torch to run code in."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from simmat.terminal import SLOW_S, say_if_slow

CaseT = TypeVar("CaseT")

Status = Literal["ok", "failed", "skipped"]

TIMEOUT_S = 120
"""Time limit of a process that a check starts."""


class CheckFailed(AssertionError):
    """A rule is broken."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(f"{found}; {advice}")
        self.found = found
        self.advice = advice


class CheckSkipped(Exception):
    """A check does not apply; the message says why."""


class NoSamples(CheckSkipped):
    """A check needs sample files, and there are none."""


@dataclass(frozen=True)
class Check(Generic[CaseT]):
    """One rule of a contract."""

    run: Callable[[CaseT], None]

    @property
    def id(self) -> str:
        """Its name, as in reports and test ids."""
        return self.run.__name__.replace("_", "-")

    @property
    def rule(self) -> str:
        """The first paragraph of the function's docstring."""
        return " ".join((inspect.getdoc(self.run) or "").partition("\n\n")[0].split())


@dataclass(frozen=True)
class Result:
    """The result of one check.

    Attributes:
        status: "ok", "failed" or "skipped".
        found: what was found, or why it was skipped; empty where it is ok.
        advice: what to do; empty unless it failed.
    """

    check: str
    rule: str
    status: Status
    found: str = ""
    advice: str = ""
    seconds: float = 0.0
    error: BaseException | None = None

    @property
    def why(self) -> str:
        """What was found and what to do, on one line."""
        return " ".join("; ".join(part for part in (self.found, self.advice) if part).split())


def run_check(check: Check[CaseT], case: CaseT) -> Result:
    """Run one check on one case; any exception of a plugin is a failure of the check."""
    start = time.perf_counter()

    def result(status: Status, **more: Any) -> Result:
        return Result(check.id, check.rule, status, seconds=time.perf_counter() - start, **more)

    try:
        with say_if_slow(f"{check.id} has been running for {SLOW_S:g} s; if it never ends, the plugin hangs there"):
            check.run(case)
    except CheckSkipped as reason:
        return result("skipped", found=str(reason), error=reason)
    except CheckFailed as failure:
        return result("failed", found=failure.found, advice=failure.advice, error=failure)
    except (Exception, SystemExit) as error:  # a plugin must not be able to exit the host
        advice = "the check could not continue; see where the error was raised"
        return result("failed", found=f"{type(error).__name__}: {error}", advice=advice, error=error)
    return result("ok")


def run_checks(checks: Sequence[Check[CaseT]], case: CaseT) -> Iterator[Result]:
    """Run the checks in order."""
    return (run_check(check, case) for check in checks)


_NO_TORCH = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError("torch is imported while loading")
sys.meta_path.insert(0, NoTorch())
"""


def python_without_torch(code: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run code in a new Python with the same search path, in which torch cannot be imported."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-P", "-c", _NO_TORCH + code]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=TIMEOUT_S, env=env)


def last_line(answer: subprocess.CompletedProcess[bytes]) -> str:
    """Return the last line that a process wrote to standard error, where Python names the exception."""
    lines = answer.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {answer.returncode}, and no message"
