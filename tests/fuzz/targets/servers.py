"""Requests of Label Studio, and the index of a gallery."""

from __future__ import annotations

import json
import random
from typing import Any

from fuzz.case import Case, Place, Target
from fuzz.damage import mutate_bytes, mutate_tree, to_json
from simmat.errors import ConfigError
from simmat.io.reading import parse_json

_CONFIG = """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">
<Label value="ship"/><Label value="object" alias="thing"/></BrushLabels><KeyPointLabels name="click"/></View>"""
_PROMPTS: list[dict[str, Any]] = [
    {
        "id": "a",
        "type": "keypointlabels",
        "value": {"x": 40.0, "y": 30.0, "width": 1, "keypointlabels": ["ship"]},
        "is_positive": True,
    },
    {
        "id": "b",
        "type": "rectanglelabels",
        "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 15},
        "original_width": 32,
        "image_rotation": 0,
    },
]


def _request(place: Place, rng: random.Random) -> Case:
    from label_studio_case import scripted_backend, sensor_files

    backend, _ = scripted_backend(sensor_files(place.files / "set", 1))
    config = _CONFIG
    if rng.random() < 0.4:
        config = mutate_bytes(_CONFIG.encode(), rng).decode(errors="surrogateescape")
    task = {"id": 3, "data": {"sample": "train/s0"}, "annotations": []}
    params = {"context": {"result": _PROMPTS}, "login": None}
    tree: Any = {"tasks": [task], "label_config": config, "params": params}
    answer = backend.predict
    if rng.random() < 0.1:
        tree = {"schema": config}
        answer = backend.setup
    if rng.random() < 0.8:
        tree = mutate_tree(tree, rng)
    content = to_json(tree)
    if rng.random() < 0.1:
        content = mutate_bytes(content, rng)

    def read() -> None:
        try:
            body = parse_json(content)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        json.dumps(answer(body), allow_nan=False).encode("ascii")

    return Case(read)


_ENTRY: dict[str, Any] = {
    "name": "cows",
    "file": "cows.safetensors",
    "sensor": "gray",
    "options": {},
    "classes": {"1": "cow"},
    "foundation": "tiny",
    "scores": {"iou": 0.5},
    "split": "test",
    "data": "set",
    "licence": "CC0",
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "size": 1,
    "picture": "cows.png",
}


def _gallery(place: Place, rng: random.Random) -> Case:
    tree = mutate_tree({"format": 1, "bundles": [_ENTRY, {**_ENTRY, "name": "b"}]}, rng)
    content = to_json(tree)
    if rng.random() < 0.2:
        content = mutate_bytes(content, rng)
    place.put("index.json", content)
    place.put("cows.safetensors", b"")

    def read() -> None:
        from simmat_plugin_hub.gallery import open_gallery

        gallery = open_gallery(str(place.files))
        for one in gallery.bundles:
            found = gallery.bundle(one.name)
            assert found.parent == place.files, f"{found} is outside of the gallery"

    return Case(read)


TARGETS = (
    Target(
        "labelstudio-request", _request, needs=("simmat_plugin_labelstudio",), weight=4
    ),
    Target("gallery-index", _gallery, needs=("simmat_plugin_hub",)),
)
