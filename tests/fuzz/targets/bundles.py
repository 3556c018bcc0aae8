"""Bundles: their json, their weights, and a zip of them."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

from fuzz.case import Case, Place, Target
from fuzz.damage import mutate_bytes, mutate_safetensors, mutate_tree, mutate_zip, to_json
from simmat.bundle import pull_bundle, push_bundle, read_bundle_spec
from simmat.bundle.document import with_checksum
from simmat.bundle.files import JSON_NAME, SHARED_NAMES, WEIGHTS_NAME
from simmat.bundle.model_card import model_card
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
    image, out = place.seeds.folder("manifest") / "images" / "s0.png", place.scratch / "answers"
    arguments = ["predict", str(path), str(image), *"--point 3,3 --device cpu --out".split(), str(out)]
    group.main(args=arguments, prog_name="simmat", standalone_mode=False)
    answers = list(out.glob("*.json"))
    assert answers, "no answer was written"
    for answer in answers:
        try:
            parse_json(answer.read_bytes())
        except ValueError as error:
            raise AssertionError(f"an answer that is not json: {error}") from None


def _json(place: Place, rng: random.Random) -> Case:
    content = (place.seeds.folder("bundle") / "tuned" / JSON_NAME).read_bytes()
    place.link(place.seeds.folder("bundle") / "tuned" / WEIGHTS_NAME)
    place.put(JSON_NAME, _damaged_json(content, rng))

    def read() -> None:
        model_card(read_bundle_spec(place.files))
        _use(place.files, place)

    return Case(read)


def _damaged_json(content: bytes, rng: random.Random) -> bytes:
    """Return damaged json with, but for changed bytes, the digest of what it holds: a stranger writes that, too."""
    tree, share = json.loads(content), rng.random()
    if share < 0.15:
        return mutate_bytes(content, rng)
    if rng.random() < 0.3:
        tree["sensor_definitions"] = [_SENSOR]
    if share < 0.4:
        _ask_for_much(tree, rng)
    else:
        tree = mutate_tree(tree, rng)
    return to_json(_sealed(tree))


def _sealed(tree: Any) -> Any:
    return with_checksum(tree) if isinstance(tree, dict) else tree


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
        tree |= {"tune": rng.choice(_TUNERS), "tune_options": rng.choice(({}, {"tokens": count}))}
    else:
        tree["channels"] *= rng.choice((2, 1000))
        tree["zero_shot"] = [row * len(tree["channels"]) for row in tree["zero_shot"]]


def _weights(place: Place, rng: random.Random) -> Case:
    """Damage the weights, and let the json name their digest, as a stranger would."""
    seed = place.seeds.folder("bundle") / "tuned"
    weights = mutate_safetensors((seed / WEIGHTS_NAME).read_bytes(), rng)
    place.put(WEIGHTS_NAME, weights)
    document = json.loads((seed / JSON_NAME).read_bytes())
    place.put(JSON_NAME, to_json(with_checksum({**document, "weights_sha256": hashlib.sha256(weights).hexdigest()})))
    pushed = place.scratch / "pushed"

    def read() -> None:
        _use(place.files, place)
        push_bundle(place.files, str(pushed), licence="mit")

    return Case(read)


def _zip(place: Place, rng: random.Random) -> Case:
    archive = place.put(
        "bundle.zip", mutate_zip((place.seeds.folder("bundle") / "tuned.zip").read_bytes(), rng, _member)
    )

    def read() -> None:
        pulled = pull_bundle(str(archive), place.files / "pulled")
        read_bundle_spec(archive)
        read_bundle_spec(pulled)

    return Case(read, outputs=frozenset({"pulled", *(f"pulled/{name}" for name in SHARED_NAMES)}))


def _member(content: bytes, rng: random.Random) -> bytes:
    if content.startswith(b"{") and rng.random() < 0.6:
        return to_json(_sealed(mutate_tree(json.loads(content), rng)))
    return mutate_bytes(content, rng)


TARGETS = (
    Target("bundle-json", _json, weight=5),
    Target("bundle-weights", _weights, weight=8),
    Target("bundle-zip", _zip),
)
