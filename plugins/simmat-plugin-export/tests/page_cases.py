"""The page's engine, asked in Node: the shared cases by which it is held to the Python it is a port of."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

WEB = Path(__file__).parents[1] / "web"
CASES = WEB / "build" / "cases.mjs"


def need_built() -> None:
    """Skip the test where the page is not built, or Node is missing."""
    if not CASES.is_file() or shutil.which("node") is None:
        pytest.skip("the page of exported models is not built here; run `make page`")


def ask(
    cases: Sequence[tuple[str, Any]], *, timeout_s: float | None = None
) -> list[dict[str, Any]]:
    """Return what the engine answers to (name, argument): {"result": …} or {"error": …, "kind": …}."""
    need_built()
    text = "\n".join(json.dumps(case, allow_nan=False) for case in cases)
    done = subprocess.run(
        ["node", str(CASES)],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        timeout=timeout_s,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def results(cases: Sequence[tuple[str, Any]]) -> list[Any]:
    """Return the results of cases that are no errors."""
    answers = ask(cases)
    assert [one for one in answers if "result" not in one] == []
    return [one["result"] for one in answers]
