"""The commands of docs/real-sensors.md, on the real data they name; skipped where the data is not there."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from simmat.cli import run

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("SIMMAT_SHARED_DATA", ROOT.parent / "shared" / "data"))
PAGE = (ROOT / "docs" / "real-sensors.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^simmat (train .*--foundation FM .*)$", PAGE, flags=re.MULTILINE)


def name_of(command: str) -> str:
    return command.rsplit("/", 1)[1]


def test_every_set_has_its_command() -> None:
    """A set nobody can train on from the docs is not served."""
    assert len(COMMANDS) == 8
    if DATA.is_dir():
        assert {name_of(command) for command in COMMANDS} == {path.name for path in DATA.iterdir() if path.is_dir()}


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no sensor data at {DATA}; set SIMMAT_SHARED_DATA")
@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_a_set_trains_and_evaluates_by_its_command(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page promises one command a set, without a line of Python."""
    name = name_of(command)
    words = shlex.split(
        command.replace("DATA/", f"{DATA}/").replace("FM", "sam_vit_tiny").replace("runs/", f"{tmp_path}/")
    )
    assert run([*words, "--steps", "2", "--batch-size", "2", "--image-size", "64", "--device", "cpu"]) == 0
    capsys.readouterr()
    arguments = ["eval", str(tmp_path / name / "bundle"), "--data", str(DATA / name), "--split", "val", "--json"]
    assert run(arguments) == 0
    tuned = json.loads(capsys.readouterr().out)["tuned"]
    assert tuned["objects"] >= tuned["images"] >= 4
    assert 0 <= tuned["miou_oracle"] <= 1
    assert tuned["miou_oracle"] >= tuned["miou_best_predicted"]
