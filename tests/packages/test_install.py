"""`install.py`: the packages of a clone that a plugin requires, without a list that somebody has to type."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted((ROOT / "examples").glob("*.ipynb")),
]
COMMAND = re.compile(r"python install\.py ((?!--)[^`#\n]+)")


@pytest.fixture(scope="module")
def install() -> ModuleType:
    """The script."""
    spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_requirement_of_what_is_installed_is_installed(
    install: ModuleType,
) -> None:
    """pip would look for a missing one in the index, where there is none before a release."""
    projects = install.read_projects()
    assert len(projects) > 28
    for wanted in projects:
        required = install.find_required([wanted], projects)
        assert wanted in required
        for name in required:
            _, project = projects[name]
            needs = {Requirement(need).name for need in project["dependencies"]}
            assert needs & projects.keys() <= {*required}


def test_nothing_is_installed_that_nobody_asked_for(install: ModuleType) -> None:
    """A demo that installs every plugin takes minutes more."""
    projects = install.read_projects()
    assert install.find_required(["simmat-runtime"], projects) == ["simmat-runtime"]
    assert install.find_required(["simmat"], projects) == ["simmat"]
    demo = install.find_required(["simmat-plugin-multispectral"], projects)
    assert "simmat-plugin-geo" in demo
    assert "simmat-plugin-annotate" not in demo


def test_what_an_extra_requires_is_installed_with_it(install: ModuleType) -> None:
    """An extra may name a package of the clone, or other extras of its own package."""
    projects = install.read_projects()
    assert install.find_required(["simmat[geo]"], projects) == [
        "simmat",
        "simmat-plugin-geo",
    ]
    needs = {"all": ["one[maps]"], "maps": ["two>=0.1"]}
    one = {"dependencies": [], "optional-dependencies": needs}
    made = {"one": (ROOT, one), "two": (ROOT, {"dependencies": ["one>=0.1"]})}
    assert install.find_required(["one"], made) == ["one"]
    assert install.find_required(["one[all]"], made) == ["one", "two"]


@pytest.mark.parametrize(
    ("word", "requirement"),
    [
        ("thermal", "simmat-plugin-thermal"),
        ("simmat-plugin-thermal", "simmat-plugin-thermal"),
        ("sequences[nifti, video]", "simmat-plugin-sequences[nifti,video]"),
        ("runtime", "simmat-runtime"),
        ("simmat[dask]", "simmat[dask]"),
        ("napari-simmat[all]", "napari-simmat[all]"),
    ],
)
def test_a_package_is_named_by_the_end_of_its_name(
    word: str, requirement: str, install: ModuleType
) -> None:
    """`thermal` is what a user types."""
    assert install.full_requirement(word, install.read_projects()) == requirement


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("termal", "thermal"),
        ("sequences[nifty]", "dicom, nifti"),
        ("thermal==9", "is no name of a package"),
        ("sequences[nifti", "is no name of a package"),
        ("thermal@http://elsewhere", "is no name of a package"),
    ],
)
def test_an_unknown_name_is_refused_with_those_that_exist(
    word: str,
    said: str,
    install: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A slip must not be searched for in the index; nothing is installed."""
    monkeypatch.setattr(sys, "argv", ["install.py", "thermal", word])
    monkeypatch.setattr(install, "pip_install", lambda *_: pytest.fail("installed"))
    with pytest.raises(SystemExit) as stopped:
        install.main()
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
