"""Bundles pushed to and pulled from folders and zips, and zips of strangers refused."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from bundles import change_json, tiny_bundle
from runs import files_of, registry
from safetensors.torch import save_file
from simmat_testing.tiny import TINY
from torch import nn

from simmat.bundle import load_bundle, pull_bundle, push_bundle, read_bundle_spec
from simmat.errors import BundleError, ConfigError, OutputError
from simmat.io.weights import sha256_of
from simmat.plugin_specs import WeightFile, build_foundation
from simmat.plugins.registry import Registry

NAMES = ["README.md", "bundle.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "gray-mat")


@pytest.fixture(scope="module")
def zipped(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(push_bundle(bundle, str(tmp_path_factory.mktemp("zip") / "gray.zip")))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("place", ["shared/copy", "shared/copy.zip"])
def test_what_is_pulled_is_what_was_pushed(bundle: Path, here: Path, place: str) -> None:
    """A colleague scores the very same weights."""
    assert push_bundle(bundle, place) == place
    assert pull_bundle(place) == Path("copy")
    got = files_of(here / "copy")
    assert sorted(got) == NAMES
    assert {name: got[name] for name in files_of(bundle)} == files_of(bundle)


def test_a_bundle_named_by_its_json_keeps_the_name_of_its_folder(bundle: Path, here: Path) -> None:
    """A folder called bundle.json is nothing anybody asked for."""
    assert pull_bundle(str(bundle / "bundle.json")) == Path("gray-mat")


def test_a_bundle_can_be_the_folder_one_stands_in(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`cd RUN/bundle`, and then every command takes a dot."""
    monkeypatch.chdir(bundle)
    for place in (".", "bundle.json", "./bundle.json"):
        assert read_bundle_spec(Path(place)).modality == "gray"
    push_bundle(Path("."), str(tmp_path / "x.zip"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(OutputError, match="by its name"):
        pull_bundle("../x.zip", Path("."))


@pytest.mark.parametrize(
    ("key", "value"), [("modality", 3), ("selected_channels", [[1]]), ("zero_shot", [["a"], ["b"], ["c"]])]
)
def test_a_json_of_wrong_types_is_damaged_and_not_passed_on(bundle: Path, here: Path, key: str, value: object) -> None:
    """What comes from a stranger is looked at as a whole."""
    shutil.copytree(bundle, here / "b")
    change_json(here / "b", **{key: value})
    for job in (lambda: read_bundle_spec(Path("b")), lambda: push_bundle(Path("b"), "y.zip")):
        with pytest.raises(BundleError, match=rf"bundle\.json is damaged \(.*{key}"):
            job()


def test_equal_bundles_make_equal_zips(bundle: Path, here: Path) -> None:
    """A checksum beside a download means something only if it can be had again."""
    for name in ("a.zip", "b.zip"):
        push_bundle(bundle, name)
        os.utime(bundle / "bundle.json", (1, 1))
    assert sha256_of(here / "a.zip") == sha256_of(here / "b.zip")


def test_a_zip_is_used_as_it_lies(bundle: Path, zipped: Path) -> None:
    """Nobody should have to unpack what was sent, and nothing is left where it was unpacked."""
    loaded, plain = load_bundle(zipped, registry()), load_bundle(bundle, registry())
    assert loaded.path == zipped
    assert read_bundle_spec(zipped) == plain.spec
    ours, theirs = loaded.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_readme_of_its_own_goes_along(bundle: Path, here: Path) -> None:
    """What a person wrote is not written over by what a program can say."""
    pull_bundle(str(bundle), Path("mine"))
    Path("mine/README.md").write_text("by hand")
    push_bundle(Path("mine"), "theirs")
    assert Path("theirs/README.md").read_text() == "by hand"
    with pytest.raises(ConfigError, match=r"README.md"):
        push_bundle(Path("mine"), "again", licence="mit")


def test_a_readme_of_a_stranger_is_not_published_unseen(bundle: Path, here: Path) -> None:
    """It could be a link to a file of the user."""
    shutil.copytree(bundle, "mine")
    Path("secret").write_text("mine")
    Path("mine/README.md").symlink_to("../secret")
    with pytest.raises(BundleError, match=r"README\.md is a link"):
        push_bundle(Path("mine"), "theirs")


@pytest.mark.parametrize("place", ["copy", "copy.zip"])
def test_nothing_is_replaced_but_by_force(bundle: Path, here: Path, place: str) -> None:
    """A typed name must not cost somebody a model."""
    push_bundle(bundle, place)
    before = files_of(here)
    with pytest.raises(OutputError, match=r"copy.*--force"):
        push_bundle(bundle, place, licence="mit")
    assert files_of(here) == before
    push_bundle(bundle, place, licence="mit", force=True)
    assert files_of(here) != before


def test_even_force_replaces_no_folder_but_a_bundle(bundle: Path, here: Path) -> None:
    """`--out .` by force would otherwise take a home folder away."""
    Path("home").mkdir()
    Path("home/thesis.tex").write_text("years")
    for attempt in (
        lambda: push_bundle(bundle, "home", force=True),
        lambda: pull_bundle(str(bundle), Path("home"), force=True),
    ):
        with pytest.raises(OutputError, match=r"home .*not a bundle"):
            attempt()
    assert files_of(here) == {"home/thesis.tex": b"years"}


@pytest.mark.parametrize("place", ["s3://a/b", "https://a.b/c.zip", " "])
def test_other_places_are_refused(bundle: Path, here: Path, place: str) -> None:
    """`https:` would become a folder of that name."""
    for attempt in (lambda: push_bundle(bundle, place), lambda: pull_bundle(place)):
        with pytest.raises(ConfigError, match="hf://ORG/NAME"):
            attempt()
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("licence", ["Apache 2.0", "MIT", "a\nb", ""])
def test_a_licence_the_hub_would_not_read_is_refused(bundle: Path, here: Path, licence: str) -> None:
    """It stands in the card's metadata, where a machine reads it."""
    with pytest.raises(ConfigError, match=r"apache-2\.0"):
        push_bundle(bundle, "copy", licence=licence)


Change = Callable[[zipfile.ZipFile, dict[str, bytes]], None]


def _with(name: str, content: bytes = b"x") -> Change:
    return lambda archive, files: archive.writestr(name, content)


BAD_ZIPS: dict[str, tuple[Change, str]] = {
    "a path out of the folder": (_with("../evil"), r"holds '\.\./evil'"),
    "an absolute path": (_with("/etc/evil"), "holds '/etc/evil'"),
    "a folder": (_with("bundle/bundle.json"), "holds 'bundle/bundle.json'"),
    "another file": (_with("run.py"), "holds 'run.py'"),
    "a name twice": (lambda archive, files: archive.writestr("bundle.json", files["bundle.json"]), "no name twice"),
    "a large text": (_with("README.md", b"\0" * (5 << 20)), "grows from"),
    "a bomb": (
        lambda archive, files: archive.writestr("README.md", b"\0" * (1 << 20), zipfile.ZIP_DEFLATED),
        "grows from",
    ),
    "another compression": (lambda archive, files: archive.writestr("README.md", b"x", zipfile.ZIP_LZMA), "deflate"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", BAD_ZIPS)
def test_a_zip_of_anything_but_a_bundle_is_refused_whole(bundle: Path, here: Path, case: str) -> None:
    """A stranger's zip may write nowhere, link nowhere and fill no disk."""
    change, message = BAD_ZIPS[case]
    files = files_of(bundle)
    with zipfile.ZipFile("bad.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        change(archive, files)
    for attempt in (
        lambda: pull_bundle("bad.zip"),
        lambda: read_bundle_spec(Path("bad.zip")),
        lambda: load_bundle(Path("bad.zip"), registry()),
    ):
        with pytest.raises(BundleError, match=message) as refused:
            attempt()
        assert str(refused.value).startswith("bad.zip ")
    assert [path.name for path in here.iterdir()] == ["bad.zip"]


@pytest.mark.parametrize("damage", ["cut", "changed", "text"])
def test_a_damaged_zip_is_named(zipped: Path, here: Path, damage: str) -> None:
    """A cut download says so, by the name that was given, and leaves nothing."""
    content = bytearray(zipped.read_bytes())
    content[len(content) // 2] ^= 1
    whole = {"cut": content[: len(content) // 2], "changed": content, "text": b"no zip"}[damage]
    Path("bad.zip").write_bytes(whole)
    with pytest.raises(BundleError, match=r"^bad.zip.* is damaged"):
        pull_bundle("bad.zip")
    assert [path.name for path in here.iterdir()] == ["bad.zip"]


def test_a_bundle_on_the_hub_is_fetched_for_any_command(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`simmat eval hf://…` is what one tries first, and its path has one slash."""
    monkeypatch.setattr("simmat.bundle.places.download", {"hf://someone/x": bundle}.get)
    assert load_bundle(Path("hf://someone/x"), registry()).path == bundle
    assert read_bundle_spec(Path("hf://someone/x")) == read_bundle_spec(bundle)


def test_a_newer_format_is_refused_by_name(bundle: Path, here: Path) -> None:
    """Nobody passes on what they cannot read."""
    newer = Path(shutil.copytree(bundle, here / "newer"))
    change_json(newer, format=99)
    for attempt in (
        lambda: push_bundle(newer, "copy.zip"),
        lambda: pull_bundle(str(newer), Path("copy")),
        lambda: load_bundle(newer, registry()),
    ):
        with pytest.raises(BundleError, match=r"bundle format 99.*reads format 1.*pip install --upgrade simmat"):
            attempt()
    assert [path.name for path in here.iterdir()] == ["newer"]


def _registry_with(weights: Path) -> Registry:
    """A registry in which the tiny model has a weight file."""
    known = registry()
    file = WeightFile(weights.name, sha256_of(weights), path=weights)
    return Registry(
        (),
        [
            ("modality", known.modality("gray"), "test"),
            ("foundation model", replace(known.foundation("tiny"), weights=file), "test"),
            ("transfer layer", known.transfer_layer("mat"), "test"),
            ("tuner", known.tuner("frozen"), "test"),
        ],
    )


def test_other_foundation_weights_are_refused_by_their_sha256(here: Path) -> None:
    """The tuned part alone means nothing on other weights, and gives masks that look like some."""
    model = cast(nn.Module, build_foundation(TINY, image_size=256, weights=None, seed=1))
    weights = model.state_dict()
    save_file(weights, "right.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, "other.safetensors")
    right, other = (sha256_of(Path(f"{name}.safetensors")) for name in ("right", "other"))
    bundle = tiny_bundle(here / "bundle", foundation_sha256=right)
    load_bundle(bundle, _registry_with(Path("right.safetensors")))
    with pytest.raises(BundleError, match=rf"'tiny' weights with sha256 {right[:12]}.* has {other[:12]}"):
        load_bundle(bundle, _registry_with(Path("other.safetensors")))


def test_errors_name_the_zip_and_not_where_it_was_unpacked(zipped: Path, here: Path) -> None:
    """A path under /tmp that is gone by then helps nobody."""
    with pytest.raises(ConfigError, match=r"gray\.zip .*random"):
        load_bundle(zipped, registry(), checkpoint=Path("w.pth"))
    with zipfile.ZipFile(zipped) as archive:
        files = {name: archive.read(name) for name in NAMES}
    files["weights.safetensors"] += b"x"
    with zipfile.ZipFile("mixed.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(BundleError, match=r"^mixed\.zip/weights\.safetensors is damaged"):
        load_bundle(Path("mixed.zip"), registry())


def test_a_json_deep_in_brackets_is_damaged(here: Path) -> None:
    """A stranger's file must not end in a traceback of the json reader."""
    Path("deep").mkdir()
    Path("deep/bundle.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(BundleError, match=r"bundle\.json is damaged \(.*nested deeper"):
        pull_bundle("deep", Path("out"))
    assert [path.name for path in here.iterdir()] == ["deep"]
