"""Packages: a wheel holds the files of the repository, and nothing that an earlier build left."""

from __future__ import annotations

import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from virtual_envs import run_in

ROOT = Path(__file__).parents[1]
PROJECTS = [
    *(path.parent for pattern in ("", "plugins/*/", "examples/*/") for path in ROOT.glob(f"{pattern}pyproject.toml")),
]


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_every_package_is_built_without_leftovers(folder: Path) -> None:
    """A module deleted by `git pull` would be installed again from build/, and a plugin with it."""
    tool = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert tool["distutils"]["aliases"] == {"bdist_wheel": "clean --all bdist_wheel"}


@pytest.mark.slow
def test_a_wheel_holds_no_module_that_is_gone(tmp_path: Path) -> None:
    """The alias is looked up by name in setuptools, which could stop doing so."""
    folder = tmp_path / "nir"
    ignored = shutil.ignore_patterns("build", "*.egg-info", "tests")
    shutil.copytree(ROOT / "plugins/simmat-plugin-nir", folder, ignore=ignored)
    left = folder / "build/lib/simmat_plugin_nir/gone.py"
    left.parent.mkdir(parents=True)
    left.touch()
    done = run_in(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), str(folder))
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "simmat_plugin_nir/nir.py" in names
    assert "simmat_plugin_nir/gone.py" not in names
