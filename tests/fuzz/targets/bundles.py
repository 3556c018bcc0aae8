"""Bundles: their json and their tensors."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from bundles import read_parts
from safetensors.torch import load, save

from fuzz.case import Case, Place, Target
from fuzz.damage import (
    mutate_bytes,
    mutate_safetensors,
    mutate_tree,
    to_json,
)
from simmat.bundle import FILE_NAME, read_bundle_spec
from simmat.bundle.format import METADATA_KEY, bundle_bytes
from simmat.cli import group
from simmat.io.reading import parse_json

_SENSOR = {
    "format": 1,
    "name": "other",
    "description": "",
    "source": [{"name": "g", "files": ["*.png"], "planes": None}],
    "channel": [{"name": "g", "quantity": "counts", "unit": "count"}],
}
_SIZES = (0, -1, -16, 16, 48, 80, 2**20, 2**40)
_COUNTS = (0, -1, 10**5, 10**7, 2**31, 2**63, 1.5, "x", None, True, float("nan"))
_SEEDS = (-1, 2**32, 2**63, 2**64, 10**30)
_LAYERS = ("mat", "channel-attention", "first-conv", "linear", "zeroshot", "identity")
_TUNERS = ("prompt", "prefix", "adapter", "full", "frozen")


def _use(path: Path, place: Place) -> None:
    """Ask a bundle something, and read what is written of its answer."""
    image, out = (
        place.seeds.folder("manifest") / "images" / "s0.png",
        place.scratch / "answers",
    )
    arguments = [
        "predict",
        str(path),
        str(image),
        *"--point 3,3 --device cpu --out".split(),
        str(out),
    ]
    group.main(args=arguments, prog_name="simmat", standalone_mode=False)
    answers = list(out.glob("*.json"))
    assert answers, "no answer was written"
    for answer in answers:
        try:
            parse_json(answer.read_bytes())
        except ValueError as error:
            raise AssertionError(f"an answer that is not json: {error}") from None


def _json(place: Place, rng: random.Random) -> Case:
    document, tensors = read_parts(place.seeds.folder("bundle") / "tuned")
    place.put(FILE_NAME, _with_damaged_json(document, tensors, rng))

    def read() -> None:
        read_bundle_spec(place.files)
        _use(place.files, place)

    return Case(read)


def _with_damaged_json(
    document: dict[str, Any], tensors: dict[str, Any], rng: random.Random
) -> bytes:
    """Return a bundle of damaged json with, but for changed text, the digest of what it holds, as a stranger would."""
    share = rng.random()
    if share < 0.15:
        text = mutate_bytes(json.dumps(document).encode(), rng).decode(
            "utf-8", "replace"
        )
        return save(tensors, {METADATA_KEY: text})
    if rng.random() < 0.3:
        document["sensor_definitions"] = [_SENSOR]
    if share < 0.4:
        _ask_for_much(document, rng)
        return bundle_bytes(document, tensors)
    tree = mutate_tree(document, rng)
    try:
        return bundle_bytes(tree, tensors)
    # no table, or nothing that json can hold
    except (AttributeError, TypeError, ValueError):
        return save(tensors, {METADATA_KEY: to_json(tree).decode("utf-8", "replace")})


def _ask_for_much(tree: dict[str, Any], rng: random.Random) -> None:
    """Put in numbers and names that a network of another size, or none, would be built from."""
    kind, count = rng.randrange(7), rng.choice(_COUNTS)
    if kind == 0:
        tree["image_size"] = rng.choice(_SIZES)
    elif kind == 1:
        tree["mat_options"]["width"] = count
    elif kind == 2:
        tree["tune_options"]["rank"] = count
    elif kind == 3:
        tree["seed"] = rng.choice(_SEEDS)
    elif kind == 4:
        tree |= {"mat": rng.choice(_LAYERS), "mat_options": {}}
    elif kind == 5:
        tree |= {
            "tune": rng.choice(_TUNERS),
            "tune_options": rng.choice(({}, {"tokens": count})),
        }
    else:
        tree["channels"] *= rng.choice((2, 1000))
        tree["zero_shot"] = [row * len(tree["channels"]) for row in tree["zero_shot"]]


def _weights(place: Place, rng: random.Random) -> Case:
    """Damage the tensors, and let the json have their digest, as a stranger would."""
    document, tensors = read_parts(place.seeds.folder("bundle") / "tuned")
    damaged = mutate_safetensors(save(tensors), rng)
    with suppress(Exception):  # safetensors cannot read it, so the file stays as it is
        damaged = bundle_bytes(document, load(damaged))
    place.put(FILE_NAME, damaged)
    return Case(lambda: _use(place.files, place))


def _bytes(place: Place, rng: random.Random) -> Case:
    content = (place.seeds.folder("bundle") / "tuned" / FILE_NAME).read_bytes()
    # a whole file must load, any other byte makes another digest
    if rng.random() > 0.05:
        content = mutate_bytes(content, rng)
    place.put(FILE_NAME, content)
    return Case(lambda: _use(place.files, place))


TARGETS = (
    Target("bundle-json", _json, weight=5),
    Target("bundle-weights", _weights, weight=8),
    Target("bundle-bytes", _bytes),
)
