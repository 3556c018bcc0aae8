"""A run starts, and goes on only as the run it began as; nothing of the environment changes what it computes."""

from __future__ import annotations

import os
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from runs import config, gray_set, registry

from simmat import training
from simmat.cli import run
from simmat.config import (
    MUTABLE_ON_RESUME,
    PATH_SETTINGS,
    TrainConfig,
)
from simmat.errors import ConfigError, OutputError
from simmat.model_spec import MEASURED_FIELDS, ModelSpec
from simmat.training.build import loading_processes, make_accelerator
from simmat.training.plan import TrainingPlan, plan_run
from simmat.training.run_folder import RunFolder, settings_of
from simmat.training.start import check_network, check_settings


def test_another_kind_of_training_is_refused_by_name_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forgotten `accelerate config` would train a cut-up network that no setting of the run tells of."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    data, out = gray_set(tmp_path / "set"), tmp_path / "run"
    settings = (
        "--modality gray --foundation tiny --image-size 64 --steps 1 --device cpu"
    )
    assert (
        run(["train", *settings.split(), "--data", str(data), "--out", str(out)]) == 2
    )
    assert "ACCELERATE_USE_DEEPSPEED=true" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ACCELERATE_USE_CPU", "False"),
        ("ACCELERATE_MIXED_PRECISION", "bf16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4"),
        ("ACCELERATE_TORCH_DEVICE", "meta"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR"),
        ("ACCELERATE_DYNAMO_USE_FULLGRAPH", "perhaps"),
        ("ACCELERATE_FP8_BACKEND", "TE"),
    ],
)
def test_what_the_launcher_sets_does_not_change_the_run(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """config.toml would state one precision, accumulation or device, and the run have another."""
    monkeypatch.setenv(variable, value)
    accelerator = make_accelerator(config(tmp_path, tmp_path / "run", device="cpu"))
    assert accelerator.mixed_precision == "no"
    assert accelerator.gradient_accumulation_steps == 1
    assert accelerator.device.type == "cpu"
    assert str(accelerator.state.dynamo_plugin.backend).endswith("NO")
    assert os.environ[variable] == value


BEGUN: dict[str, Any] = {
    "modality": "gray",
    "data": Path("data"),
    "out": Path("run"),
    "train_share": 0.5,
}
SETTINGS = sorted(set(TrainConfig.model_fields) - MUTABLE_ON_RESUME - PATH_SETTINGS)
"""Every setting that may not change."""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_changed_setting_is_refused_by_name(name: str) -> None:
    """Half a run with one value and half with another is neither; a new setting may change only if somebody says so."""
    chosen = {"heads": "prompt", "keep": "best"}
    settings = TrainConfig.model_validate({**BEGUN, **chosen})
    with pytest.raises(ConfigError, match=rf"\b{name} = .*, was 'another'"):
        check_settings(settings, {**settings_of(settings), name: "another"})


def test_what_does_not_decide_the_result_may_change() -> None:
    """A run that lacks memory or moves to another machine need not begin again."""
    begun = settings_of(TrainConfig.model_validate(BEGUN))
    free = {
        "device": "cpu",
        "gradient_checkpointing": True,
        "pictures": False,
        "track": "mlflow",
        "workers": 2,
    }
    files = {
        "data": Path("moved"),
        "out": Path("here"),
        "checkpoint": Path("w.pth"),
        "modality": "./sensor.toml",
    }
    files |= {"foundation": "hf/./moved", "init": Path("first")}
    assert set(free) | set(files) == MUTABLE_ON_RESUME | PATH_SETTINGS
    check_settings(TrainConfig.model_validate({**BEGUN, **free, **files}), begun)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> TrainingPlan:
    folder = tmp_path_factory.mktemp("begun")
    return plan_run(config(gray_set(folder / "set"), folder / "run"), registry())


def refused(setup: TrainingPlan, **changes: Any) -> str:
    """Resume a run whose network was another when it began, and return what is said."""
    with pytest.raises(ConfigError) as caught:
        check_network(setup.config, setup.spec.model_copy(update=changes), setup.spec)
    return str(caught.value)


def test_a_run_does_not_resume_on_other_weights(begun: TrainingPlan) -> None:
    """Updates learned on one network mean nothing on another, though all shapes fit."""
    check_network(begun.config, begun.spec, begun.spec)
    assert "sha256 of the weights = nothing, was '000" in refused(
        begun, foundation_sha256="0" * 64
    )


@pytest.mark.parametrize(
    "name", sorted(set(ModelSpec.model_fields) - set(MEASURED_FIELDS))
)
def test_a_run_is_resumed_only_with_its_own_network(
    begun: TrainingPlan, name: str
) -> None:
    """Plugins change their defaults, and files what is in them, while the config stays as it was."""
    assert "start a new run" in refused(begun, **{name: "another"})


def test_the_lock_of_a_run_does_not_empty_the_target_of_a_link(tmp_path: Path) -> None:
    """Looking at a run of a stranger is enough to try its lock."""
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.lock").symlink_to("../precious")
    run = RunFolder(tmp_path / "run")
    assert not run.running
    with pytest.raises(OutputError, match="levels of symbolic links"), run.locked():
        pass
    assert (tmp_path / "precious").read_text() == "mine"


Usage = namedtuple("Usage", "free")


def test_a_run_is_the_same_with_any_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither their number nor how the system starts them (macOS and Windows do not fork) may choose the result."""
    data = gray_set(tmp_path / "set")
    results = []
    for workers, method in ((0, "fork"), (2, "spawn")):
        monkeypatch.setattr("simmat.training.build.START_METHOD", method)
        monkeypatch.setattr("simmat.data.index.START_METHOD", method)
        out = tmp_path / f"{method}{workers}"
        settings = config(
            data,
            out,
            steps=3,
            val_every=3,
            val_images=1,
            workers=workers,
            pictures=False,
        )
        bundle = training.train(settings, registry())
        losses = [
            record["loss"]
            for record in RunFolder(out).records()
            if record["kind"] == "train"
        ]
        results.append((losses, bundle.read_bytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("cores", "device", "processes", "count", "free", "expected"),
    [
        (2, "cpu", 1, 10**6, 2**34, 0),
        (8, "cpu", 1, 10**6, 2**34, 2),
        (16, "cpu", 2, 10**6, 2**34, 2),
        (2, "cuda", 1, 10**6, 2**34, 1),
        (64, "cuda", 2, 10**6, 2**34, 8),
        (64, "cuda", 1, 20, 2**34, 0),
        (64, "cuda", 1, 70, 2**34, 2),
        (64, "cuda", 1, 10**6, 2**16, 0),
    ],
)
def test_processes_are_as_many_as_pay_off(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    device: str,
    processes: int,
    count: int,
    free: int,
    expected: int,
) -> None:
    """On a GPU no step should wait; on a CPU, for little data or without room they would only cost."""
    module = "simmat.training.build"
    monkeypatch.setattr(f"{module}.START_METHOD", "fork")
    monkeypatch.setattr(f"{module}.usable_cpus", lambda: cores)
    monkeypatch.setattr(f"{module}.torch.get_num_threads", lambda: cores)
    monkeypatch.setattr(f"{module}.shutil.disk_usage", lambda _: Usage(free))
    settings = config(tmp_path, tmp_path / "run")
    items = [(torch.zeros(2**12),)]
    where = SimpleNamespace(num_processes=processes, device=torch.device(device))

    def chosen(**changes: Any) -> int:
        given = settings.model_copy(update=changes)
        return loading_processes(
            given, cast(Accelerator, where), cast(Any, items), count
        )

    assert chosen() == expected
    assert chosen(workers=3) == 3
    monkeypatch.setattr(f"{module}.START_METHOD", "spawn")
    assert chosen() == 0
