"""Where a bundle may be, and how one of several sensors is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import read_parts, tiny_bundle
from PIL import Image
from runs import registry

import simmat
from simmat.bundle import (
    FILE_NAME,
    load,
    load_bundle,
    read_bundle,
    read_bundle_spec,
    write_sensors,
)
from simmat.errors import BundleError, ConfigError
from simmat.plugin_specs import FunctionSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, as far as its bundle goes; the sensors differ in their transfer layers."""
    root = tmp_path_factory.mktemp("several")
    found = {}
    for name, width in (("day", 4), ("night", 8)):
        found[name] = read_bundle(
            tiny_bundle(root / name, tune="lora", mat_options={"width": width})
        )
    write_sensors(root / "run" / FILE_NAME, found)
    (root / "run/day").mkdir()  # the run of a sensor, with its log and page
    (root / "copy.safetensors").write_bytes((root / "run" / FILE_NAME).read_bytes())
    Image.new("L", (40, 30), 60).save(root / "image.png")
    return root


def test_what_sensors_share_is_written_once(folder: Path) -> None:
    """A sensor more costs its transfer layer."""
    document, tensors = read_parts(folder / "run")
    assert {name.partition(".")[0] for name in tensors} == {
        "foundation",
        "day/mat",
        "night/mat",
    }
    assert document["foundation"] == "tiny"
    assert document["sensors"].keys() == {"day", "night"}
    assert "foundation" not in document["sensors"]["day"]
    spec, own = read_bundle(folder / "run/night")
    assert spec.mat_options["width"] == 8
    assert {name.partition(".")[0] for name in own} == {"foundation", "mat"}


@pytest.mark.parametrize(
    "place",
    [
        "run/day",
        "run/bundle.safetensors/day",
        "run/day/bundle.safetensors",
        "copy.safetensors/day",
    ],
)
def test_a_sensor_is_named_behind_the_path(folder: Path, place: str) -> None:
    """So no command needs an option for it."""
    assert simmat.load(folder / place).spec.mat_options["width"] == 4


@pytest.mark.parametrize("place", ["run", "run/bundle.safetensors", "copy.safetensors"])
def test_without_a_name_the_sensors_are_listed(folder: Path, place: str) -> None:
    """None of them is the one that is meant."""
    with pytest.raises(BundleError, match=rf"{place}/day, .*{place}/night"):
        simmat.load(folder / place)
    with pytest.raises(BundleError, match=r"no sensor 'dusk', but day, night"):
        simmat.load(folder / place / "dusk")


def test_a_bundle_is_read_wherever_it_lies(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy with another name, and the folder one stands in."""
    expected = read_bundle_spec(bundle)
    copy = tmp_path / "a copy.safetensors"
    copy.write_bytes((bundle / FILE_NAME).read_bytes())
    assert read_bundle_spec(copy) == expected
    monkeypatch.chdir(bundle)
    for place in (".", FILE_NAME, f"./{FILE_NAME}"):
        assert read_bundle_spec(Path(place)) == expected


def test_a_folder_without_a_bundle_is_refused_with_what_is_near(
    bundle: Path, tmp_path: Path
) -> None:
    """The folder of many runs is a likely slip."""
    with pytest.raises(BundleError, match=r"no such bundle.*bundle\.safetensors"):
        load_bundle(tmp_path / "none", registry())
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / FILE_NAME).write_bytes((bundle / FILE_NAME).read_bytes())
    with pytest.raises(
        BundleError, match=r"a folder of runs; use the bundle of one: .*one$"
    ):
        load_bundle(tmp_path, registry())


def fetched(place: str) -> Path:
    """Stand for the function of a plugin."""
    return _fetched[place]


_fetched: dict[str, Path] = {}


def test_a_plugin_fetches_a_bundle_from_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    """As a path the place has one slash, which the plugin does not see."""
    source = FunctionSpec("there", "a test", "anywhere:fetched")
    monkeypatch.setattr(load, "bundle_sources", lambda: [source])
    monkeypatch.setattr(load, "import_from_string", lambda reference: fetched)
    _fetched.update({"there://a/b": bundle, "there://a/c/night": folder / "run/night"})
    for place in (Path("there://a/b"), "there://a/b"):
        assert read_bundle_spec(place) == read_bundle_spec(bundle)
    assert simmat.load("there://a/c/night").spec.mat_options["width"] == 8


@pytest.mark.plugins
@pytest.mark.parametrize(
    "place", ["hf://someone/x", "gallery:x", "https://a.b/c", "s3://a/b"]
)
def test_without_the_plugin_the_error_says_where_packages_are_listed(
    place: str,
) -> None:
    """The core knows none by name."""
    with pytest.raises(
        ConfigError,
        match=rf"{place} is not a file on this machine, and no installed plugin fetches it.*README",
    ):
        read_bundle_spec(Path(place))


def test_an_empty_path_is_refused() -> None:
    """An unset variable of a shell would otherwise mean the current folder."""
    with pytest.raises(ConfigError, match="the folder of a run"):
        read_bundle_spec(" ")
