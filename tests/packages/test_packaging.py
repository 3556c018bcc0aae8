"""Packages: what is published of them, and wheels that hold what the repository does, without leftovers."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import simmat

ROOT = Path(__file__).parents[2]
PROJECTS = [
    *(
        path.parent
        for pattern in ("", "plugins/*/", "examples/*/")
        for path in ROOT.glob(f"{pattern}pyproject.toml")
    ),
]


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_every_package_is_built_without_leftovers(folder: Path) -> None:
    """A module deleted by `git pull` would be installed again from build/, and a plugin with it."""
    tool = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))[
        "tool"
    ]
    assert tool["distutils"]["aliases"] == {"bdist_wheel": "clean --all bdist_wheel"}


def test_the_image_is_given_packages_alone() -> None:
    """Its build installs every folder of plugins/, and fails at one that is no package."""
    left_out = (ROOT / ".dockerignore").read_text().split()
    folders = [
        path
        for path in (ROOT / "plugins").iterdir()
        if f"plugins/{path.name}" not in left_out
    ]
    assert [
        path.name
        for path in folders
        if path.is_dir() and not (path / "pyproject.toml").is_file()
    ] == []


@pytest.fixture(scope="module")
def release() -> ModuleType:
    """The script that builds what is published."""
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci/release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_all_packages_have_the_version_of_the_core(
    folder: Path, release: ModuleType
) -> None:
    """A plugin that needs another range cannot be installed beside the others."""
    text = (folder / "pyproject.toml").read_text(encoding="utf-8")
    assert text == release.bumped(text, simmat.__version__)
    assert text != release.bumped(text, "7.8.9")


def test_published_packages_have_the_metadata_of_the_core_and_links_that_lead_somewhere(
    release: ModuleType, tmp_path: Path
) -> None:
    """An index shows a readme without the repository: a relative link or picture is broken there."""
    address = "https://git.example/simmat"
    done: set[str] = set()
    for name, folder in release.packages().items():
        copy = tmp_path / name
        # raises for a link to a file that is not there
        release.stage(folder, copy, address)
        project = tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))[
            "project"
        ]
        assert (
            project["urls"]["Changelog"]
            == f"{address}/blob/v{simmat.__version__}/CHANGELOG.md"
        )
        assert project["authors"] == [{"name": "SimMAT developers"}]
        assert "Typing :: Typed" in project["classifiers"]
        assert (
            release.LINK.search((copy / "README.md").read_text(encoding="utf-8"))
            is None
        )
        needed = {
            need.split(">")[0]
            for need in project["dependencies"]
            if need.startswith("simmat")
        }
        assert needed <= done  # each is built after those that it needs
        done.add(name)
    assert len(done) == 1 + len(list(ROOT.glob("plugins/*/pyproject.toml")))
