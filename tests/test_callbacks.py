"""Callbacks that plugins bring: a training does not end because one of them fails."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import runs
from click.testing import CliRunner
from runs import config, registry

import simmat
from simmat import callbacks, training
from simmat.callbacks import Callback, Callbacks, ConsoleCallback, TimeLeft
from simmat.config import TrainConfig
from simmat.errors import ConfigError
from simmat.plugins.kinds import CallbackHook
from simmat.plugins.registry import Registry
from simmat.training.fit import callbacks_of_plugins
from simmat.training.run_folder import RunFolder


class Counts(Callback):
    """Counts steps, and fails at one."""

    def __init__(self, fails_at: int = 0, error: BaseException | None = None) -> None:
        self.steps, self.fails_at, self.error = 0, fails_at, error

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        self.steps += 1
        if self.error is not None and step == self.fails_at:
            raise self.error


CONFIG = cast(TrainConfig, "settings")


def registry_of(*hooks: Any) -> Registry:
    """A registry with these hooks, of the packages p0, p1, …"""
    items = [
        ("callbacks", CallbackHook(f"p{place}", hook), f"p{place} 1.0")
        for place, hook in enumerate(hooks)
    ]
    return Registry([], cast(Any, items))


@pytest.mark.parametrize("error", [RuntimeError("no font"), SystemExit(3)])
def test_a_callback_of_a_plugin_that_fails_is_left_out(
    error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one warning that names the package; the others go on."""
    own, good, bad = Counts(), Counts(), Counts(2, error)
    callbacks = Callbacks(
        [own],
        callbacks_of_plugins(
            CONFIG, registry_of(lambda **_: [[bad]], lambda **_: [[good]])
        ),
    )
    for step in range(1, 5):
        callbacks.stepped(step, {})
    assert (own.steps, good.steps, bad.steps) == (4, 4, 2)
    said = capsys.readouterr().err
    assert said.count("p0 1.0") == 1
    assert type(error).__name__ in said


def test_the_callers_own_callback_may_end_the_training() -> None:
    """It is theirs."""
    with pytest.raises(RuntimeError):
        Callbacks(
            [Counts(1, RuntimeError())], callbacks_of_plugins(CONFIG, registry_of())
        ).stepped(1, {})


def test_a_callback_of_another_kind_is_refused_before_the_training() -> None:
    """It lacks a method that is called after an hour."""

    class Other:
        def stepped(self, step: int, losses: dict[str, float]) -> None: ...

    with pytest.raises(TypeError, match=r"simmat\.Callback.*Other"):
        simmat.train(modality="gray", data="nowhere", out="run", callbacks=[Other()])  # type: ignore[list-item]


def time_left(
    durations_s: list[float],
    *,
    first_step: int = 0,
    best_step: int | None = None,
    fewest_steps: int = 105,
) -> list[str]:
    """What is said after steps that take so long, of a run of 105 steps with a validation after every 10."""
    run: Any = SimpleNamespace(
        steps=105,
        fewest_steps=fewest_steps,
        val_every=10,
        first_step=first_step,
        best_step=best_step,
    )
    now = 0.0
    left = TimeLeft(run, lambda: now)
    said = []
    for number, seconds in enumerate(durations_s, start=1):
        now += seconds
        said.append(left.stepped(first_step + number))
    return said


def test_the_rest_of_a_run_is_told_from_its_own_steps_and_validation() -> None:
    """It is said once, after five steps: before them comes the validation of 20 s."""
    said = time_left([26, 6, 6, 6, 6, 6, 6])
    # 100 steps of 6 s, and 11 validations of 20 s
    line = "about 14 minutes left: 100 steps of 6 s and 11 validations of 20 s"
    assert said == ["", "", "", "", line, "", ""]


def test_a_resumed_run_does_not_take_its_start_for_a_validation() -> None:
    """Its first step waits for the processes that load data, and no validation was timed."""
    said = time_left([30, 60, 60, 60, 60], first_step=21, best_step=20)
    assert said[-1] == "about 1 h 19 min left: 79 steps of 60 s, besides 9 validations"


