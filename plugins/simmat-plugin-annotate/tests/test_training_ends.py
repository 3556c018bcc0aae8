"""A training always comes to an end: with an error, with the user's word, and with the server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from simmat.errors import DataError, OutputError

MODEL: Any = SimpleNamespace(path=None)


def training(root: Path, adopt: Any = None) -> Any:
    from simmat_plugin_annotate.training import Training

    return Training(root, list, lambda: None, adopt)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def ended(pid: int, seconds: float = 8.0) -> bool:
    end = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(pid)


def test_a_command_ends_when_the_server_is_killed(tmp_path: Path) -> None:
    """Else it holds the GPU, and the next server starts a second one; the pipe on its stdin closes then."""
    code = "import runpy, time; runpy.run_module = lambda *a, **k: time.sleep(50)\n"
    code += (
        "from simmat_plugin_annotate.child import main; print('up', flush=True); main()"
    )
    server = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', {code!r}], stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(child.pid, flush=True); time.sleep(50)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", server], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = {process.stdout.readline().strip(), process.stdout.readline().strip()}
    pid = int((lines - {"up"}).pop())
    assert is_running(pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ended(pid)


async def finished(one: Any) -> None:
    """Wait until a training has ended."""
    while one.state == "running":
        await asyncio.sleep(0.01)


def test_stop_ends_the_command_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By closing its stdin, as no signal lets it save on every system."""
    (tmp_path / "waits.py").write_text(
        "import os, sys; print('up', flush=True); sys.exit(7 + len(os.read(0, 1)))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(
        "simmat_plugin_annotate.training.child", SimpleNamespace(__name__="waits")
    )
    one, log = training(tmp_path), tmp_path / "log.txt"
    one.run = tmp_path / "runs/annotate-001"

    async def runs() -> int:
        running = asyncio.create_task(one.run_simmat([], log))
        while not (log.exists() and log.read_text()):
            await asyncio.sleep(0.01)
        await one.stop()
        return await asyncio.wait_for(running, 60)

    assert asyncio.run(runs()) == 7


def test_models_are_compared_on_images_that_neither_was_trained_on() -> None:
    """A model from elsewhere may have seen some of the validation images; `simmat eval` leaves those out."""
    from simmat_plugin_annotate.training import compare_scores

    new = [
        {"sample": name, "region": 0, "iou": iou}
        for name, iou in (("a", 0.2), ("b", 0.4), ("c", 0.6))
    ]
    old = [{"sample": name, "region": 0, "iou": 0.5} for name in "bc"]
    assert compare_scores(new, old) == (pytest.approx(0.5), pytest.approx(0.5), 2)
    assert compare_scores(new, None) == (pytest.approx(0.4), None, 0)
    assert compare_scores(new, [{**old[0], "sample": "d"}]) == (
        pytest.approx(0.4),
        None,
        0,
    )


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no priorities of processes here")
def test_a_second_training_may_continue_from_the_model_in_use() -> None:
    """More labels or more steps must not begin at the untuned model again, nor at another image size."""
    from simmat_plugin_annotate.requests import TrainBody

    body = TrainBody(image_size=64, recipe="continue")
    assert body.arguments(Path("runs/annotate-001")) == ["--init", "runs/annotate-001"]
    with pytest.raises(DataError, match="not tuned"):
        body.arguments(None)
    assert "--init" not in TrainBody(image_size=64).arguments(Path("runs/annotate-001"))


