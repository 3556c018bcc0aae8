"""The processes that the cells of a bench run in: their devices, their failures, their end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_set import TINY, bench_of
from simmat_plugin_bench import run
from simmat_plugin_bench.run import Runner, process_slots

from simmat.threads import usable_cpus

TOML = (
    TINY
    + '[[data]]\nname = "discs"\nmodality = "gray"\ndata = "set"\n[[arm]]\nname = "x"\n'
)


def test_each_gpu_gets_a_cell_and_no_other_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells on one of two GPUs would leave the other idle."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert process_slots(None) == [{"CUDA_VISIBLE_DEVICES": number} for number in "01"]
    assert process_slots(3) == [{"CUDA_VISIBLE_DEVICES": number} for number in "010"]


def test_cores_are_divided_unless_their_number_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four cells of eight threads each on eight cores are slower than four of two."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(run, "usable_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert process_slots(4) == [{"OMP_NUM_THREADS": "2"}] * 4
    assert len(process_slots(None)) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", str(usable_cpus() + 1))
    assert process_slots(4) == [{}] * 4


def test_a_process_that_cannot_start_fails_that_cell_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at night must not cost the others, and the cell says why it failed."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run.subprocess, "Popen", full)
    bench = bench_of(tmp_path, TOML)
    failures: list[str] = []
    runner = Runner(bench, [{}], lambda job, seconds, failure: failures.append(failure))
    runner.run()
    assert len(failures) == len(runner.failed) == len(bench.cells) > 1
    assert "No space left" in failures[0]
    assert {cell.state() for cell in bench.cells} == {"failed"}


COMMANDS = {
    "saves": "cat > /dev/null; exit 130",
    "hangs": "while :; do sleep 0.05; done",
}


@pytest.mark.parametrize("cell", COMMANDS)
def test_running_cells_end_when_the_bench_is_stopped(
    cell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C lets them save; one that hangs is killed; neither has failed."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho ready\n{COMMANDS[cell]}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(run, "GRACE_SECONDS", 60 if cell == "saves" else 0.5)
    bench = bench_of(tmp_path, TOML)
    failures: list[str] = []
    runner = Runner(
        bench, [{}, {}], lambda job, seconds, failure: failures.append(failure)
    )
    thread = threading.Thread(target=runner.run)
    thread.start()
    while sum("ready" in log.read_text() for log in bench.out.rglob("log.txt")) < 2:
        time.sleep(0.01)
    started = [one.process for one in runner.running]
    runner.stopped = True
    thread.join(30)
    assert not thread.is_alive()
    assert failures == ["", ""]
    assert {process.returncode for process in started} == {
        130 if cell == "saves" else -signal.SIGKILL
    }


def test_only_visible_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared machine the others belong to somebody else; torch counts the visible ones from 0."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-7")
    found = process_slots(None)
    assert found == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "GPU-7"}]
