"""Settings of hypothesis, and the process that runs damaged files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fuzz.outcome import Outcome
from fuzz.values import EXAMPLES

RunCases = Callable[[str, int, int], list[Outcome]]

settings.register_profile(
    "simmat",
    max_examples=EXAMPLES,
    derandomize=not os.environ.get("FUZZ_EXAMPLES"),
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("simmat")


@pytest.fixture(scope="session")
def run_cases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunCases]:
    """Return the function that runs the first cases of a target: (target, seed, cases) -> outcomes."""
    base = tmp_path_factory.getbasetemp()
    seeds = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fuzz-seeds"  # one for all of xdist
    serve = Path(__file__).with_name("serve.py")
    process = subprocess.Popen(
        [sys.executable, str(serve), str(seeds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def run(target: str, seed: int, cases: int) -> list[Outcome]:
        requests.write(json.dumps({"target": target, "seed": seed, "cases": cases}) + "\n")
        requests.flush()
        return [Outcome(**outcome) for outcome in json.loads(answers.readline())]

    yield run
    requests.close()
    process.wait()
