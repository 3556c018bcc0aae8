"""Bundles of version 0.1: folders and zips, which are still read."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from bundles import tiny_bundle, write_old_bundle, zip_old_bundle
from runs import registry

from simmat.bundle import (
    FILE_NAME,
    load_bundle,
    read_bundle,
    read_bundle_spec,
    read_sensors,
    write_sensors,
)
from simmat.errors import BundleError


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("new") / "bundle")


@pytest.fixture
def old(bundle: Path, tmp_path: Path) -> Path:
    return write_old_bundle(tmp_path / "run/bundle", bundle)


@pytest.mark.parametrize(
    "place",
    ["run/bundle", "run", "run/bundle/bundle.json", "run/bundle.safetensors", "a.zip"],
)
def test_an_old_bundle_is_the_same_model(
    bundle: Path, old: Path, tmp_path: Path, place: str
) -> None:
    """A model that took days to train stays usable, under every name that one typed."""
    zip_old_bundle(tmp_path / "a.zip", old)
    found, expected = (
        load_bundle(tmp_path / place, registry()),
        load_bundle(bundle, registry()),
    )
    assert found.spec.model_copy(update={"sha256": ""}) == expected.spec.model_copy(
        update={"sha256": ""}
    )
    theirs = expected.model.state_dict()
    assert all(
        torch.equal(tensor, theirs[name])
        for name, tensor in found.model.state_dict().items()
    )


def test_a_sensor_of_an_old_bundle_is_named_behind_it(
    bundle: Path, tmp_path: Path
) -> None:
    """A training on several sensors wrote them into one folder."""
    new = tmp_path / "new" / FILE_NAME
    write_sensors(new, {"day": read_bundle(bundle), "night": read_bundle(bundle)})
    old = write_old_bundle(tmp_path / "run/bundle", new)
    zip_old_bundle(tmp_path / "a.zip", old)
    for place in ("run/night", "run/bundle/night", "run/night/bundle", "a.zip/night"):
        assert list(read_sensors(tmp_path / place)) == ["night"]


def test_a_run_of_both_versions_has_the_newer_bundle(bundle: Path, old: Path) -> None:
    """A resumed run writes the new file beside the old folder."""
    spec, tensors = read_bundle(bundle)
    write_sensors(
        old.parent / FILE_NAME,
        {"": (spec.model_copy(update={"licence": "mit"}), tensors)},
    )
    assert read_bundle_spec(old.parent).licence == "mit"


def _cut(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-3])


def _change(folder: Path) -> None:
    file = folder / "bundle.json"
    file.write_text(file.read_text().replace('"mean": 60.0', '"mean": 61.0'))


def _nest(folder: Path) -> None:
    (folder / "bundle.json").write_text("[" * 100_000)


def _newer(folder: Path) -> None:
    document = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(document | {"format": 9}))


@pytest.mark.parametrize("damage", [_cut, _change, _nest, _newer])
@pytest.mark.parametrize("is_zip", [False, True])
def test_a_damaged_old_bundle_is_refused(
    old: Path, tmp_path: Path, damage: object, is_zip: bool
) -> None:
    """Older files are no less checked."""
    assert callable(damage)
    damage(old)
    place = zip_old_bundle(tmp_path / "a.zip", old) if is_zip else old
    with pytest.raises(BundleError, match=r"(a\.zip|bundle) is damaged"):
        load_bundle(place, registry())


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
def test_a_file_of_an_old_bundle_that_is_missing_is_named(
    old: Path, tmp_path: Path, name: str
) -> None:
    """A copy may be a part of one."""
    (old / name).unlink()
    zip_old_bundle(tmp_path / "a.zip", old)
    for place in (old, tmp_path / "a.zip"):
        with pytest.raises(BundleError):
            load_bundle(place, registry())


def test_a_compressed_zip_is_refused(old: Path, tmp_path: Path) -> None:
    """Version 0.1 compressed none, and one of a stranger may grow until memory ends."""
    (old / "weights.safetensors").write_bytes(b"\0" * (1 << 24))
    packed = zip_old_bundle(tmp_path / "a.zip", old, zipfile.ZIP_DEFLATED)
    assert packed.stat().st_size < 1 << 18
    with pytest.raises(
        BundleError, match=r"a\.zip is a zip that SimMAT did not write; unpack it"
    ):
        load_bundle(packed, registry())


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\3\4"])
def test_a_file_that_is_no_zip_is_damaged(tmp_path: Path, content: bytes) -> None:
    """By its own name."""
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(BundleError, match=r"a\.zip is damaged"):
        load_bundle(tmp_path / "a.zip", registry())


def test_a_zip_writes_no_file(old: Path, tmp_path: Path) -> None:
    """Whatever else is in it, and however that is named."""
    zip_old_bundle(tmp_path / "a.zip", old)
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("../evil", b"x")
    shutil.rmtree(old.parent)
    read_bundle_spec(tmp_path / "a.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