def test_of_an_open_end_both_limits_are_told() -> None:
    """How long the run takes is not known yet."""
    said = time_left([26, 6, 6, 6, 6], fewest_steps=55)
    assert said[-1].startswith("7 minutes to 14 minutes left: at most 100 steps")


@pytest.mark.plugins
def test_without_a_terminal_each_validation_is_a_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bar that is drawn again fills the log of a cluster's job."""
    registry = runs.registry()
    settings = runs.config(data, tmp_path / "run", steps=4, val_every=2, pictures=False)
    with ConsoleCallback() as console:
        training.train(settings, registry, console)
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = [line for line in said.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == [
        f"step {step} of 4" for step in (0, 2, 4)
    ]
    assert "loss" in lines[-1]


def run(data: Path, out: Path, track: str) -> dict[str, list[tuple[int, float]]]:
    """Train two steps with a tracker; return the log of the run as TAG -> (step, value)."""
    training.train(
        config(data, out, track=track, steps=2, val_every=2, pictures=False), registry()
    )
    logged: dict[str, list[tuple[int, float]]] = {}
    for record in RunFolder(out).records():
        for name in ("loss", "lr") if record["kind"] == "train" else ("miou_object",):
            logged.setdefault(f"{record['kind']}/{name}", []).append(
                (record["step"], record[name])
            )
    return logged


def test_tensorboard_holds_losses_and_scores(data: Path, tmp_path: Path) -> None:
    """In a folder of the run, by step."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    expected = run(data, tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for tag, points in expected.items():
        assert [(e.step, e.value) for e in events.Scalars(tag)] == [
            (s, pytest.approx(v)) for s, v in points
        ]


def test_mlflow_holds_losses_scores_and_settings(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where MLFLOW_TRACKING_URI says, here a folder."""
    mlflow = pytest.importorskip("mlflow")
    store = (tmp_path / "store").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    expected = run(data, tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("simmat")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["modality"] == "gray"
    for tag, points in expected.items():
        history = client.get_metric_history(found.info.run_id, tag)
        assert [(metric.step, metric.value) for metric in history] == [
            (s, pytest.approx(v)) for s, v in points
        ]


@pytest.mark.slow
def test_wandb_logs_offline(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WANDB_MODE=offline keeps all in the run's folder."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(data, tmp_path / "run", "wandb")
    wandb.teardown()  # its own process writes the rest
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert b"miou_object" in log.read_bytes()


@pytest.mark.parametrize(
    "found", [None, ModuleSpec("mlflow", None)], ids=["nothing", "a folder of its name"]
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: ModuleSpec | None,
) -> None:
    """Before the data is read, and without a run folder."""
    from simmat.cli import group

    real = importlib.util.find_spec
    monkeypatch.setattr(
        callbacks, "find_spec", lambda name: found if name == "mlflow" else real(name)
    )
    words = [
        "train",
        "--modality",
        "gray",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "run"),
        "--track",
        "mlflow",
    ]
    with pytest.raises(ConfigError, match=r"pip install 'simmat\[mlflow\]'"):
        CliRunner().invoke(group, words, standalone_mode=False, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_fails_does_not_end_the_training(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A server that is gone must not cost a night of training; it is said once."""
    pytest.importorskip("tensorboard")
    from accelerate.tracking import TensorBoardTracker

    def gone(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(TensorBoardTracker, "log", gone)
    logged = run(data, tmp_path / "run", "tensorboard")
    assert [step for step, _ in logged["train/loss"]] == [1, 2]
    assert capsys.readouterr().err.count("no route to host") == 1


def test_a_tracker_that_does_not_start_ends_the_run_with_what_to_do(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step; the run can be resumed without it."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://x")
    with pytest.raises(ConfigError, match=r"--track mlflow did not start"):
        run(data, tmp_path / "run", "mlflow")
    settings = tmp_path / "run" / "config.toml"
    settings.write_text(settings.read_text().replace('track = "mlflow"\n', ""))
    training.resume(tmp_path / "run", registry())
