"""`--track`: what a run logs to TensorBoard, MLflow and Weights & Biases can be read back."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from runs import config, registry

from simmat import callbacks, training
from simmat.errors import ConfigError
from simmat.training.run_folder import RunFolder


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
