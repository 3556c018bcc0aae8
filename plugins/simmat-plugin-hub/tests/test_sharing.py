"""Bundles copied to files, and fetched from there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bundles import (
    file_of,
    tiny_bundle,
)
from runs import files_of
from simmat_plugin_hub import pull_bundle, push_bundle

import simmat
from simmat.bundle import (
    FILE_NAME,
    read_bundle,
    read_bundle_spec,
    write_sensors,
)
from simmat.cli import run
from simmat.errors import BundleError, ConfigError, OutputError

JOBS = {
    "push": lambda bundle: push_bundle(bundle, "pushed.safetensors"),
    "pull": lambda bundle: pull_bundle(str(bundle), Path("pulled.safetensors")),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "gray-mat")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ("shared/a.safetensors", "shared/a.safetensors"),
        ("shared/copy", "shared/copy/bundle.safetensors"),
    ],
)
def test_what_is_pulled_is_what_was_pushed(
    bundle: Path, here: Path, place: str, file: str
) -> None:
    """A colleague scores the very same weights."""
    assert push_bundle(bundle, place) == file
    pulled = pull_bundle(place)
    assert pulled == Path(Path(place).stem + ".safetensors")
    assert (
        pulled.read_bytes() == Path(file).read_bytes() == file_of(bundle).read_bytes()
    )


def test_a_run_gives_its_name_to_what_is_pulled_of_it(bundle: Path, here: Path) -> None:
    """Every run has a bundle.safetensors."""
    assert pull_bundle(bundle / FILE_NAME) == Path("gray-mat.safetensors")


def test_one_sensor_can_be_shared_alone(here: Path) -> None:
    """Who has one camera needs an ordinary bundle."""
    sensors = {
        name: read_bundle(tiny_bundle(here / name, mat_options={"width": width}))
        for name, width in (("day", 4), ("night", 8))
    }
    write_sensors(here / "run" / FILE_NAME, sensors)
    push_bundle(here / "run/night", "night.safetensors")
    pull_bundle(here / "run/night", Path("pulled"))
    spec, tensors = sensors["night"]
    for place in ("night.safetensors", "pulled"):
        other, alone = read_bundle(place)
        assert other.model_copy(update={"sha256": ""}) == spec.model_copy(
            update={"sha256": ""}
        )
        assert alone.keys() == tensors.keys()
        assert all(torch.equal(alone[name], tensors[name]) for name in alone)


def test_every_sensor_is_shown(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `show`, by the model card, and in a gallery, which finds a sensor by its name."""
    monkeypatch.setenv("SIMMAT_GALLERY", str(here / "gallery"))
    sensors = {
        name: read_bundle(tiny_bundle(here / name, mat_options={"width": width}))
        for name, width in (("day", 4), ("night", 8))
    }
    write_sensors(here / "gallery/both.safetensors", sensors)
    assert run(["bundle", "show", "gallery/both.safetensors", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert {name: spec["mat_options"]["width"] for name, spec in shown.items()} == {
        "day": 4,
        "night": 8,
    }
    assert run(["bundle", "index", "gallery"]) == 0
    assert run(["bundle", "list"]) == 0
    assert "both/night" in capsys.readouterr().out
    assert simmat.load("gallery:both/night").spec.mat_options["width"] == 8
    assert run(["bundle", "card", "gallery:both"]) == 0
    card = capsys.readouterr().out
    assert card.strip() == Path("gallery/both.md").read_text().strip()
    assert card.count("library_name: simmat") == 1
    assert "simmat predict BUNDLE/day" in card
    assert "simmat predict BUNDLE/night" in card


def test_a_licence_goes_into_the_copy_and_stays(bundle: Path, here: Path) -> None:
    """It must not be lost on the way from one person to the next."""
    push_bundle(bundle, "a.safetensors", licence="mit")
    push_bundle(Path("a.safetensors"), "b.safetensors")
    assert read_bundle_spec("b.safetensors").licence == "mit"
    assert read_bundle_spec(bundle).licence == ""


@pytest.mark.parametrize("place", ["copy", "copy.safetensors"])
def test_nothing_is_replaced_but_by_force(bundle: Path, here: Path, place: str) -> None:
    """A typed name must not cost somebody a model."""
    push_bundle(bundle, place)
    before = files_of(here)
    for attempt in (
        lambda: push_bundle(bundle, place, licence="mit"),
        lambda: pull_bundle(bundle, Path(place)),
    ):
        with pytest.raises(OutputError, match=r"copy.*--force"):
            attempt()
    assert files_of(here) == before
    push_bundle(bundle, place, licence="mit", force=True)
    assert files_of(here) != before


def test_a_folder_keeps_what_else_is_in_it(bundle: Path, here: Path) -> None:
    """`--out .` by force must not take a home folder away."""
    Path("home").mkdir()
    Path("home/thesis.tex").write_text("years")
    pull_bundle(bundle, Path("home"), force=True)
    assert sorted(files_of(here)) == ["home/bundle.safetensors", "home/thesis.tex"]


@pytest.mark.parametrize(
    "place", ["s3://a/b", "https://a.b/c.safetensors", " ", "a.zip", "hf://a/b/night"]
)
def test_other_destinations_are_refused(bundle: Path, here: Path, place: str) -> None:
    """`https:` would become a folder of that name."""
    with pytest.raises(ConfigError, match="hf://ORG/NAME"):
        push_bundle(bundle, place)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("licence", ["Apache 2.0", "MIT", "a\nb", ""])
def test_a_licence_the_hub_would_not_read_is_refused(
    bundle: Path, here: Path, licence: str
) -> None:
    """It stands in the card's metadata, where a machine reads it."""
    with pytest.raises(ConfigError, match=r"apache-2\.0"):
        push_bundle(bundle, "copy", licence=licence)


@pytest.mark.parametrize("job", JOBS)
def test_a_bundle_that_is_damaged_is_not_passed_on(
    bundle: Path, here: Path, job: str
) -> None:
    """Nobody passes on what they cannot read, and nothing is left of it."""
    content = file_of(bundle).read_bytes()
    bad = Path("bad.safetensors")
    bad.write_bytes(content[:-9] + b"x" + content[-8:])
    with pytest.raises(BundleError, match="damaged"):
        JOBS[job](bad)
    assert [path.name for path in here.iterdir()] == ["bad.safetensors"]


def test_an_exported_model_is_not_pushed(bundle: Path, here: Path) -> None:
    """Its weights are in the files beside it."""
    spec, _ = read_bundle(bundle)
    write_sensors(
        here / "exported" / FILE_NAME,
        {"": (spec.model_copy(update={"exported": "onnx"}), {})},
    )
    with pytest.raises(BundleError, match="is an exported model"):
        push_bundle("exported", "copy")
