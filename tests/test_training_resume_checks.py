"""A run goes on only as the run it began as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runs import config, gray_set, registry

from simmat import training
from simmat.callbacks import Callback
from simmat.config import FREE_ON_RESUME, PATH_SETTINGS, TrainConfig, dump_toml, load_config
from simmat.data.card import DataCard
from simmat.errors import ConfigError, OutputError
from simmat.model_spec import MEASURED_FIELDS, ModelSpec
from simmat.sensors.sensor_toml import parse_declaration
from simmat.training.compatibility import check_network, check_settings, settings_of
from simmat.training.run_folder import RunFolder
from simmat.training.setup import Setup, prepare
from simmat.types import Channel

SENSOR = {
    "format": 1,
    "name": "sonar",
    "source": [{"files": "*.png"}],
    "channel": [{"name": "echo", "quantity": "echo_strength", "unit": "count"}],
}
BEGUN: dict[str, Any] = {"modality": "gray", "data": Path("data"), "out": Path("run"), "train_share": 0.5}
OTHER: dict[str, Any] = {
    "mat": "mat",
    "tune": "full",
    "mat_options": {"width": 8},
    "tune_options": {"rank": 8},
    "from_scratch": True,
    "channels": "0",
    "regions": "classes",
    "min_region": 9,
    "nodata": 0.0,
    "ignore": 255,
    "zero_means": "none",
    "class_attribute": "crop",
    "crop": 64,
    "train_images": 3,
    "train_share": 0.25,
    "protocol": "simmat-compat",
    "steps": 7,
    "epochs": 7,
    "image_size": 64,
    "aspect": "squash",
    "batch_size": 2,
    "prompts_per_image": 2,
    "clicks": "random",
    "modality_options": {"gain": 2.0},
    "box_fraction": 0.5,
    "corrections": 2,
    "augment": False,
    "rotate": True,
    "paste": 0.5,
    "heads": "prompt,dense",
    "loss": "bce",
    "lr": 1e-3,
    "backbone_lr_factor": 0.5,
    "weight_decay": 0.5,
    "schedule": "constant",
    "warmup_steps": 3,
    "grad_clip": 0.5,
    "grad_accumulation": 2,
    "val_every": 3,
    "val_images": 2,
    "precision": "bf16",
    "seed": 1,
}
"""Another value of every setting that may not change."""


def test_every_setting_may_change_or_is_a_file_or_is_tested_below() -> None:
    """A new setting is refused unless somebody decides that it may change; here it must be decided."""
    assert set(OTHER) == set(TrainConfig.model_fields) - FREE_ON_RESUME - PATH_SETTINGS


@pytest.mark.parametrize("name", OTHER)
def test_a_changed_setting_is_refused_by_name(name: str) -> None:
    """Half a run with one value and half with another is neither."""
    begun = settings_of(TrainConfig.model_validate(BEGUN))
    excluded = {"train_images": {"train_share"}}.get(name, set())
    changed = {key: value for key, value in BEGUN.items() if key not in excluded} | {name: OTHER[name]}
    with pytest.raises(ConfigError, match=rf"\b{name} = "):
        check_settings(TrainConfig.model_validate(changed), begun)


def test_what_does_not_decide_the_result_may_change() -> None:
    """A run that lacks memory or moves to another machine need not begin again."""
    begun = settings_of(TrainConfig.model_validate(BEGUN))
    free = {"device": "cpu", "gradient_checkpointing": True, "pictures": False, "track": "mlflow", "workers": 2}
    files = {"data": Path("moved"), "out": Path("here"), "checkpoint": Path("w.pth"), "modality": "./sensor.toml"}
    files |= {"foundation": "hf/./moved", "init": Path("first")}
    assert set(free) | set(files) == FREE_ON_RESUME | PATH_SETTINGS
    check_settings(TrainConfig.model_validate({**BEGUN, **free, **files}), begun)


def test_the_settings_a_run_wrote_down_are_those_it_reads(tmp_path: Path) -> None:
    """A run that nobody touched must go on."""
    left_out = ("train_images", "epochs", "from_scratch", "augment")  # they exclude others
    every = {**BEGUN, **{name: value for name, value in OTHER.items() if name not in left_out}, "augment": True}
    begun = json.loads(json.dumps(settings_of(TrainConfig.model_validate(every))))
    (tmp_path / "config.toml").write_text(dump_toml(TrainConfig.model_validate(every)), encoding="utf-8")
    check_settings(load_config(tmp_path / "config.toml"), begun)


def test_a_setting_that_an_older_version_did_not_have_was_at_its_default() -> None:
    """An update that brings a setting must not stop the runs under way."""
    begun = settings_of(TrainConfig.model_validate(BEGUN))
    del begun["clicks"]
    check_settings(TrainConfig.model_validate(BEGUN), begun)
    with pytest.raises(ConfigError, match="clicks = 'random', was 'mixed'"):
        check_settings(TrainConfig.model_validate({**BEGUN, "clicks": "random"}), begun)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train_images = 2", "train_images = 2, was nothing"),
        ('protocol = "simmat-compat"', "protocol = 'simmat-compat', was 'one-click'"),
    ],
)
def test_a_run_whose_file_was_edited_is_not_resumed(tmp_path: Path, line: str, said: str) -> None:
    """It would train on other images, or be chosen by another score, than its records say."""
    out = tmp_path / "run"
    training.train(config(gray_set(tmp_path / "set"), out, steps=1), registry())
    file, name = out / "config.toml", line.split(" = ")[0]
    kept = [text for text in file.read_text().splitlines() if not text.startswith(f"{name} = ")]
    file.write_text("\n".join([line, *kept]) + "\n")
    with pytest.raises(ConfigError, match=said):
        training.resume(out, registry())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("begun")
    return prepare(config(gray_set(folder / "set"), folder / "run"), registry(), Callback())


def refused(setup: Setup, **changes: Any) -> str:
    """Resume a run whose network was another when it began, and return what is said."""
    with pytest.raises(ConfigError) as caught:
        check_network(setup.config, setup.spec.model_copy(update=changes), setup.spec)
    return str(caught.value)


def test_a_run_does_not_resume_on_other_weights(begun: Setup) -> None:
    """Updates learned on one network mean nothing on another, though all shapes fit."""
    check_network(begun.config, begun.spec, begun.spec)
    assert "sha256 of the weights = nothing, was '000" in refused(begun, foundation_sha256="0" * 64)


def test_another_foundation_model_of_random_weights_is_refused(begun: Setup) -> None:
    """Nothing but its name says which it was."""
    assert begun.spec.foundation_sha256 is None
    assert "foundation = 'tiny', was 'another'" in refused(begun, foundation="another")


WAS: dict[str, Any] = {
    "modality": "rgb",
    "modality_options": {"gray": {"unit": "K"}},
    "picks": (0,),
    "sensor_channels": (Channel("gray", "counts", "K"),),
    "foundation": "another",
    "foundation_sha256": "0" * 64,
    "seed": 9,
    "image_size": 128,
    "aspect": "squash",
    "mat": "first-conv",
    "mat_options": {"width": 9},
    "tune": "full",
    "tune_options": {"rank": 9},
    "card": DataCard(regions="classes"),
    "described": (parse_declaration(SENSOR, "sensor.toml"),),
}
"""Another value of every field of a spec that a resumed run must find again."""


def test_every_field_of_a_spec_comes_from_the_data_or_is_tested_below() -> None:
    """A field that is compared with nothing lets a run resume as another."""
    assert set(WAS) == set(ModelSpec.model_fields) - set(MEASURED_FIELDS)


@pytest.mark.parametrize("name", WAS)
def test_a_run_is_resumed_only_with_its_own_network(begun: Setup, name: str) -> None:
    """Plugins change their defaults, and files what is in them, while the config stays as it was."""
    assert "start a new run" in refused(begun, **{name: WAS[name]})


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
