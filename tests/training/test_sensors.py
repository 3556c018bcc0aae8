"""A training on several sensors, which share a tuned foundation model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch
from bundles import tiny_bundle
from PIL import Image
from runs import StopAt, config, files_of, gray_set, registry

from simmat import training
from simmat.bundle import read_bundle, read_sensors
from simmat.cli import run
from simmat.config import load_config, load_configs
from simmat.errors import ConfigError
from simmat.training import fit
from simmat.training.run_folder import RunState, load_state


def _settings(root: Path, out: Path, *tables: dict[str, str]) -> Path:
    """Write a file of two sensors, or those that are given."""
    given = [
        {"name": "day", "modality": "gray", "data": "day"},
        {"name": "colour", "modality": "rgb", "data": "colour"},
    ]
    shared = {
        "out": str(out), "foundation": "tiny", "tune": "lora", "heads": "prompt", "image_size": 64, "steps": 3,
        "val_every": 2, "batch_size": 2, "prompts_per_image": 2, "lr": 1e-3, "device": "cpu", "pictures": False,
    }  # fmt: skip
    (root / "sensors.toml").write_text(
        tomli_w.dumps({**shared, "data": list(tables or given)})
    )
    return root / "sensors.toml"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gray and a colour camera, and a training on both."""
    root = tmp_path_factory.mktemp("sensors")
    gray_set(root / "day")
    for image in (gray_set(root / "colour") / "images").iterdir():
        gray = np.asarray(Image.open(image))
        Image.fromarray(np.stack([gray, 255 - gray, gray // 2], axis=-1)).save(image)
    assert run(["train", "--config", str(_settings(root, root / "run"))]) == 0
    return root


def test_sensors_share_what_is_tuned_and_nothing_else(whole: Path) -> None:
    """So one bundle serves them all, and gives each what a bundle of its own would."""
    (spec, day), (other, colour) = (
        read_bundle(whole / "run" / name) for name in ("day", "colour")
    )
    # what is shared has seen the images of both
    assert spec.trained_on == other.trained_on
    shared = {name for name in day if name.startswith("foundation.")}
    assert shared == {name for name in colour if name.startswith("foundation.")}
    assert all(torch.equal(day[name], colour[name]) for name in shared)
    assert {name for name in day if name not in shared}
    moments = [
        load_state(whole / f"run/.states/{name}.safetensors").optimizer
        for name in ("day", "colour")
    ]
    shared = {name for name in moments[0] if name.split(".")[1] == "foundation"}
    assert shared
    assert all(torch.equal(moments[0][name], moments[1][name]) for name in shared)
    log = [
        training.RunFolder(whole / "run" / name).records() for name in ("day", "colour")
    ]
    scores = [
        [record["score"] for record in records if record["kind"] == "val"]
        for records in log
    ]
    assert scores[0] == scores[1]


def test_an_interrupted_training_on_sensors_resumes_to_the_same_bits(
    whole: Path, tmp_path: Path
) -> None:
    """All states are of one round: weights of one sensor with those of another round would be another training."""
    sensors = load_configs(_settings(whole, tmp_path / "run"))
    with pytest.raises(training.Interrupted):
        training.train_configs(sensors, registry(), {"day": StopAt(1)})
    with pytest.raises(ConfigError, match="resume all"):
        training.resume(tmp_path / "run/day", registry())
    settings = (tmp_path / "run/config.toml").read_text()
    (tmp_path / "run/config.toml").write_text(
        settings.replace('name = "day"', 'name = "night"')
    )
    with pytest.raises(
        ConfigError, match=r"sensors night, colour, .* started with colour, day"
    ):
        training.resume(tmp_path / "run", registry())
    (tmp_path / "run/config.toml").write_text(settings)
    assert run(["train", "--resume", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/bundle.safetensors").read_bytes() == (
        whole / "run/bundle.safetensors"
    ).read_bytes()
    assert files_of(tmp_path / "run/.states") == files_of(whole / "run/.states")


def test_a_training_that_ends_between_two_states_resumes_to_the_same_bits(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is of step 2 by then, and all states of step 0."""
    real = fit.save_state
    saved: list[Path] = []

    def save(path: Path, state: RunState) -> None:
        saved.append(path)
        if len(saved) == 4:
            raise KeyboardInterrupt
        real(path, state)

    monkeypatch.setattr(fit, "save_state", save)
    with pytest.raises(KeyboardInterrupt):
        training.train_configs(
            load_configs(_settings(whole, tmp_path / "run")), registry()
        )
    assert load_state(tmp_path / "run/.states/day.safetensors").notes.step == 0
    training.resume(tmp_path / "run", registry())
    assert (tmp_path / "run/bundle.safetensors").read_bytes() == (
        whole / "run/bundle.safetensors"
    ).read_bytes()


def test_a_training_on_sensors_is_no_run_of_one(whole: Path) -> None:
    """A command that takes one run says so."""
    with pytest.raises(ConfigError, match=r"\[\[data\]\].*run of one sensor"):
        load_config(whole / "run/config.toml")


def test_a_new_sensor_adds_its_transfer_layer_to_the_bundle(
    whole: Path, tmp_path: Path
) -> None:
    """Nothing changes for the sensors that it serves already, to the bit, also where the training was interrupted."""
    shutil.copy(whole / "run/bundle.safetensors", tmp_path / "start.safetensors")
    settings = config(
        whole / "colour", tmp_path / "run", modality="rgb", init=tmp_path / "start.safetensors", new_sensor="third",
        tune=None, steps=2,
    )  # fmt: skip
    with pytest.raises(training.Interrupted):
        training.train(settings, registry(), StopAt(1))
    (tmp_path / "start.safetensors").unlink()
    assert (
        training.resume(tmp_path / "run", registry())
        == tmp_path / "run/bundle.safetensors/third"
    )
    before, after = read_sensors(whole / "run"), read_sensors(tmp_path / "run")
    assert list(after) == ["day", "colour", "third"]
    written = {"sha256": ""}
    for name, (spec, tensors) in before.items():
        assert after[name][0].model_copy(update=written) == spec.model_copy(
            update=written
        )
        assert after[name][1].keys() == tensors.keys()
        assert all(torch.equal(after[name][1][key], tensors[key]) for key in tensors)
    spec, tensors = after["third"]
    assert spec.tune == "lora"
    assert all(
        torch.equal(tensors[name], one)
        for name, one in before["day"][1].items()
        if name[0] == "f"
    )
    moved = load_state(training.RunFolder(tmp_path / "run").state)
    assert {name.split(".")[1] for name in moved.optimizer} == {"mat"}
    assert spec.trained_on is not None
    with pytest.raises(ConfigError, match=r"'third' already.*day, colour, third"):
        training.train(
            settings.model_copy(
                update={"init": tmp_path / "run", "out": tmp_path / "more"}
            ),
            registry(),
        )


def test_a_new_sensor_whose_layer_replaces_tuned_weights_is_refused(
    whole: Path, tmp_path: Path
) -> None:
    """It would not be served by the foundation model of the others."""
    settings = config(
        whole / "colour", tmp_path / "run", modality="rgb", init=tiny_bundle(tmp_path / "full", tune="full"),
        new_sensor="new", tune=None, mat="channel-attention",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="leave --mat out"):
        training.train(settings, registry())
    assert not (tmp_path / "run").exists()


def test_transfer_layers_that_let_other_weights_train_are_refused(
    whole: Path, tmp_path: Path
) -> None:
    """One bundle would hold weights that its network does not have."""
    sensors = load_configs(_settings(whole, tmp_path / "run"), {"tune": "full"})
    sensors["colour"] = sensors["colour"].model_copy(
        update={"mat": "channel-attention"}
    )
    with pytest.raises(ConfigError, match=r"'colour'.*same `mat`"):
        training.train_configs(sensors, registry())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        (
            [
                {"modality": "gray", "data": "day"},
                {"modality": "gray", "data": "colour"},
            ],
            "'gray' is given twice",
        ),
        (
            [
                {"name": "a", "modality": "gray", "data": "day"},
                {"name": "b", "modality": "gray", "data": "day"},
            ],
            "'b' and 'a' are the same sensor",
        ),
        (
            [{"modality": "gray", "data": "day", "image_size": 32}],
            "image_size is not a setting of one sensor",
        ),
        (
            [{"modality": "gray", "data": "day", "regoins": "classes"}],
            "no key 'regoins'; did you mean 'regions'?",
        ),
        ([{"name": "../a", "modality": "gray", "data": "day"}], r"got '\.\./a'"),
        (
            [{"name": "config.toml", "modality": "gray", "data": "day"}],
            r"got 'config\.toml'",
        ),
        ([{"name": "bundle", "modality": "gray", "data": "day"}], "got 'bundle'"),
    ],
)
def test_wrong_tables_are_refused(
    tables: list[dict[str, str]], named: str, tmp_path: Path
) -> None:
    """A sensor given twice would count twice in every step."""
    with pytest.raises(ConfigError, match=named):
        load_configs(_settings(tmp_path, tmp_path / "run", *tables))
