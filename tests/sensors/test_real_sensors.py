"""The commands of docs/transfer.md, on the real data they name; skipped where the data is not there."""

from __future__ import annotations

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from data_sets import linked
from installed import SHARED_DATA, need_plugins, needs_shared_data

from simmat.cli import run
from simmat.data.dataset import open_dataset
from simmat.data.samples import SPLITS
from simmat.plugins.loader import load_plugins

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "transfer.md").read_text(encoding="utf-8")
COMMANDS = re.findall(
    r"^simmat (train .*--foundation FM .*)$", PAGE, flags=re.MULTILINE
)


OBJECTS = {
    name: tuple(map(int, counts))
    for name, *counts in re.findall(
        r"^\| ([\w-]+) \| (\d+) \| (\d+) \| (\d+) \|", PAGE, flags=re.MULTILINE
    )
}
"""Set -> objects of train, val and test, as published."""


def name_of(command: str) -> str:
    return command.rsplit("/", 1)[1]


def need_sensor(modality: str) -> None:
    if modality not in ("gray", "raster", "rgb"):
        need_plugins(modality)


def test_every_command_has_its_set() -> None:
    """A command for a set that is not there serves nobody; others may lie beside it, for other pages."""
    assert len(COMMANDS) == 8
    if SHARED_DATA.is_dir():
        assert {name_of(command) for command in COMMANDS} <= {
            path.name for path in SHARED_DATA.iterdir() if path.is_dir()
        }


@needs_shared_data
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            c, id=name_of(c), marks=[pytest.mark.slow] if "rgb-regions" in c else []
        )
        for c in COMMANDS
    ],
)
def test_a_set_has_the_objects_that_are_published(command: str) -> None:
    """The rule of the command on the masks; images hide none, or `eval` would score fewer, which the next test sees."""
    words = shlex.split(command.replace("DATA/", f"{SHARED_DATA}/"))
    given = {flag: value for flag, value in pairwise(words) if flag.startswith("--")}
    need_sensor(given["--modality"])
    smallest = int(given["--min-region"]) if "--min-region" in given else None
    adapter = load_plugins().modality(given["--modality"])
    dataset = open_dataset(
        given["--data"],
        adapter,
        {"regions": given["--regions"], "min_region": smallest},
    )
    counts = (
        sum(len(dataset.label(sample).regions) for sample in dataset.split(name))
        for name in SPLITS
    )
    assert tuple(counts) == OBJECTS[name_of(command)]


@pytest.mark.slow
@needs_shared_data
@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_a_set_trains_and_evaluates_by_its_command(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page promises one command a set, without a line of Python."""
    name = name_of(command)
    need_sensor(command.split()[2])
    data = linked(SHARED_DATA / name, tmp_path / "data" / name)
    words = shlex.split(
        command.replace("DATA/", f"{data.parent}/")
        .replace("FM", "tiny")
        .replace("runs/", f"{tmp_path}/")
    )
    assert (
        run(
            [
                *words,
                "--steps",
                "2",
                "--batch-size",
                "2",
                "--image-size",
                "64",
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    capsys.readouterr()
    arguments = [
        "eval",
        str(tmp_path / name),
        "--data",
        str(data),
        "--split",
        "val",
        "--json",
    ]
    assert run(arguments) == 0
    tuned = json.loads(capsys.readouterr().out)["tuned"]
    assert tuned["objects"] == OBJECTS[name][1]
    assert tuned["images"] >= 4
    # Two steps of a random network find little, but more than nothing; the oracle picks among what the prediction does.
    assert 1 > tuned["miou_oracle"] >= tuned["miou_best_predicted"] > 0
