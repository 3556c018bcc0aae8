"""What the harness must notice: a test that cannot fail shows nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz.child import run_case
from fuzz.mutate.code import CODE, CODE_RAN
from fuzz.outcome import Kind
from fuzz.seeds import Seeds
from fuzz.targets import Case, Target
from simmat.errors import DataError, PluginError


def _refuse() -> None:
    raise DataError("file: not an image; give another")


def _fail() -> None:
    raise KeyError("unit")


def _blame_the_plugin() -> None:
    raise PluginError("this is a fault in the sensor's plugin")


def _promise_broken() -> None:
    assert not os.sep, "a mask of float32"


def _leave_something() -> None:
    Path("../tmp/left").touch()


def _run_code() -> None:
    subprocess.run(CODE.split(), check=True)
    _refuse()


def _take_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda: None, "value"),
        (_refuse, "refused"),
        (_fail, "exception"),
        (_blame_the_plugin, "exception"),
        (_promise_broken, "wrong value"),
        (_leave_something, "leftovers"),
        (_run_code, "code run"),
        (_take_memory, "memory"),
    ],
)
def test_an_outcome_is_distinguished_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[], None], kind: Kind
) -> None:
    """Only a value that holds its promises and a SimMATError are allowed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    target = Target("probe", lambda place, rng: Case(read))
    outcome = run_case(target, 0, 0, Seeds(tmp_path / "seeds"), tmp_path / "work")
    assert outcome.kind == kind
    assert outcome.failed == (kind not in ("value", "refused"))
    assert (tmp_path / "work" / "cwd" / CODE_RAN).exists() == (kind == "code run")


_HARNESS = """
import os, sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
import fuzz.child, fuzz.runner
from fuzz.runner import Block, Runner
from fuzz.seeds import Seeds
from fuzz.targets import TARGETS, Case, Target

fuzz.child.CPU_SECONDS = 0.3
fuzz.runner.CLOCK_SECONDS = 1

def busy():
    while True:
        pass

READ = {{1: lambda: os.kill(os.getpid(), 11), 3: busy, 5: lambda: time.sleep(60)}}
TARGETS["probe"] = Target("probe", lambda place, rng: Case(READ.get(next(numbers), lambda: None)))
numbers = iter(())

def counted(target, seed, number, *rest, **named):
    global numbers
    numbers = iter([number])
    return fuzz.child.run_case(target, seed, number, *rest, **named)

fuzz.runner.run_case = counted
for _, outcome in Runner(Seeds(Path("seeds"))).run([Block("probe", 0, tuple(range(7)))]):
    print(outcome.number, outcome.kind)
"""


@pytest.mark.slow
def test_a_child_that_dies_or_hangs_is_replaced(tmp_path: Path) -> None:
    """One file that ends the process must not hide what the next ones do."""
    script = _HARNESS.format(tests=str(Path(__file__).parents[1]))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=True)
    found = dict(line.split() for line in ended.stdout.splitlines())
    assert found == {"0": "value", "1": "crash", "2": "value", "3": "time", "4": "value", "5": "time", "6": "value"}


@pytest.mark.slow
def test_a_time_budget_ends_a_run_and_the_next_call_continues(tmp_path: Path) -> None:
    """A job with so many minutes left must stop by then, and lose nothing of what it did."""
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "png", "--folder", str(tmp_path)]
    first = subprocess.run(
        [*command, "--cases", "100000", "--seconds", "1"], capture_output=True, text=True, check=False
    )
    assert first.returncode == 0, first.stdout
    done = int(first.stdout.splitlines()[-1].split()[0])
    assert 0 < done < 100_000
    second = subprocess.run([*command, "--cases", str(done + 50)], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stdout
    assert int(second.stdout.splitlines()[-1].split()[0]) == 50


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_gives_its_counts(tmp_path: Path, number: signal.Signals) -> None:
    """Whoever stops it wants to know how far it came, and the next call must not do it again."""
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "npy", "--folder", str(tmp_path)]
    process = subprocess.Popen([*command, "--cases", "100000"], stdout=subprocess.PIPE, text=True)
    journal = tmp_path / "seed-0" / "npy.jsonl"
    while process.poll() is None and not journal.exists():
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate()
    assert "the same command continues" in said
    assert int(said.splitlines()[-1].split()[0]) == sum(
        1 + line["passed"][1] - line["passed"][0] for line in _lines(journal)
    )


def _lines(journal: Path) -> list[dict[str, list[int]]]:
    return [json.loads(line) for line in journal.read_text().splitlines()]
