"""A run goes on only as the run it began as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import config, gray_set, registry

from simmat.config import (
    MUTABLE_ON_RESUME,
    PATH_SETTINGS,
    TrainConfig,
    dump_toml,
    load_config,
)
from simmat.errors import ConfigError, OutputError
from simmat.model_spec import MEASURED_FIELDS, ModelSpec
from simmat.training.plan import TrainingPlan, plan_run
from simmat.training.resumed import check_network, check_settings
from simmat.training.run_folder import RunFolder, settings_of

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


def test_the_settings_a_run_wrote_down_are_those_it_reads(tmp_path: Path) -> None:
    """A run that nobody touched must go on."""
    given = {
        "mat": "mat",
        "mat_options": {"width": 8},
        "channels": "0",
        "nodata": 0.0,
        "lr": 1e-3,
        "epochs": 7,
    }
    settings = TrainConfig.model_validate({**BEGUN, **given})
    (tmp_path / "config.toml").write_text(dump_toml(settings), encoding="utf-8")
    check_settings(
        load_config(tmp_path / "config.toml"),
        json.loads(json.dumps(settings_of(settings))),
    )


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
