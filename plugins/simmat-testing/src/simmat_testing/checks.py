"""How checks are run. A check is a function: its name is the rule's id, its docstring the rule, its argument a case."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from simmat.errors import with_line

Check: TypeAlias = Callable[[Any], None]


def fault(error: BaseException) -> str:
    """Return class and message of an error, with the line of the checked package that it came from."""
    return with_line(error, ours=("simmat", "simmat_testing"))


class CheckFailed(AssertionError):
    """A rule is broken: what was found, and what to do."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(f"{found}; {advice}")
        self.found, self.advice = found, advice


class CheckSkipped(Exception):
    """A check does not apply; the message says why."""


class NoSamples(CheckSkipped):
    """A check needs sample files, and there are none."""


@dataclass(frozen=True)
class PartCase:
    """A part of a kind that needs no case of its own: its spec or command, and a scratch folder."""

    spec: Any
    folder: Path


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        check: its id, as in reports and test ids.
        status: "ok", "failed" or "skipped".
        found: what was found, or why it was skipped; empty if it is ok.
        advice: what to do; empty unless it failed.
    """

    check: str
    rule: str
    status: Literal["ok", "failed", "skipped"]
    found: str = ""
    advice: str = ""
    seconds: float = 0.0
    error: BaseException | None = None

    @property
    def why(self) -> str:
        """What was found and what to do, on one line."""
        return " ".join(
            "; ".join(part for part in (self.found, self.advice) if part).split()
        )


def by_id(*checks: Check) -> Mapping[str, Check]:
    """Return id -> check, in the order given."""
    return {check.__name__.replace("_", "-"): check for check in checks}


def rule_of(check: Check) -> str:
    """Return the rule of a check: the first paragraph of its docstring."""
    return " ".join((inspect.getdoc(check) or "").partition("\n\n")[0].split())


def run_check(check: Check, case: Any) -> CheckResult:
    """Run one check on one case; any exception of a plugin is a failure of the check."""
    (name,) = by_id(check)
    start = time.perf_counter()

    def result(status: Literal["ok", "failed", "skipped"], **more: Any) -> CheckResult:
        return CheckResult(
            name, rule_of(check), status, seconds=time.perf_counter() - start, **more
        )

    try:
        check(case)
    except CheckSkipped as reason:
        return result("skipped", found=str(reason), error=reason)
    except CheckFailed as failure:
        return result(
            "failed", found=failure.found, advice=failure.advice, error=failure
        )
    # a plugin must not be able to exit the host
    except (Exception, SystemExit) as error:
        advice = "the check could not continue; see that line"
        return result(
            "failed",
            found=fault(error),
            advice=advice,
            error=error,
        )
    return result("ok")


def run_checks(checks: Iterable[Check], case: Any) -> Iterator[CheckResult]:
    """Run the checks in order."""
    return (run_check(check, case) for check in checks)
