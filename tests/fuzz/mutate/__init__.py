"""Ways to damage a file: any bytes, and the structures that readers trust."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from fuzz.mutate.npy import mutate_npy
from fuzz.mutate.png import mutate_png
from fuzz.mutate.raw import mutate_bytes
from fuzz.mutate.tensors import mutate_safetensors
from fuzz.mutate.tiff import mutate_tiff

Mutation = Callable[[bytes, random.Random], bytes]

_BY_ENDING: dict[str, Mutation] = {
    ".png": mutate_png,
    ".tif": mutate_tiff,
    ".npy": mutate_npy,
    ".safetensors": mutate_safetensors,
}


def mutate_file(path: Path, rng: random.Random) -> bytes:
    """Return the content of a file, damaged in a way that suits its format."""
    return _BY_ENDING.get(path.suffix, mutate_bytes)(path.read_bytes(), rng)
