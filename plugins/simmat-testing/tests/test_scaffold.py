"""`simmat plugins new`: a package that works at once, or a word on why not."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simmat_testing.find_parts import find_checkable
from simmat_testing.scaffold import KINDS, make_plugin
from virtual_envs import make_venv, run_in

from simmat.cli import run
from simmat.plugins.loader import load_plugins


def test_it_makes_a_package_and_says_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newcomer copies the next line from here."""
    monkeypatch.chdir(tmp_path)
    assert run(["plugins", "new", "side-scan"]) == 0
    said = capsys.readouterr().out
    made = tmp_path / "simmat-plugin-side-scan"
    files = sorted(
        str(file.relative_to(made)) for file in made.rglob("*") if file.is_file()
    )
    assert files == [
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/simmat_plugin_side_scan/__init__.py",
        "src/simmat_plugin_side_scan/py.typed",
        "tests/sample.png",
        "tests/test_simmat_plugin_side_scan.py",
    ]
    assert "pip install --editable ./simmat-plugin-side-scan" in said


def test_no_check_of_its_sensor_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that is skipped says nothing; a newcomer who reads "0 failed" takes the sensor for checked."""
    made = make_plugin("ultrasound-probe", tmp_path)
    monkeypatch.syspath_prepend(str(made / "src"))
    entry = importlib.metadata.EntryPoint(
        "ultrasound-probe", "simmat_plugin_ultrasound_probe", "simmat"
    )
    ((_, _, run_in),) = find_checkable("ultrasound-probe", load_plugins([entry], {}))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    results = list(run_in(scratch))
    assert len(results) > 12
    assert {
        result.check: result.why for result in results if result.status != "ok"
    } == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sensor"])
def test_a_part_of_each_other_kind_passes_its_checks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example is what its author changes; it must not begin with a broken rule."""
    name = "new_metric" if kind == "metric" else f"new-{kind}"
    monkeypatch.syspath_prepend(str(make_plugin(f"new-{kind}", tmp_path, kind) / "src"))
    entry = importlib.metadata.EntryPoint(name, f"simmat_plugin_new_{kind}", "simmat")
    ((_, _, run_in),) = find_checkable(name, load_plugins([entry], {}))
    results = list(run_in(tmp_path))
    unkept = {result.check for result in results if result.status != "ok"}
    # it is random
    assert unkept == (
        {"weights-are-the-ones-described"} if kind == "foundation" else set()
    )
    assert results


@pytest.mark.parametrize("kind", KINDS)
def test_what_it_makes_is_clean(kind: str, tmp_path: Path) -> None:
    """Code that people begin with should not greet them with warnings."""
    made = make_plugin("sonar", tmp_path, kind)
    assert all(
        "$" not in file.read_text()
        for file in made.rglob("*")
        if file.suffix in (".py", ".toml", ".md")
    )
    own = [
        "--isolated",
        "--no-cache",
        "--line-length",
        "120",
        "--target-version",
        "py311",
    ]
    for command in (
        ["check", "--select", "E,F,W,I,UP,B,C4,SIM,RUF,PT"],
        ["format", "--check"],
    ):
        line = [sys.executable, "-m", "ruff", *command, *own, "."]
        done = subprocess.run(
            line, capture_output=True, text=True, check=False, cwd=made
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("train --kind command", "'train' .*SimMAT itself"),
        ("lora --kind tuner", "'lora' .*simmat "),
        ("boundary-iou --kind metric", "'boundary-iou' .*simmat "),
        ("My-Sonar", "lower case .*'My-Sonar'"),
        ("3d", "letter first, got '3d'"),
        ("a--b", "single hyphens"),
        ("../x", "single hyphens"),
        ("simmat-plugin-sonar", "'sonar'"),
        ("mask", "id, split, mask, .*'mask'"),
        ("rgb", "'rgb' .*simmat "),
    ],
)
def test_a_name_that_cannot_be_is_refused(
    name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two packages of one name would shut each other out."""
    assert run(["plugins", "new", *name.split(), "--path", str(tmp_path)]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_never_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may hold a week's work."""
    there = tmp_path / "simmat-plugin-lidar"
    there.mkdir()
    (there / "mine.py").write_text("x = 1")
    assert run(["plugins", "new", "lidar", "--path", str(tmp_path)]) == 2
    assert str(there) in capsys.readouterr().err
    assert [file.name for file in there.iterdir()] == ["mine.py"]


@pytest.mark.slow
def test_it_is_installed_checked_and_tested_without_a_change(tmp_path: Path) -> None:
    """The promise of the command: these three lines, and all is green."""
    python = make_venv(tmp_path / "env")
    for name, kind in (("sonar-one", "sensor"), ("share-found", "metric")):
        for words in (
            f"simmat plugins new {name} --kind {kind}",
            f"pip install --editable ./simmat-plugin-{name}",
            f"simmat plugins check simmat-plugin-{name}",
            f"pytest -q simmat-plugin-{name}",
        ):
            done = run_in(python, "-m", *words.split(), cwd=tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
