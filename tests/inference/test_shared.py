"""`simmat predict` shared by processes and machines writes what one process writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from launched import TWO_PROCESSES, run_python

from simmat.errors import ConfigError
from simmat.inference.shared import check_workers, dask_client
from simmat.io.images import write_image

pytestmark = pytest.mark.slow

Scheduler = tuple[str, list[subprocess.Popen[bytes]]]
"""Address and workers."""
FIND = ("--everything", "--semantic", "--min-score", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def place(dense_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bundle of both heads, a folder of five images with a bad one among them, and a large image."""
    root = tmp_path_factory.mktemp("shared")
    (root / "run").mkdir()
    shutil.copy(dense_bundle, root / "run/bundle.safetensors")
    (root / "images").mkdir()
    for number in range(5):
        _scene(root / f"images/{number}.tif", (40, 60), number)
    (root / "images/bad.tif").write_bytes(b"II*\0 half")
    _scene(root / "large.tif", (150, 180), 9)
    _predict(root, "images", "one", fails=True)
    _predict(root, "large.tif", "large")
    return root


def _scene(path: Path, size_hw: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    planes = rng.integers(0, 50, (1, *size_hw)).astype(np.uint8)
    for y, x in rng.integers(0, 28, (6, 2)) * [size_hw[0] // 40, size_hw[1] // 40]:
        planes[0, y : y + 12, x : x + 12] += 120
    write_image(path, planes)


def _predict(
    root: Path,
    images: str,
    out: str,
    *options: str,
    fails: bool = False,
    start: tuple[str, ...] = (),
) -> str:
    """Call it on images, and return what a call said that fails."""
    call = [
        "-m",
        "simmat",
        "predict",
        str(root / "run"),
        str(root / images),
        *(options or FIND),
        "--out",
        str(root / out),
    ]
    if not fails:
        return run_python([*start, *call]).stderr
    with pytest.raises(AssertionError) as failed:
        run_python([*start, *call])
    return str(failed.value)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_two_processes_share_a_folder(place: Path) -> None:
    """The same files to the byte; a bad image is reported by one of them, at once and at the end."""
    said = _predict(place, "images", "two", fails=True, start=tuple(TWO_PROCESSES))
    assert said.count("bad.tif: damaged") == 2
    assert said.count("1 of 6 images failed") == 1
    assert _files(place / "two") == _files(place / "one")
    assert len(json.loads((place / "two/coco.json").read_text())["images"]) == 5


def test_two_processes_share_the_windows_of_an_image(place: Path) -> None:
    """Neither removes what the other keeps, and the result has no trace of who did what."""
    _predict(place, "large.tif", "large2", start=tuple(TWO_PROCESSES))
    assert _files(place / "large2") == _files(place / "large")
    assert json.loads((place / "large/large.json").read_text())["windows"]["count"] > 4


@pytest.fixture(scope="module")
def scheduler(place: Path) -> Iterator[Scheduler]:
    """The address of a dask scheduler, and its two workers, whose working folder is another one."""
    pytest.importorskip("distributed")
    folder = place / "dask"
    folder.mkdir()
    env = {
        **os.environ,
        "DASK_DISTRIBUTED__WORKER__USE_FILE_LOCKING": "false",
        "SIMMAT_PLUGINS": "testing",
        "OMP_NUM_THREADS": "1",
    }

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            f"distributed.cli.dask_{words[0]}",
            *words[1:],
            "--no-dashboard",
        ]
        log = (folder / "log").open("ab")
        return subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)

    file = folder / "scheduler.json"
    running = [
        start(
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--scheduler-file",
            str(file),
        )
    ]
    until = time.monotonic() + 120
    while not file.is_file() or not file.read_text().endswith("}"):
        assert time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.1)
    address = str(json.loads(file.read_text())["address"])
    workers = [
        start("worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")
        for _ in range(2)
    ]
    with dask_client(address) as client:
        client.wait_for_workers(2, timeout=120)
    yield address, workers
    for process in [*workers, *running]:
        process.terminate()
        process.wait(60)


def test_workers_of_dask_share_a_folder(place: Path, scheduler: Scheduler) -> None:
    """The same files to the byte, and the bad image in the caller's message."""
    said = _predict(
        place, "images", "dask-folder", *FIND, "--executor", scheduler[0], fails=True
    )
    assert "1 of 6 images failed" in said
    assert "bad.tif: damaged" in said
    assert _files(place / "dask-folder") == _files(place / "one")


def test_paths_of_the_caller_mean_the_same_to_workers(
    place: Path, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has a working folder of its own."""
    monkeypatch.chdir(place)
    run_python(
        [
            "-m",
            "simmat",
            "predict",
            "run",
            "large.tif",
            *FIND,
            "--out",
            "relative",
            "--executor",
            scheduler[0],
        ]
    )
    one, two = _files(place / "large"), _files(place / "relative")
    # it holds paths
    assert [name for name in one if one[name] != two[name]] == ["large.json"]


def test_workers_that_do_not_see_a_file_are_named(
    place: Path, scheduler: Scheduler
) -> None:
    """Every image would fail by itself, with a message about a file that is there."""
    with (
        dask_client(scheduler[0]) as client,
        pytest.raises(ConfigError, match="share") as refused,
    ):
        check_workers(client, [place, place / "elsewhere"])
    assert str(place / "elsewhere") in str(refused.value)


def _holds_windows(folder: Path) -> bool:
    """Whether a window is done; temporary folders may vanish while it is looked for."""
    with suppress(FileNotFoundError):
        return any(folder.rglob("*.npz"))
    return False


def test_a_worker_that_dies_costs_nothing_but_time(
    place: Path, scheduler: Scheduler
) -> None:
    """Machines of others are switched off."""
    address, workers = scheduler
    command = [
        "-m",
        "simmat",
        "predict",
        str(place / "run"),
        str(place / "large.tif"),
        *FIND,
        "--executor",
        address,
    ]
    call = [sys.executable, *command, "--out", str(place / "died")]
    env = {**os.environ, "SIMMAT_PLUGINS": "testing", "OMP_NUM_THREADS": "1"}
    (place / "died").mkdir()
    with subprocess.Popen(call, env=env, stderr=subprocess.PIPE, text=True) as process:
        until = time.monotonic() + 120
        while not _holds_windows(place / "died"):
            assert time.monotonic() < until
            assert process.poll() is None
            time.sleep(0.02)
        workers[0].kill()
        _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert _files(place / "died") == _files(place / "large")