def test_any_error_ends_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as no memory for the new model: else it would stay "running", and none could be started any more."""

    async def adopt(bundle: Path) -> None:
        raise RuntimeError("CUDA out of memory")

    async def runs() -> Any:
        one = training(tmp_path, adopt)

        async def simmat(command: Any, log: Any) -> int:
            if command[0] == "eval":
                out = Path(command[command.index("--out") + 1])
                out.parent.mkdir(exist_ok=True)
                out.write_text(
                    '{"scores": [{"sample": "a", "region": 0, "iou": 0.9}], "zero_shot_scores": null}'
                )
            return 0

        monkeypatch.setattr(one, "run_simmat", simmat)
        await one.start(None, 3, MODEL)
        await finished(one)
        return one

    one = asyncio.run(runs())
    assert (one.state, one.message) == ("failed", "CUDA out of memory")


def test_a_training_that_is_stopped_while_it_is_scored_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not failed; and what comes after the stop is not begun."""

    async def runs() -> Any:
        one = training(tmp_path)
        begun: list[str] = []
        stopping: list[asyncio.Task[None]] = []
        real = one.run_simmat

        async def simmat(command: Any, log: Any) -> int:
            begun.append(command[0])
            if command[0] == "train":
                return 0
            stopping.append(asyncio.create_task(one.stop()))
            await asyncio.sleep(0)  # the stop begins, and waits for this task
            return int(await real(command, log))

        monkeypatch.setattr(one, "run_simmat", simmat)
        await one.start(None, 3, MODEL)
        await finished(one)
        return one, begun

    one, begun = asyncio.run(runs())
    assert (one.state, begun) == ("stopped", ["train", "eval"])


def test_the_time_left_counts_steps_alone_and_warnings_stay(tmp_path: Path) -> None:
    """Start and first validation may take longer than all steps; the log's last lines are soon those of steps."""
    one = training(tmp_path)
    one.run, one.state, one.steps = tmp_path / "runs/annotate-001", "running", 4
    one.run.mkdir(parents=True)
    log, metrics = one.run.with_suffix(".log"), one.run / "metrics.jsonl"
    log.write_text("Warning: 3 images are shrunk; use a larger --image-size\nstep 1\n")
    metrics.write_text('{"kind": "train", "step": 1}\n')
    one.read_metrics()
    assert one.document()["left_s"] is None
    time.sleep(0.1)
    log.write_text("step\n" * 100)
    metrics.write_text(metrics.read_text() + '{"kind": "train", "step": 2}\n')
    one.read_metrics()
    document = one.document()
    assert 0.2 <= document["left_s"] < 1000
    assert ["--image-size" in line for line in document["warnings"]] == [True]


def test_the_curve_of_a_training_is_read_from_its_metrics(tmp_path: Path) -> None:
    """Losses as means of a few steps, so that a long training is no larger message than a short one."""
    one = training(tmp_path)
    one.run, one.steps = tmp_path / "runs/annotate-001", 1000
    one.run.mkdir(parents=True)
    records = [{"kind": "val", "step": 0, "miou_object": 0.25}]
    records += [
        {"kind": "train", "step": step, "loss": float(step)} for step in range(1, 1001)
    ]
    (one.run / "metrics.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records)
    )
    one.read_metrics()
    document = one.document()
    assert document["scores"] == ((0, 0.25),)
    assert (
        len(document["losses"]) <= 120,
        document["losses"][0],
        document["losses"][-1][0],
    ) == (True, (9, 5.0), 1000)


def test_only_new_lines_of_the_metrics_are_read(tmp_path: Path) -> None:
    """The page asks every second; a million lines were read again each time."""
    one = training(tmp_path)
    one.run, one.steps = tmp_path / "runs/annotate-001", 1000
    one.run.mkdir(parents=True)
    metrics = one.run / "metrics.jsonl"
    first = '{"kind": "train", "step": 1, "loss": 2.0}'
    metrics.write_text(f"{first}\n")
    one.read_metrics()
    unreadable = "x" * len(first)
    metrics.write_text(
        f"{unreadable}\n"
        '{"kind": "train", "step": 2, "loss": 1.0}\n'
        '{"kind": "val", "step": 2, "miou_object": 0.5}\n'
    )
    one.read_metrics()
    document = one.document()
    assert document["losses"] == ((1, 2.0), (2, 1.0))
    assert document["scores"] == ((2, 0.5),)


