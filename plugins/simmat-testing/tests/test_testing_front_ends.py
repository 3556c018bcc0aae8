"""The two front ends of the conformance kit: pytest classes and `simmat plugins check`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simmat_testing import find_parts
from simmat_testing.find_parts import MODALITY_CHECKS

from simmat.cli import run
from simmat.io.images import write_image

BROKEN_TEST = """
import pytest
from dataclasses import replace
from simmat.sensors.builtin import Gray
from simmat_testing import ModalityContract

class NarrowGray(Gray):
    channels = (replace(Gray.channels[0], unit="DN"),)

class TestNarrowGray(ModalityContract):
    @pytest.fixture
    def modality(self):
        return NarrowGray()

class TestForgotten(ModalityContract):
    pass
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run two checks of a sensor alone: what a front end shows does not depend on how many there are."""
    few = {
        name: MODALITY_CHECKS[name]
        for name in ("unit-fits-quantity", "same-file-same-bits")
    }
    monkeypatch.setitem(find_parts.BY_KIND, "modality", few)
    return list(few)


def _broken(case: object) -> None:
    """Nothing is broken."""
    print("a plugin talks")
    raise RuntimeError("it\nbroke")


@pytest.mark.slow
def test_pytest_names_each_check_and_shows_rule_finding_and_advice(
    tmp_path: Path,
) -> None:
    """The message is all an author gets; a traceback through the kit would hide it."""
    (tmp_path / "test_broken.py").write_text(BROKEN_TEST, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-n",
        "0",
        "-k",
        "unit or TestForgotten and names",
    ]
    done = subprocess.run(
        [*command, "-rA", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        "FAILED test_broken.py::TestNarrowGray::test_contract[unit-fits-quantity]"
        in done.stdout
    )
    assert "unit-fits-quantity: The unit of a channel" in done.stdout
    assert re.search("found: .*'gray' .*'DN'", done.stdout)
    assert re.search("do: .*'count'", done.stdout)
    assert "simmat_testing/checks.py" not in done.stdout
    assert "fixture 'modality' not found" in done.stdout


def test_the_kit_loads_without_pytest_and_asks_for_it_where_it_is_needed() -> None:
    """pytest is no dependency of SimMAT; `simmat plugins check` must work without."""
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import simmat_testing\n"
        "from simmat_testing.find_parts import MODALITY_CHECKS\n"
        "print(len(MODALITY_CHECKS))\n"
        "simmat_testing.ModalityContract"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert int(done.stdout) == len(MODALITY_CHECKS)
    assert "pip install pytest" in done.stderr


@pytest.mark.plugins
@pytest.mark.usefixtures("quick")
def test_the_command_prints_one_line_for_each_check(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One can read it at a glance and grep it."""
    assert run(["plugins", "check", "gray"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert lines == [
        ["modality", "gray"],
        ["ok", "unit-fits-quantity"],
        ["ok", "same-file-same-bits"],
        ["2", "ok,", "0", "failed,", "0", "skipped"],
    ]


@pytest.mark.plugins
@pytest.mark.usefixtures("quick")
def test_what_cannot_be_checked_is_skipped_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A check that did not run must not look like one that passed."""
    assert run(["plugins", "check", "raster"]) == 0
    out = capsys.readouterr().out
    assert "skipped  unit-fits-quantity" in out
    assert "--source raster=FILE" in out


@pytest.mark.plugins
@pytest.mark.usefixtures("quick")
def test_a_sample_file_can_be_given(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A sensor that is not simulated is checked on a recording."""
    file = tmp_path / "a.npy"
    write_image(file, np.zeros((2, 8, 9), dtype=np.float32))
    assert run(["plugins", "check", "raster", "--source", f"raster={file}"]) == 0
    assert "ok       same-file-same-bits" in capsys.readouterr().out


@pytest.mark.plugins
def test_a_failure_ends_with_1_and_json_stays_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build server reads the code, a page the json; neither may trip over a plugin that prints."""
    monkeypatch.setitem(find_parts.BY_KIND, "modality", {"broken": _broken})
    assert run(["plugins", "check", "gray", "--json"]) == 1
    captured = capsys.readouterr()
    shown = json.loads(captured.out)
    assert (shown["ok"], shown["failed"], shown["skipped"]) == (0, 1, 0)
    (check,) = shown["subjects"][0]["checks"]
    assert check["rule"] == "Nothing is broken."
    assert check["why"].startswith(f"RuntimeError: it broke ({__file__}, line ")
    assert "a plugin talks" in captured.err


@pytest.mark.plugins
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("grya", "'grya'.*'gray'"),
        ("gray --source gray", "--source .*NAME=FILE.*'gray'"),
        ("gray --source gray=nothing.png", "nothing.png"),
        (f"gray --source grey={__file__}", "'gray' .*got files of grey"),
        (f"tiny --source gray={__file__}", "sensor.*'tiny'"),
        ("tiny --image-size 7", "multiple of 16, got --image-size 7"),
        ("gray --image-size 64", "--image-size .*foundation models.*'gray'"),
        (f"gray --source gray={os.devnull} --source gray={os.devnull}", os.devnull),
    ],
)
def test_a_mistake_ends_with_2_and_one_line(
    capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    """2 is a mistake one can fix; 1 means that a plugin is broken."""
    assert run(["plugins", "check", *words.split()]) == 2
    captured = capsys.readouterr()
    assert re.search(said, captured.err)
    assert captured.out == ""


@pytest.mark.plugins
def test_a_package_brings_all_that_it_gives(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One command before a release."""
    good = {"good": lambda case: None}
    for kind in find_parts.BY_KIND:
        monkeypatch.setitem(find_parts.BY_KIND, kind, good)
    monkeypatch.setattr(find_parts, "PACKAGE_CHECKS", good)
    assert run(["plugins", "check", "simmat", "--json"]) == 0
    shown = [
        (subject["kind"], subject["name"])
        for subject in json.loads(capsys.readouterr().out)["subjects"]
    ]
    assert shown[0] == ("package", "simmat")
    assert {name for kind, name in shown if kind == "modality"} == {
        "rgb",
        "gray",
        "raster",
    }
    assert {("transfer layer", "mat"), ("tuner", "lora")} <= set(shown)
