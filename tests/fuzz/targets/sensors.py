"""What the plugins of sensors read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from fuzz.mutate import mutate_file
from fuzz.targets.case import Case, Place, Target, check_image, registry
from simmat.modality import ModalityAdapter, load_sample

_INTRINSICS = {"intrinsics": {"fx": 20.0, "fy": 20.0, "cx": 15.0, "cy": 12.0}}
_ORDINARY = (".png", ".tif", ".npy")


def _load(adapter: ModalityAdapter, files: Mapping[str, Path]) -> None:
    image = check_image(load_sample(adapter, files))
    check_image(adapter.transform(image))


def _one_file(name: str, path: Path) -> Case:
    adapter = registry().modality(name)
    return Case(lambda: _load(adapter, {adapter.sources[0].name: path}))


def _thermal(place: Place, rng: random.Random) -> Case:
    name = rng.choice(("thermal", "thermal", "thermal-minmax", "thermal-ck"))
    return _one_file(name, place.damaged("flir", rng))


def _depth(place: Place, rng: random.Random) -> Case:
    name = rng.choice(("depth", "depth", "depth-minmax", "depth-m", "depth-mm"))
    return _one_file(name, place.damaged("images", rng, _ORDINARY))


def _exr(place: Place, rng: random.Random) -> Case:
    return _one_file(rng.choice(("depth", "depth-minmax", "depth-m")), place.damaged("exr", rng))


def _hha(place: Place, rng: random.Random) -> Case:
    adapter = registry().modality(rng.choice(("hha", "hha-level"))).configured(_INTRINSICS)
    path = place.damaged(rng.choice(("exr", "images")), rng, (".exr", *_ORDINARY))
    return Case(lambda: _load(adapter, {"hha": path}))


def _polarization(place: Place, rng: random.Random) -> Case:
    adapter = registry().modality("polarization")
    seeds = sorted(place.seeds.files("polarization"), key=lambda path: int(path.stem))
    damaged = rng.randrange(len(seeds))
    files = {}
    for index, (source, seed) in enumerate(zip(adapter.sources, seeds, strict=True)):
        whole = index != damaged
        files[source.name] = place.link(seed) if whole else place.put(seed.name, mutate_file(seed, rng))
    return Case(lambda: _load(adapter, files))


def _mosaic(place: Place, rng: random.Random) -> Case:
    return _one_file("polarization-mosaic", place.damaged("mosaic", rng))


def _multispectral(place: Place, rng: random.Random) -> Case:
    return _one_file(rng.choice(("multispectral", "multispectral-10000")), place.damaged("geotiffs", rng))


def _satellite(place: Place, rng: random.Random) -> Case:
    return _one_file(rng.choice(("sentinel2", "sentinel2-offset", "landsat8")), place.damaged("geotiffs", rng))


def _sar(place: Place, rng: random.Random) -> Case:
    name = rng.choice(("sar", "sar-power", "sar-db", "sar-lee", "sar-dual"))
    return _one_file(name, place.damaged(rng.choice(("geotiffs", "geotiffs", "images")), rng, _ORDINARY))


_DEPTH, _POLARIZATION = "simmat_plugin_depth", "simmat_plugin_polarization"
_BANDS = ("simmat_plugin_multispectral", "rasterio")
SENSOR_TARGETS = (
    Target("thermal", _thermal, needs=("simmat_plugin_thermal",)),
    Target("depth", _depth, needs=(_DEPTH,)),
    Target("exr", _exr, needs=(_DEPTH, "OpenEXR")),
    Target("hha", _hha, needs=(_DEPTH, "OpenEXR"), weight=6),
    Target("polarization", _polarization, needs=(_POLARIZATION,)),
    Target("mosaic", _mosaic, needs=(_POLARIZATION,)),
    Target("multispectral", _multispectral, needs=_BANDS),
    Target("satellite", _satellite, needs=_BANDS),
    Target("sar", _sar, needs=("simmat_plugin_sar", "rasterio")),
)
