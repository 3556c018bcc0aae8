"""What a case of bad input is: a command, how its folder is spoiled, and what the message must name."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DOTS = (
    "--modality gray --foundation tiny --image-size 64 --steps 1 --data data --out out"
)
"""What `…` in a command stands for."""

Spoil = Callable[[], Any]
"""Is called in the folder that holds `data` and `run`."""


class Case:
    """A mistake at the command line.

    Args:
        named: what the message must contain: paths, values, allowed values, the remedy.
        spoil: makes the mistake, if it is not in the command.
        run: the command; `…` stands for a whole training of one step.
    """

    def __init__(
        self, *named: str, spoil: Spoil | None = None, run: str = "train …"
    ) -> None:
        self.named = named
        self.spoil = spoil or (lambda: None)
        self.needs_two_sensors = "r2" in run
        self.arguments = shlex.split(run.replace("…", DOTS, 1))


def png(path: Path | str, values: Any) -> None:
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def replace(path: Path | str, *pairs: tuple[str, str]) -> Spoil:
    """Replace parts of a text file; each must be there."""

    def put() -> None:
        file = Path(path)
        text = file.read_text(encoding="utf-8")
        for old, new in pairs:
            assert old in text, (path, old)
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")

    return put


def gone(path: str) -> Spoil:
    return Path(path).unlink


def cut(path: str, size: int = 300) -> Spoil:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:size])


def write(path: str, text: str = "no picture\n") -> Spoil:
    return lambda: Path(path).write_text(text, encoding="utf-8")


def both(*steps: Spoil) -> Spoil:
    return lambda: [step() for step in steps]
