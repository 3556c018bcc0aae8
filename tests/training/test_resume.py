"""A run that was killed and resumed gives the bits of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from runs import config, files_of, gray_set, registry, run_and_die

from simmat import training
from simmat.bundle import FILE_NAME
from simmat.config import TrainConfig
from simmat.errors import ConfigError, DataError, OutputError
from simmat.training.run_folder import RunFolder, load_state

CHANGES = {"lr": 1e-4, "tune": "full", "loss": "bce", "seed": 1}
POINTS = [
    ("bundle written, not renamed", 2),
    *(
        pytest.param(*point, marks=pytest.mark.slow)
        for point in (
            ("between steps", 1),
            ("between steps", 4),
            ("half the state written", 2),
            ("state written, not renamed", 3),
            ("half the bundle written", 2),
            ("bundle written, not renamed", 1),
            ("bundle written, state not", 2),
        )
    ),
]


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert _in_process(data, out, "nowhere", 1) == 0
    return out


def _in_process(data: Path, out: Path, where: str, number: int) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["simmat.training"])
    process = context.Process(
        target=run_and_die, args=(str(data), str(out), where, number, CHANGES)
    )
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.slow
def test_another_number_of_threads_changes_rounding_alone(
    data: Path, tmp_path: Path
) -> None:
    """The documentation promises the same bits on as many threads, and the same training on others."""
    before, moved = torch.get_num_threads(), {}
    try:
        for name, threads in (("one", 1), ("again", 1), ("two", 2)):
            torch.set_num_threads(threads)
            training.train(
                config(data, tmp_path / name, steps=3, val_every=3, pictures=False),
                registry(),
            )
            moved[name] = load_state(tmp_path / name / "last.safetensors").model
    finally:
        torch.set_num_threads(before)
    for key, value in moved["one"].items():
        assert torch.equal(value, moved["again"][key])
        # AdamW divides a gradient by its own size, so where it is all rounding a single element may differ by a step.
        assert (moved["two"][key] - value).norm() <= 3e-4 * value.norm() + 1e-9


def test_the_best_bundle_changes_during_the_run(whole: Path) -> None:
    """The kill points at the second bundle only mean something where there is a second bundle."""
    best = [float("-inf")]
    for record in training.RunFolder(whole).records():
        if record["kind"] == "val" and record["miou_object"] > best[-1]:
            best.append(record["miou_object"])
    assert len(best) > 2


@pytest.mark.parametrize(("where", "number"), POINTS)
def test_a_killed_run_ends_in_the_same_bits(
    data: Path, whole: Path, tmp_path: Path, where: str, number: int
) -> None:
    """A power cut costs time, never the result."""
    out = tmp_path / "run"
    assert _in_process(data, out, where, number) == -signal.SIGKILL
    assert _in_process(data, out, "nowhere", 1) == 0
    assert (out / FILE_NAME).read_bytes() == (whole / FILE_NAME).read_bytes()
    assert (out / "last.safetensors").read_bytes() == (
        whole / "last.safetensors"
    ).read_bytes()
    assert (out / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert [name for name in os.listdir(out) if name.startswith(".")] == [".lock"]


def test_a_run_at_work_lets_no_other_into_its_folder(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    """A job that is queued again while it runs would mix the weights of one with the json of the other."""
    before = files_of(whole)
    with (
        RunFolder(whole).locked(),
        pytest.raises(OutputError, match="another training"),
    ):
        training.resume(whole, registry())
    assert files_of(whole) == before
    with (
        RunFolder(tmp_path / "new").locked(),
        pytest.raises(OutputError, match="another training"),
    ):
        training.train(config(data, tmp_path / "new", **CHANGES), registry())


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_resume(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    """A job scheduler that ends a run early must not cost more than the step under way."""
    out = tmp_path / "run"
    script = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from runs import *; from simmat import training\n"
        f"training.train(config(Path({str(data)!r}), Path({str(out)!r}), **{CHANGES!r}), registry())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    log = out / "metrics.jsonl"
    while process.poll() is None and not (
        log.exists() and '"step": 1' in log.read_text()
    ):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, message = process.communicate()
    assert "simmat train --resume" in message
    assert _in_process(data, out, "nowhere", 1) == 0
    assert (out / FILE_NAME).read_bytes() == (whole / FILE_NAME).read_bytes()


def test_an_image_that_changed_at_equal_size_is_refused_by_name(tmp_path: Path) -> None:
    """An export with other settings is often as long; the bundle would be of a mixture that nobody can name."""
    copy, out = gray_set(tmp_path / "set"), tmp_path / "run"
    training.train(config(copy, out, steps=1), registry())
    image = copy / "images/s0.png"
    before = image.read_bytes()
    image.write_bytes(bytes([*before[:-1], before[-1] ^ 1]))
    state = files_of(out)
    with pytest.raises(ConfigError, match=r"1 part .*images/s0\.png of 's0'; restore"):
        training.resume(out, registry())
    assert files_of(out) == state
    (out / "data.json").unlink()
    with pytest.raises(ConfigError, match=r"restore|start a new run"):
        training.resume(out, registry())
    image.write_bytes(before)
    training.resume(out, registry())


def test_a_damaged_state_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    """A cut copy of a run must not end in a traceback."""
    out = tmp_path / "run"
    training.train(config(data, out, steps=1), registry())
    state = out / "last.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(DataError, match=r"last\.safetensors is damaged"):
        training.resume(out, registry())


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """A typing mistake in --resume names what is missing."""
    with pytest.raises(ConfigError, match=r"no config\.toml"):
        training.resume(tmp_path, registry())


def fresh() -> torch.amp.GradScaler:
    """A scaler as a run makes one when it starts."""
    return torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=3)


class StopAfter(training.Callback):
    """Stops a run without a word after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        if step == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_scale_of_one_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state carries it from run to run, beside the moments it belongs to."""
    real = training.start.make_accelerator

    def scaling(settings: TrainConfig) -> Accelerator:
        accelerator = real(settings)  # of a CPU, where accelerate itself scales nothing
        accelerator.scaler = fresh()
        return accelerator

    monkeypatch.setattr(training.start, "make_accelerator", scaling)
    data = gray_set(tmp_path / "set")
    training.train(config(data, tmp_path / "whole", grad_clip=0.0), registry())
    with pytest.raises(KeyboardInterrupt):
        training.train(
            config(data, tmp_path / "cut", grad_clip=0.0), registry(), StopAfter(5)
        )
    training.resume(tmp_path / "cut", registry())
    whole, cut = (
        load_state(tmp_path / name / "last.safetensors") for name in ("whole", "cut")
    )
    # grew after steps 3 and 6; the cut fell into its interval
    assert whole.notes.scaler["scale"] == 4 * 65536
    assert cut.notes.scaler == whole.notes.scaler
