"""What a target is, and what every image that it reads must be."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from fuzz.mutate import mutate_file
from fuzz.seeds import Seeds
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.types import SensorImage


@dataclass(frozen=True)
class Place:
    """Where one case works.

    Attributes:
        seeds: the valid files.
        files: an empty folder for the damaged files; the reader must leave nothing else in it.
        scratch: an empty folder for whatever the case itself writes.
    """

    seeds: Seeds
    files: Path
    scratch: Path

    def damaged(self, kind: str, rng: random.Random, endings: tuple[str, ...] = ()) -> Path:
        """Pick a seed of one kind, and put a damaged copy of it into `files`."""
        seed = rng.choice(self.seeds.files(kind, endings))
        return self.put(seed.name, mutate_file(seed, rng))

    def put(self, name: str, content: bytes) -> Path:
        """Write a file into `files`."""
        path = self.files / name
        path.write_bytes(content)
        return path

    def link(self, seed: Path) -> Path:
        """Link an undamaged file or folder of the seeds into `files`."""
        path = self.files / seed.name
        path.symlink_to(seed)
        return path


@dataclass(frozen=True)
class Case:
    """A damaged file and what reads it.

    Attributes:
        read: calls the reader. It returns where the reader gave what it promises, and raises AssertionError where it
            gave something else; what the reader raises goes through.
        outputs: names of the files, relative to `Place.files`, that may be there after it returned.
    """

    read: Callable[[], object]
    outputs: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: on the command line.
        prepare: makes a case of a place and a source of random numbers.
        needs: modules of plugins and their libraries; where one is not installed, the target is skipped.
        weight: how many times the work of an ordinary case one of it is; the default run divides its cases by that.
    """

    name: str
    prepare: Callable[[Place, random.Random], Case]
    needs: tuple[str, ...] = ()
    weight: int = 1


def missing_module(target: Target) -> str | None:
    """Return the first module that a target needs and that is not installed, or None."""
    return next((name for name in target.needs if importlib.util.find_spec(name) is None), None)


@cache
def registry() -> Registry:
    """Everything that is installed."""
    return load_plugins()


def check_image(image: SensorImage) -> SensorImage:
    """Check that an image holds what its type promises, and return it."""
    assert image.data.dtype == np.float32, f"data is {image.data.dtype}"
    assert image.data.ndim == 3, f"data has shape {image.data.shape}"
    assert 0 not in image.data.shape, f"data has shape {image.data.shape}"
    assert image.valid.dtype == np.bool_, f"valid is {image.valid.dtype}"
    assert image.valid.shape == image.data.shape, f"valid has shape {image.valid.shape}"
    assert len(image.channels) == len(image.data), f"{len(image.channels)} channels of {len(image.data)} planes"
    assert np.isfinite(image.data[image.valid]).all(), "a valid pixel is not finite"
    return image


def check_same(one: object, other: object, what: str) -> None:
    """Check that two values are equal; NaN counts as equal to itself."""
    assert one == other or repr(one) == repr(other), f"{what}: {other!r:.300} is not {one!r:.300}"
