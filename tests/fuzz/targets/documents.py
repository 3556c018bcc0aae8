"""TOML files that people write; each that is read is written and read again."""

from __future__ import annotations

import json
import random
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzz.case import Case, Place, Target, check_image, check_same, registry
from fuzz.damage import mutate_bytes, mutate_tree, to_toml
from simmat.config import dump_toml, load_config
from simmat.data.card import load_card, write_card
from simmat.data.dataset import open_dataset
from simmat.sensors.adapter import load_sample
from simmat.sensors.sensor_toml import SensorDefinition, read_sensor

_Read = Callable[[Place, Path], None]


def _document(name: str, read: _Read, needs: tuple[str, ...] = ()) -> Target:
    def prepare(place: Place, rng: random.Random) -> Case:
        content = (place.seeds.folder("documents") / f"{name}.toml").read_bytes()
        tree = tomllib.loads(content.decode())
        damaged = (
            mutate_bytes(content, rng)
            if rng.random() < 0.3
            else to_toml(mutate_tree(tree, rng))
        )
        path = place.put(f"{name}.toml", damaged)
        for folder in ("images", "masks"):
            (place.scratch / folder).symlink_to(place.seeds.folder("manifest") / folder)
        shutil.copy(place.seeds.folder("images") / "rgb.tif", place.scratch)
        return Case(lambda: read(place, path))

    return Target(f"{name}.toml", prepare, needs)


def _card(place: Place, path: Path) -> None:
    card = load_card(path.parent, {})
    write_card(place.scratch, card)
    check_same(card, load_card(place.scratch, {}), "card")
    dataset = open_dataset(place.scratch, registry().modality("gray"))
    for sample in dataset.samples[:2]:
        dataset.label(sample, dataset.image(sample))


def _sensor(place: Place, path: Path) -> None:
    adapter = read_sensor(path)
    written = json.loads(json.dumps(adapter.definition.model_dump(mode="json")))
    check_same(
        adapter.definition, SensorDefinition.model_validate(written), "declaration"
    )
    with np.errstate(all="ignore"):  # a scale of 1e308 is allowed
        image = check_image(
            load_sample(
                adapter,
                {source.name: place.scratch / "rgb.tif" for source in adapter.sources},
            )
        )
        check_image(adapter.transform(image))


def _config(place: Place, path: Path) -> None:
    config = load_config(path)
    written = place.scratch / "written.toml"
    written.write_text(dump_toml(config), encoding="utf-8")
    check_same(config, load_config(written), "config")


def _bench(place: Place, path: Path) -> None:
    from simmat_plugin_bench.grid import expand
    from simmat_plugin_bench.settings import read_settings

    bench = expand(read_settings(path), path, place.scratch / "out", registry())
    names = [cell.name for cell in bench.cells]
    assert len(set(names)) == len(names), "two cells have one name"


TARGETS = (
    _document("card", _card),
    _document("sensor", _sensor),
    _document("config", _config),
    _document("bench", _bench, needs=("simmat_plugin_bench",)),
)
