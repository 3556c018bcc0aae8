"""Where the cells of a bench run: here, or on the workers of a dask scheduler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_set import TINY, bench_of
from runs import gray_set
from simmat_plugin_bench.run import (
    _STOP_REQUESTS,
    KILL,
    STOP,
    Devices,
    Runner,
    Workers,
    find_devices,
    request_stop,
    run_cell,
    workers_for,
)

from simmat.errors import ConfigError

SET = '[[data]]\nname = "discs"\nmodality = "gray"\ndata = "set"\n'
ARM = '[[arm]]\nname = "x"\n'


def test_each_gpu_gets_a_cell_and_no_other_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells on one of two GPUs would leave the other idle."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = find_devices(None, {})
    assert devices.jobs == 2
    assert [devices.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["0", "1"]
    more = find_devices(3, {})
    assert [more.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["0", "1", "0"]


def test_only_visible_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared machine the others belong to somebody else; torch counts the visible ones from 0."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    devices = find_devices(None, {"CUDA_VISIBLE_DEVICES": "5,GPU-7"})
    assert [devices.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(2)] == ["5", "GPU-7"]


def test_cores_are_divided_unless_their_number_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cells of eight threads each on eight cores are slower than four of two."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr("simmat_plugin_bench.run.usable_cpus", lambda: 8)
    assert find_devices(4, {}).environment(0)["OMP_NUM_THREADS"] == "2"
    assert find_devices(None, {}).jobs == 1
    assert "OMP_NUM_THREADS" not in find_devices(4, {"OMP_NUM_THREADS": "1"}).environment(0)


class Broken(Executor):
    """Fails the cells of some names, and cancels those of others; what it is given never runs."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def submit(self, function: Any, root: str, *args: Any, **named: Any) -> Future[int]:  # type: ignore[override]
        future: Future[int] = Future()
        self.given.append(Path(root).name)
        if len(self.given) % 2:
            future.set_exception(OSError("the worker was lost"))
        else:
            future.cancel()
            future.set_running_or_notify_cancel()
        return future


def test_what_an_executor_raises_fails_that_cell_alone(tmp_path: Path) -> None:
    """A worker that is lost must not cost the night, and the cell says why it failed."""
    bench = bench_of(tmp_path, TINY + SET + ARM)
    failures: list[str] = []
    executor = Broken()
    runner = Runner(bench, Workers(executor, Devices(1)), lambda job, seconds, failure: failures.append(failure))
    runner.run()
    assert len(executor.given) == len(runner.failed) == len(bench.cells) > 1
    assert "the worker was lost" in failures[0]
    assert {cell.state() for cell in bench.cells} == {"failed"}
    assert not (bench.out / ".stop").exists()


TRAPS = {"saves": "trap 'exit 130' TERM", "hangs": "trap '' TERM"}


@pytest.mark.parametrize(
    ("cell", "wishes", "code", "disk"),
    [
        ("saves", [STOP], 130, "usual"),
        ("saves", [STOP], 130, "full"),
        ("saves", [STOP], 130, "another machine's"),
        ("hangs", [STOP, KILL], -signal.SIGKILL, "usual"),
    ],
)
def test_a_running_cell_ends_when_it_is_asked_to(
    cell: str, wishes: list[str], code: int, disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C lets it save; one that hangs is killed; a full disk, where nothing can be written, keeps none alive."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{TRAPS[cell]}\necho ready\nwhile :; do sleep 0.05; done\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    stop = Path("/dev/null/stop") if disk == "full" else tmp_path / "stop"
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_cell, str(tmp_path), str(stop), {}, test=False)
        while not (tmp_path / "log.txt").is_file() or "ready" not in (tmp_path / "log.txt").read_text():
            time.sleep(0.01)
        for wish in wishes:
            if disk == "another machine's":
                stop.write_text(wish)
            else:
                request_stop(stop, wish)
            time.sleep(0.5 if len(wishes) > 1 else 0)
        assert future.result(timeout=60) == code
    _STOP_REQUESTS.clear()