def test_a_new_run_has_no_name_that_a_link_takes(tmp_path: Path) -> None:
    """In a folder of a stranger it would lead the run, or its log, elsewhere."""
    from simmat_plugin_annotate.training import new_run

    (tmp_path / "runs").mkdir()
    for name in ("annotate-001", "annotate-002.log", "annotate-003.eval.json"):
        (tmp_path / "runs" / name).symlink_to("../../gone")
    assert new_run(tmp_path).name == "annotate-004"


def test_the_log_of_a_training_is_not_written_through_a_link(tmp_path: Path) -> None:
    """A stranger's folder may hold one in its place."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "set/runs").mkdir(parents=True)
    log = tmp_path / "set/runs/1.log"
    log.symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="leads out of"):
        asyncio.run(training(tmp_path / "set").run_simmat(["doctor"], log))
    assert (tmp_path / "precious").read_text() == "mine"


def test_a_stop_is_said_at_once_and_leaves_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was said for up to nine seconds, and the bundle of 20 MB stayed though nothing uses it."""
    shown: list[tuple[str, bool]] = []
    one = training(tmp_path)
    one.changed = lambda: shown.append((one.state, one.document()["stopping"]))

    async def runs() -> None:
        ended = asyncio.Event()

        async def simmat(command: Any, log: Path) -> int:
            one.run.mkdir(parents=True)
            (one.run / "bundle.safetensors").write_bytes(b"0" * 1000)
            log.write_text("some lines")
            await ended.wait()
            return -int(signal.SIGTERM)

        monkeypatch.setattr(one, "run_simmat", simmat)
        await one.start(None, 3, MODEL)
        while not (one.run / "bundle.safetensors").exists():
            await asyncio.sleep(0.01)
        stopping = asyncio.create_task(one.stop())
        await asyncio.sleep(0)
        assert shown[-1] == ("running", True)
        ended.set()
        await stopping

    asyncio.run(runs())
    assert shown[-1] == ("stopped", False)
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_stop_removes_nothing_that_a_link_leads_to(tmp_path: Path) -> None:
    """A folder of a stranger may have a link where the run was."""
    from simmat_plugin_annotate.training import _remove_run

    other = tmp_path / "other"
    other.mkdir()
    (other / "kept").write_text("kept")
    root = tmp_path / "set"
    (root / "runs").mkdir(parents=True)
    (root / "runs/one").symlink_to(other)
    _remove_run(root, root / "runs/one")
    (root / "linked").symlink_to(tmp_path)
    _remove_run(root, root / "linked/other")
    assert (other / "kept").exists()


def test_the_steps_are_those_that_the_run_takes(tmp_path: Path) -> None:
    """The page said 130 where 122 ran: those that train are fewer than those that are labelled."""
    one = training(tmp_path)
    one.run, one.state, one.steps = tmp_path / "runs/annotate-001", "running", 130
    one.read_metrics()
    assert one.document()["steps"] == 130
    one.run.mkdir(parents=True)
    (one.run / "config.toml").write_text("steps = 122\n")
    one.read_metrics()
    assert one.document()["steps"] == 122
    assert "before the first step" in one.document()["message"]
    (one.run / "metrics.jsonl").write_text('{"step": 0, "miou_object": 0.25}\n')
    one.read_metrics()
    one.read_metrics()
    assert one.document()["message"] == "the first step"


def test_the_pace_is_that_of_the_last_finished_training(tmp_path: Path) -> None:
    """It says how long the next one takes."""
    from simmat_plugin_annotate.training import last_pace

    assert last_pace(tmp_path) is None
    for name, seconds in (("annotate-001", 50), ("annotate-002", 100)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "config.toml").write_text("image_size = 128\n")
        report = {"seconds": seconds, "steps": 50}
        (run / "report.json").write_text(json.dumps(report))
    (tmp_path / "runs/annotate-003").mkdir()
    (tmp_path / "runs/annotate-003/report.json").write_text("[]")
    assert last_pace(tmp_path) == {"step_s": 2.0, "image_size": 128}
