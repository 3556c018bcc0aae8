"""Readers that end in other ways than allowed: what the runner must notice."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from fuzz.case import Case, Place, Target
from fuzz.damage import CODE
from simmat.errors import DataError, PluginError


def _raise(error: Exception) -> None:
    raise error


def _probe(name: str, end: Callable[[], object]) -> Target:
    """Make a reader that ends so for numbers over 40 in a file."""

    def prepare(place: Place, rng: random.Random) -> Case:
        number = rng.getrandbits(8)
        place.put("number.txt", str(number).encode())
        return Case(lambda: end() if number > 40 else None)

    return Target(name, prepare)


_ENDINGS: dict[str, Callable[[], object]] = {
    "refused": lambda: _raise(DataError("file: not an image; give another")),
    "exception": lambda: _raise(KeyError("unit")),
    "exception of a plugin": lambda: _raise(
        PluginError("a fault in the sensor's plugin")
    ),
    "leftovers": lambda: Path("../tmp/left").touch(),
    "code run": lambda: subprocess.run(CODE.split(), check=True),
    "memory": lambda: _raise(MemoryError()),
    "died": lambda: os.kill(os.getpid(), 11),
    "hangs": lambda: time.sleep(600),
}
PROBES = {name: _probe(name, end) for name, end in _ENDINGS.items()}
"""Kind of outcome -> a reader that ends in it."""
