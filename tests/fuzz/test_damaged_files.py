"""Damaged files: a value that holds what it promises, or a SimMATError; never a traceback, a hang or a leftover."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fuzz.case import Case, Target, run_case
from fuzz.damage import CODE_RAN
from fuzz.probes import ENDINGS
from fuzz.run import BLOCK, Block, run_block, told
from fuzz.seeds import Seeds
from fuzz.targets import TARGETS


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fuzz-seeds"  # one for all of xdist


@pytest.mark.parametrize("name", TARGETS)
def test_a_damaged_file_is_read_or_refused(name: str, seeds: Path) -> None:
    """What a stranger sends must end in one clear error, within limits of time and memory."""
    if (missing := TARGETS[name].missing_module) is not None:
        pytest.skip(f"{missing} is not installed")
    block = Block(name, 0, 0)
    result = run_block(block, seeds)
    assert not result.problem, told(block, result.problem)
    assert result.kinds.total() > BLOCK // TARGETS[name].weight / 2
    blocks = (run_block(Block(name, 0, number), seeds) for number in range(1, TARGETS[name].weight))  # of few cases
    values = result.kinds["value"] or any(block.kinds["value"] for block in blocks)
    assert values, "all were refused: the seeds are not valid any more"


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_outcome_is_distinguished_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """Only a value that holds its promises and a SimMATError are allowed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    target = Target("probe", lambda place, rng: Case(ENDINGS[ending]))
    outcome = run_case(target, random.Random(0), Seeds(tmp_path / "seeds"), tmp_path / "work")
    assert ending.startswith(outcome.kind)
    assert outcome.failed == (ending not in ("value", "refused"))
    assert (tmp_path / "work" / "cwd" / CODE_RAN).exists() == (ending == "code run")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("exception", "exception"), ("crash", "crash"), ("hang", "time")])
def test_a_failure_is_shrunk_to_its_smallest_file(tmp_path: Path, name: str, kind: str) -> None:
    """A file that ends or blocks the process must be found as well as one that raises."""
    result = run_block(Block(f"probe-{name}", 0, 0), tmp_path, kept=tmp_path / "kept", clock_seconds=5)
    assert result.problem.startswith(kind)
    number = int((tmp_path / "kept" / f"probe-{name}-0-0" / "number.txt").read_text())
    assert 40 < number <= (1000 if name == "hang" else 256)  # what takes long is not shrunk


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_continues(tmp_path: Path, number: signal.Signals) -> None:
    """20,000 cases of each reader take hours: a call that is stopped, or whose time is over, loses no block."""
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "npy", "--folder", str(tmp_path)]
    process = subprocess.Popen([*command, "--cases", "100000"], stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "seed-0.json").exists():
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate()
    assert "the same command continues" in said
    done = int(said.splitlines()[-1].split()[0])
    second = subprocess.run([*command, "--cases", str(done + BLOCK)], capture_output=True, text=True, check=True)
    assert 0 < int(second.stdout.splitlines()[-1].split()[0]) <= BLOCK
    third = subprocess.run(
        [*command, "--cases", "100000", "--seconds", "0"], capture_output=True, text=True, check=True
    )
    assert third.stdout.splitlines()[-1].startswith("0 cases")
