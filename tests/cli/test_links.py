"""What a command writes stays in the folder that the user named, whatever links someone else has put there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bundles import tiny_bundle
from runs import files_of, gray_set

from simmat.cli import run
from simmat.io.files import TEMPORARY_MARK

TRAIN = (
    "--image-size 64 --steps 2 --val-every 1 --batch-size 2 --prompts-per-image 1 --lr 1e-4 --workers 0 --device cpu "
    "--no-pictures"
)
INPUTS = (
    "SET",
    "BUNDLE",
    "RUN",
    "SENSORS.toml",
)
PATHS_OF = {"open": 1, "os.mkdir": 1, "os.rename": 2, "os.symlink": 2}
"""Audit event of what makes a file or folder -> how many of its arguments are paths."""


@dataclass(frozen=True)
class Command:
    """A command that writes into the folder OUT.

    Attributes:
        first: arguments of the call that tells where it writes; the names of INPUTS and OUT stand for paths.
        again: those of a call in a folder that holds all that the first call wrote.
        lost: what is removed of a finished call, so that there is something to do again.
    """

    first: str
    again: str = ""
    lost: tuple[str, ...] = ()


COMMANDS = {
    "predict": Command(
        "predict BUNDLE SET/images/s0.png SET/images/s1.png --everything --tile 32 --overlap 8 --format coco,geojson "
        "--device cpu --out OUT",
        lost=("s0.json", "s0_objects.geojson", "coco.json"),
    ),
    "predict, clicks": Command(
        "predict BUNDLE SET/images/s0.png --point 14,20 --device cpu --out OUT"
    ),
    "train": Command(
        f"train --modality gray --data SET --foundation tiny {TRAIN} --out OUT",
        "train --resume OUT",
        lost=("bundle.safetensors", "report.json"),
    ),
    "train, several sensors": Command(
        f"train --config SENSORS.toml --foundation tiny {TRAIN} --out OUT",
        "train --resume OUT",
        lost=("day/bundle.safetensors", "bundle.safetensors"),
    ),
    "train, tensorboard": Command(
        f"train --modality gray --data SET --foundation tiny {TRAIN} --track tensorboard --out OUT",
        "train --resume OUT",
        lost=("bundle.safetensors", "report.json"),
    ),
    "eval": Command("eval BUNDLE --data SET --device cpu --out OUT/scores.json"),
    "data check": Command("data check OUT --modality gray --write-card"),
    "data preview": Command("data preview SET --modality gray --out OUT/sheet.png"),
    "data convert": Command(
        "data convert SET --modality gray --to coco --images link --out OUT/set"
    ),
    "data simulate": Command(
        "data simulate --modality gray --count 3 --size 48 40 --out OUT/set"
    ),
    "bundle push": Command("bundle push BUNDLE OUT/pushed.safetensors --force"),
    "report": Command("report RUN --out OUT/page.html"),
}
"""Those that run in one process; what others write is tested by their plugins."""
QUICK = ("predict", "eval")

_made: list[Path] | None = None


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if _made is None or event not in PATHS_OF:
        return
    if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
        return
    for path in arguments[: PATHS_OF[event]]:
        if isinstance(path, str | bytes | os.PathLike):
            _made.append(Path(os.fsdecode(path)))


sys.addaudithook(_note)  # none can be removed


@contextmanager
def _noting() -> Iterator[list[Path]]:
    """Give the paths of all that is made while the block runs."""
    global _made
    _made = []
    try:
        yield _made
    finally:
        _made = None


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    gray_set(folder / "SET", train=3, val=1, test=1)
    tiny_bundle(folder / "BUNDLE")
    words = f"train --modality gray --data SET --foundation tiny {TRAIN} --out RUN"
    assert _run(words, folder, folder) == 0
    gray_set(folder / "NIGHT", train=3, val=1, test=1)
    sensors = [
        f'[[data]]\nname = "{name}"\nmodality = "gray"\ndata = "{folder / place}"\n'
        for name, place in (("day", "SET"), ("night", "NIGHT"))
    ]
    (folder / "SENSORS.toml").write_text("".join(sensors))
    return folder


def _run(words: str, inputs: Path, out: Path) -> int:
    arguments = []
    for word in words.split():
        name, slash, rest = word.partition("/")
        if name == "OUT":
            word = f"{out}{slash}{rest}"
        elif name in INPUTS:
            word = f"{inputs / name}{slash}{rest}"
        arguments.append(word)
    return run(arguments)


def _places(made: list[Path], out: Path) -> list[Path]:
    """Return the paths below OUT where a call made files or folders; of alike files of a folder one."""
    places = set()
    for path in made:
        if not path.is_relative_to(out) or TEMPORARY_MARK in str(path):
            continue
        inner = path.relative_to(out)
        places |= {inner, *inner.parents}
    alike = {}
    for place in sorted(places - {Path()}):
        if (out / place).is_dir():
            alike[place] = place
        else:
            alike.setdefault(place.parent / f"*{place.suffix}", place)
    return list(alike.values())


def _link(place: Path, outside: Path) -> None:
    """Put a link in a place, and what was there, or something else, outside."""
    outside.mkdir()
    target = outside / "target"
    if place.exists():
        shutil.move(place, target)
    elif place.suffix in ("", ".windows"):
        target.mkdir()
    else:
        target.write_text("mine")
    if target.is_dir():
        (target / "precious.png").write_text("mine")
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in COMMANDS
    ],
)
def test_no_link_leads_out_of_the_folder(
    name: str,
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each place that a command writes to is a link once, in an empty folder and in that of a finished call."""
    monkeypatch.setenv("SIMMAT_CACHE", str(tmp_path / "home"))
    command = COMMANDS[name]
    empty, whole = tmp_path / "empty", tmp_path / "whole"
    empty.mkdir()
    if name == "data check":
        shutil.rmtree(empty)
        shutil.copytree(inputs / "SET", empty)
    shutil.copytree(empty, whole)
    with _noting() as made:
        assert _run(command.first, inputs, whole) == 0
    places = _places(made, whole)
    assert places
    for number, (start, words) in enumerate(
        ((empty, command.first), (whole, command.again or command.first))
    ):
        for place in places:
            case = tmp_path / f"{number}-{'-'.join(place.parts)}"
            shutil.copytree(start, case / "out", symlinks=True)
            _link(case / "out" / place, case / "outside")
            for lost in command.lost:
                shutil.rmtree(case / "out" / lost, ignore_errors=True)
                if Path(lost) != place and (case / "out" / lost).is_file():
                    (case / "out" / lost).unlink()
            before = files_of(case / "outside")
            capsys.readouterr()
            code = _run(words, inputs, case / "out")
            said = capsys.readouterr().err
            assert files_of(case / "outside") == before, f"{place}: {said}"
            assert code in (0, 2), f"{place}: {said}"
            assert "Traceback" not in said, place
            if code == 2:
                assert said.count("error: ") == 1, f"{place}: {said}"
