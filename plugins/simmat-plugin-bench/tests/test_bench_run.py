"""A bench that really runs: processes, kills, failures."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from bench_set import TINY
from runs import gray_set

pytestmark = pytest.mark.slow

RUN = "seeds = [0]\nlr = [1e-3, 1e-4]\nscratch_lr = 1e-3\n" + TINY
ARMS = '[[data]]\nname = "discs"\nmodality = "gray"\ndata = "set"\n[[arm]]\nname = "x"\ntune = "lora"\n'
SCORED = r"\| x \|( [^|]+ \|){3} 0\."
"""The row of the arm x: its layer, tuner and rate, then the score."""
NOT_THE_SAME = {"seconds", "test_seconds", "peak_memory_bytes"}


def bench(
    folder: Path, *options: str, plugins: str = "testing,bench"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-P",
            "-m",
            "simmat",
            "bench",
            "bench.toml",
            "--out",
            "out",
            *options,
        ],
        cwd=folder,
        env={**environment(), "SIMMAT_PLUGINS": plugins},
        capture_output=True,
        text=True,
        check=False,
    )


def environment() -> dict[str, str]:
    return {**os.environ, "SIMMAT_PLUGINS": "testing,bench,sam", "OMP_NUM_THREADS": "1"}


def prepared(folder: Path, toml: str = RUN + ARMS) -> Path:
    folder.mkdir(exist_ok=True)
    gray_set(folder / "set", train=3)
    (folder / "bench.toml").write_text(toml, encoding="utf-8")
    return folder


def results(folder: Path) -> dict[str, dict[str, Any]]:
    """Cell -> its result without what no two runs have in common."""
    found = {}
    for path in sorted((folder / "out" / "cells").rglob("result.json")):
        values = json.loads(path.read_text(encoding="utf-8"))
        # where the set lies is another matter
        values["data"] = values["data"]["fingerprint"]
        name = str(path.parent.relative_to(folder / "out" / "cells"))
        found[name] = {
            key: value for key, value in values.items() if key not in NOT_THE_SAME
        }
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = prepared(tmp_path_factory.mktemp("whole"))
    done = bench(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_grid_runs_to_its_table(whole: Path) -> None:
    """One command from a TOML to the table, the plots and the page."""
    assert {path.name for path in (whole / "out").iterdir()} >= {
        "table.md",
        "table.tex",
        "table.csv",
        "index.html",
        "plots",
    }
    table = (whole / "out" / "table.md").read_text()
    assert re.search(SCORED, table)


def test_the_test_split_is_read_for_the_chosen_rate_alone(whole: Path) -> None:
    """The rate is the best on validation, and no other has a test score to be tempted by."""
    tried = {name: result for name, result in results(whole).items() if "/x/" in name}
    assert len(tried) == 2
    best = max(tried, key=lambda name: tried[name]["val"]["miou_object"])
    assert {name: result["test"] is not None for name, result in tried.items()} == {
        name: name == best for name in tried
    }


def test_a_test_score_is_the_mean_of_the_ious_beside_it(whole: Path) -> None:
    """They are what differences between arms are paired by."""
    for result in results(whole).values():
        if result["test"] is not None:
            ious = [iou for sample in result["test_ious"].values() for iou in sample]
            assert len(result["test_ious"]) == result["test"]["images"]
            assert fmean(ious) == pytest.approx(result["test"]["miou_object"])


def test_a_killed_bench_is_resumed_to_the_same_results(
    whole: Path, tmp_path: Path
) -> None:
    """A power cut costs the step under way: what was done stays, the result is that of a bench never killed."""
    folder = prepared(tmp_path / "killed")
    command = [sys.executable, "-m", "simmat", "bench", "bench.toml", "--out", "out"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL
    )
    until = time.monotonic() + 300
    while not (
        len(results(folder)) == 1
        and len(list((folder / "out").rglob("metrics.jsonl"))) == 2
    ):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {
        path: path.stat().st_mtime_ns for path in (folder / "out").rglob("result.json")
    }
    assert bench(folder).returncode == 0
    assert results(folder) == results(whole)
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_a_stopped_bench_ends_its_processes_and_says_how_to_resume(
    tmp_path: Path,
) -> None:
    """Ctrl-C must not leave a training that nobody sees."""
    folder = prepared(
        tmp_path / "stopped", RUN.replace("steps = 2", "steps = 10000") + ARMS
    )
    command = [sys.executable, "-m", "simmat", "bench", "bench.toml", "--out", "out"]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 300
    while not any(log.read_text() for log in (folder / "out").rglob("metrics.jsonl")):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "same command" in said
    log = next((folder / "out").rglob("log.txt"))
    assert "the state is saved" in log.read_text()
    assert list((folder / "out").rglob("last.safetensors"))

    # Its data has moved meanwhile: what was begun goes on there.
    (folder / "set").rename(folder / "moved")
    toml = (folder / "bench.toml").read_text()
    (folder / "bench.toml").write_text(toml.replace('data = "set"', 'data = "moved"'))
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True
    )
    while (
        "going on" not in log.read_text()
        and process.poll() is None
        and log.read_text().count("from step") < 2
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 130
    assert "no such folder" not in log.read_text()


def test_the_untouched_model_is_scored_on_validation_and_test(tmp_path: Path) -> None:
    """The number that every gain is taken against; a file of the user's that is named as a module changes nothing."""
    if find_spec("simmat_plugin_lite") is None:
        pytest.skip(
            "needs simmat-plugin-lite, a small model that has a zero-shot score"
        )
    folder = prepared(tmp_path / "zero", (RUN + ARMS).replace("tiny", "lite"))
    (folder / "statistics.py").write_text("raise RuntimeError\n", encoding="utf-8")
    done = bench(folder, "--only", "zero-shot", plugins="testing,bench,lite")
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = results(folder).values()
    with (folder / "set/manifest.csv").open(encoding="utf-8") as file:
        splits = {row["id"]: row["split"] for row in csv.DictReader(file)}
    assert {splits[sample] for sample in result["test_ious"]} == {"test"}
    assert result["val"]["objects"] == result["test"]["objects"] > 0
    assert result["val"]["miou_object"] != result["test"]["miou_object"]
    assert (folder / "out/index.html").is_file()


def test_a_failure_stops_no_other_cell(tmp_path: Path) -> None:
    """One arm that cannot work must not cost the night."""
    folder = prepared(
        tmp_path / "failing",
        "scratch_lr = 1e-3\n"
        + TINY
        + ARMS
        + '[[arm]]\nname = "few"\ntrain_images = 99\n',
    )
    done = bench(folder, "--jobs", "2")
    assert done.returncode == 1
    assert "--train-images 99" in done.stderr
    table = (folder / "out" / "table.md").read_text()
    assert re.search(SCORED, table)
    assert "– | failed |" in table