@pytest.mark.parametrize("where", ["dask", "tcp://", "tcp://host", "tcp://host:x", "http://host:1", "tcp://host:1/x"])
def test_an_unknown_executor_is_refused(where: str) -> None:
    """A slip must not run the bench here, on a laptop."""
    with pytest.raises(ConfigError) as refused, workers_for(where, None):
        pass
    assert repr(where) in str(refused.value)
    assert "tcp://HOST:PORT" in str(refused.value)


def test_a_missing_dask_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: most run their cells here."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigError, match=r"simmat-plugin-bench\[dask\]"), workers_for("tcp://127.0.0.1:9", None):
        pass


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong port, or a scheduler nobody started: a sentence in seconds, not a traceback."""
    pytest.importorskip("distributed")
    monkeypatch.setattr("simmat.executors._CONNECT_SECONDS", 0.2)
    with pytest.raises(ConfigError, match=r"tcp://127.0.0.1:9.*dask scheduler"), workers_for("tcp://127.0.0.1:9", None):
        pass


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers of one thread each."""
    pytest.importorskip("distributed")
    folder = tmp_path_factory.mktemp("dask")
    env = {**os.environ, "DASK_DISTRIBUTED__WORKER__USE_FILE_LOCKING": "false"}

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{words[0]}", *words[1:], "--no-dashboard"]
        log = (folder / f"{words[0]}.log").open("wb")
        return subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)

    file = folder / "scheduler.json"
    running = [start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(file))]
    until = time.monotonic() + 120
    while not file.is_file() or not file.read_text().endswith("}"):
        assert time.monotonic() < until, (folder / "scheduler.log").read_text()
        time.sleep(0.1)
    address = str(json.loads(file.read_text())["address"])
    running.append(start("worker", address, "--host", "127.0.0.1", "--nworkers", "2", "--nthreads", "1"))
    yield address
    for process in reversed(running):
        process.terminate()
        process.wait(60)


def run_bench(folder: Path, toml: str, address: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    if not (folder / "set").is_dir():
        gray_set(folder / "set", train=3)
    (folder / "bench.toml").write_text(toml, encoding="utf-8")
    command = [sys.executable, "-P", "-m", "simmat", "bench", "bench.toml", "--out", "out", "--executor", address]
    env = {**os.environ, "SIMMAT_PLUGINS": "bench,sam", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_dask_s_workers_run_the_cells(scheduler: str, tmp_path: Path) -> None:
    """One command on many machines: all cells of the grid, the table at the end, a failure recorded."""
    with workers_for(scheduler, None) as workers:
        workers.client.wait_for_workers(2, timeout=120)
        assert sorted(workers.client.nthreads().values()) == [1, 1]
    toml = "seeds = [0, 1]\nscratch_lr = 1e-3\n" + TINY + SET + ARM + '[[arm]]\nname = "few"\ntrain_images = 99\n'
    process = run_bench(tmp_path / "b", toml, scheduler)
    out, err = process.communicate(timeout=560)
    assert process.returncode == 1, err
    assert "--train-images 99" in err
    assert len(list((tmp_path / "b/out/cells").glob("*/*/x/*/result.json"))) == 2
    assert "| x | 0." in (tmp_path / "b/out/table.md").read_text()
    assert "x/seed-1: validation mIoU" in out


@pytest.mark.slow
def test_a_stopped_bench_ends_its_cells_on_dask_s_workers(scheduler: str, tmp_path: Path) -> None:
    """Ctrl-C must not leave a training on another machine that nobody sees."""
    process = run_bench(tmp_path / "b", TINY.replace("steps = 2", "steps = 10000") + SET + ARM, scheduler)
    until = time.monotonic() + 300
    while not any(log.read_text() for log in (tmp_path / "b/out").rglob("metrics.jsonl")):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "same command" in err
    assert any("the state is saved" in log.read_text() for log in (tmp_path / "b/out").rglob("log.txt"))
    assert not (tmp_path / "b/out/.stop").exists()


@pytest.mark.slow
def test_a_worker_that_does_not_see_the_folder_is_named(scheduler: str, tmp_path: Path) -> None:
    """Every cell would fail by itself, with a message about a file."""
    with workers_for(scheduler, None) as workers, pytest.raises(ConfigError) as refused:
        workers.check_folder(tmp_path / "elsewhere")
    assert str(tmp_path / "elsewhere") in str(refused.value)
    assert "share" in str(refused.value)
