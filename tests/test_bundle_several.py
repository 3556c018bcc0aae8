"""One bundle of several sensors: how each is named, used, shared and shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bundles import change_json, tiny_bundle
from PIL import Image
from safetensors import safe_open

import simmat
from simmat.bundle import pull_bundle, push_bundle, read_bundle, read_bundle_spec, write_sensors
from simmat.cli import run
from simmat.errors import BundleError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, as far as its bundle goes; the sensors differ in their transfer layers."""
    root = tmp_path_factory.mktemp("several")
    found = {}
    for name, width in (("day", 4), ("night", 8)):
        found[name] = read_bundle(tiny_bundle(root / name, tune="lora", mat_options={"width": width}))
        shutil.rmtree(root / name)
    write_sensors(root / "run/bundle", found)
    (root / "run/day").mkdir()  # the run of a sensor, with its log and page
    push_bundle(root / "run", str(root / "both.zip"), licence="mit")
    Image.new("L", (40, 30), 60).save(root / "image.png")
    return root


def test_what_sensors_share_is_written_once(folder: Path) -> None:
    """A sensor more costs its transfer layer."""
    with safe_open(folder / "run/bundle/weights.safetensors", "pt") as file:
        names = set(file.keys())
    assert {name.partition(".")[0] for name in names} == {"foundation", "day/mat", "night/mat"}
    spec, tensors = read_bundle(folder / "run/night")
    assert spec.mat_options["width"] == 8
    assert {name.partition(".")[0] for name in tensors} == {"foundation", "mat"}
    entries = json.loads((folder / "run/bundle/bundle.json").read_text())
    assert entries["foundation"] == "tiny"
    assert entries["sensors"].keys() == {"day", "night"}
    assert "foundation" not in entries["sensors"]["day"]


@pytest.mark.parametrize("place", ["run/day", "run/bundle/day", "run/day/bundle", "both.zip/day"])
def test_a_sensor_is_named_behind_the_path(folder: Path, place: str) -> None:
    """So no command needs an option for it; the second but last is where the run of one sensor has its bundle."""
    assert simmat.load(folder / place).spec.mat_options["width"] == 4


def test_a_sensor_on_the_hub_is_named_before_the_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A revision may have slashes itself."""
    asked = list[str]()

    def download(place: str) -> Path:
        asked.append(place)
        return folder / "run/bundle"

    monkeypatch.setattr("simmat.bundle.places.download", download)
    assert simmat.load("hf://org/both/night@try/this").spec.mat_options["width"] == 8
    assert asked == ["hf://org/both@try/this"]


@pytest.mark.parametrize("place", ["run", "run/bundle", "both.zip"])
def test_without_a_name_the_sensors_are_listed(folder: Path, place: str) -> None:
    """None of them is the one that is meant."""
    with pytest.raises(BundleError, match=rf"{place}/day, .*{place}/night"):
        simmat.load(folder / place)
    with pytest.raises(BundleError, match=r"no sensor 'dusk', but day, night"):
        simmat.load(folder / place / "dusk")


def test_a_command_takes_one_sensor(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`simmat predict` knows nothing of several."""
    words = [str(folder / "image.png"), "--point", "9,9", "--out", str(tmp_path / "out")]
    assert run(["predict", str(folder / "run"), *words]) == 2
    assert "run/night" in capsys.readouterr().err
    assert run(["predict", str(folder / "run/night"), *words]) == 0, capsys.readouterr().err


def test_one_sensor_can_be_shared_alone(folder: Path, tmp_path: Path) -> None:
    """Who has one camera needs an ordinary bundle."""
    push_bundle(folder / "run/night", str(tmp_path / "night.zip"))
    pull_bundle(str(folder / "both.zip/night"), tmp_path / "pulled")
    spec, tensors = read_bundle(folder / "run/night")
    for place in (tmp_path / "night.zip", tmp_path / "pulled"):
        other, alone = read_bundle(place)
        changed = {"weights_sha256": "", "versions": {}}
        assert other.model_copy(update=changed) == spec.model_copy(update=changed)
        assert alone.keys() == tensors.keys()
        assert all(torch.equal(alone[name], tensors[name]) for name in alone)


def test_every_sensor_is_shown(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `show`, by the model card, and in a gallery, which finds a sensor by its name."""
    monkeypatch.setenv("SIMMAT_GALLERY", str(tmp_path))
    assert run(["bundle", "show", str(folder / "run"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {name: spec["mat_options"]["width"] for name, spec in shown.items()} == {"day": 4, "night": 8}
    shutil.copy(folder / "both.zip", tmp_path / "both.zip")
    assert run(["bundle", "index", str(tmp_path)]) == 0
    assert run(["bundle", "list"]) == 0
    assert "both/night" in capsys.readouterr().out
    assert simmat.load("gallery:both/night").spec.mat_options["width"] == 8
    card = (pull_bundle(str(tmp_path / "both.zip"), tmp_path / "out") / "README.md").read_text()
    assert card.count("library_name: simmat") == 1
    assert "simmat predict BUNDLE/day" in card
    assert "simmat predict BUNDLE/night" in card


@pytest.mark.parametrize("sensors", [None, {}, {"day": 3}, {"a/b": {}}, {"day": {"mat": 3}}])
def test_sensors_that_are_none_are_damage(folder: Path, tmp_path: Path, sensors: object) -> None:
    """What comes from a stranger is looked at as a whole."""
    shutil.copytree(folder / "run/bundle", tmp_path / "b")
    change_json(tmp_path / "b", sensors=sensors)
    with pytest.raises(BundleError, match="damaged"):
        read_bundle_spec(tmp_path / "b/day")
