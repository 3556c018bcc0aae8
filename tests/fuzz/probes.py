"""Readers that end in every way: what the runner must notice."""

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


def _refuse() -> None:
    raise DataError("file: not an image; give another")


def _fail() -> None:
    raise KeyError("unit")


def _blame_the_plugin() -> None:
    raise PluginError("this is a fault in the sensor's plugin")


def _break_a_promise() -> None:
    assert not os.sep, "a mask of float32"


def _leave_something() -> None:
    Path("../tmp/left").touch()


def _run_code() -> None:
    subprocess.run(CODE.split(), check=True)
    _refuse()


def _take_memory() -> None:
    raise MemoryError


ENDINGS: dict[str, Callable[[], object]] = {
    "value": lambda: None,
    "refused": _refuse,
    "exception": _fail,
    "exception of a plugin": _blame_the_plugin,
    "wrong value": _break_a_promise,
    "leftovers": _leave_something,
    "code run": _run_code,
    "memory": _take_memory,
}
"""Kind of outcome -> what ends in it."""


def _over_40(end: Callable[[], object]) -> Callable[[Place, random.Random], Case]:
    """A reader that ends badly for numbers over 40, in a file."""

    def prepare(place: Place, rng: random.Random) -> Case:
        number = rng.randrange(1000)
        place.put("number.txt", str(number).encode())
        return Case(lambda: end() if number > 40 else None)

    return prepare


PROBES = {
    name: Target(name, _over_40(end))
    for name, end in (
        ("probe-exception", _fail),
        ("probe-crash", lambda: os.kill(os.getpid(), 11)),
        ("probe-hang", lambda: time.sleep(600)),
    )
}
