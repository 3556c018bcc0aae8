"""Data sets: the manifest and COCO annotations."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save
from simmat_plugin_report.checks import check_dataset

from fuzz.case import Case, Place, Target, check_image, registry
from fuzz.damage import (
    mutate_bytes,
    mutate_csv,
    mutate_segmentation,
    mutate_tree,
    to_json,
)
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.index import read_index
from simmat.data.index_file import FOLDER
from simmat.data.samples import SPLITS


def _manifest(place: Place, rng: random.Random) -> Case:
    seed = place.seeds.folder("manifest")
    for name in ("images", "masks", "card.toml"):
        place.link(seed / name)
    os.mkfifo(place.files / "pipe.png")  # a cell may name it
    place.put("manifest.csv", mutate_csv((seed / "manifest.csv").read_bytes(), rng))
    if rng.random() < 0.2:
        place.put("predicted.csv", mutate_csv(b"id,note\ns0,x\ns4,x\n", rng))
    return _read_set(place.files, {}, rng)


def _coco(place: Place, rng: random.Random) -> Case:
    seed = place.seeds.folder("coco")
    place.link(seed / "images")
    place.put(
        "annotations.json",
        _damaged_annotations((seed / "annotations.json").read_bytes(), rng),
    )
    return _read_set(
        place.files, {"regions": rng.choice((None, "classes", "components"))}, rng
    )


def _damaged_annotations(content: bytes, rng: random.Random) -> bytes:
    share, tree = rng.random(), json.loads(content)
    if share < 0.35:
        for _ in range(rng.choice((1, 1, 2))):
            mutate_segmentation(rng.choice(tree["annotations"]), rng)
        return to_json(tree)
    return (
        to_json(mutate_tree(tree, rng)) if share < 0.85 else mutate_bytes(content, rng)
    )


def _read_set(root: Path, card: dict[str, Any], rng: random.Random) -> Case:
    whole = rng.random() < 0.1

    def read() -> None:
        dataset = open_dataset(root, registry().modality("gray"), card)
        assert dataset.samples, "a data set without samples"
        for sample in dataset.samples:
            assert sample.split in SPLITS, (
                f"sample {sample.id!r} is in split {sample.split!r}"
            )
            _read_sample(dataset, sample)
        assert all(isinstance(name, str) for name in dataset.class_names.values()), (
            "a class name that is no text"
        )
        if whole:
            check_dataset(dataset)

    return Case(read, outputs=_KEPT)


def _index(place: Place, rng: random.Random) -> Case:
    seed = place.seeds.folder("manifest")
    for name in ("images", "masks", "card.toml", "manifest.csv"):
        place.link(seed / name)
    dataset = open_dataset(place.files, registry().modality("gray"))
    read_index(dataset)
    (path,) = (place.files / FOLDER).iterdir()
    path.write_bytes(_damaged_index(path.read_bytes(), rng))

    def read() -> None:
        found = read_index(dataset)
        for sample in found.with_regions(dataset.samples, "all"):
            assert found.table_of([sample]).rows.shape == (1,), (
                "a table of another shape"
            )
        check_dataset(dataset).model_dump(mode="json")
        found.statistics(found.training_samples())

    return Case(read, outputs=_KEPT)


def _damaged_index(content: bytes, rng: random.Random) -> bytes:
    """Damage the file, or what it says of the channels under a right digest."""
    if rng.random() < 0.5:
        return mutate_bytes(content, rng)
    tensors = load(content[:-32])
    channels = to_json(mutate_tree(json.loads(tensors["channels"].tobytes()), rng))
    tensors["channels"] = np.frombuffer(channels, np.uint8)
    content = save(tensors)
    return content + hashlib.sha256(content).digest()


def _read_sample(dataset: Dataset, sample: Any) -> None:
    image = check_image(dataset.image(sample))
    label = dataset.label(sample, image)
    assert label.size_hw == image.size_hw, (
        f"a label of {label.size_hw} on an image of {image.size_hw}"
    )
    for region in label.regions:
        assert region.area == np.count_nonzero(region.mask(label.size_hw)) > 0, (
            "a region's area is not its pixels"
        )


_KEPT = frozenset({FOLDER, f"{FOLDER}/*"})
"""What a reader of a data set may leave: its index."""

TARGETS = (
    Target("manifest", _manifest),
    Target("coco", _coco),
    Target("index", _index),
)
