"""What the plugins of sensors read."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from fuzz.case import Case, Place, Target, check_image, registry
from fuzz.damage import mutate_file
from simmat.sensors.adapter import ModalityAdapter, load_sample

_INTRINSICS = {"intrinsics": {"fx": 20.0, "fy": 20.0, "cx": 15.0, "cy": 12.0}}
_ORDINARY = (".png", ".tif", ".npy")


def _load(adapter: ModalityAdapter, files: Mapping[str, Path]) -> None:
    image = check_image(load_sample(adapter, files))
    check_image(adapter.transform(image))


def _sensor(rng: random.Random, *choices: str) -> ModalityAdapter:
    """Return one of some sensors, each said as "NAME OPTION=VALUE …"."""
    name, *options = rng.choice(choices).split()
    return registry().modality(name, dict(option.split("=") for option in options))


def _one_file(adapter: ModalityAdapter, path: Path) -> Case:
    return Case(lambda: _load(adapter, {adapter.sources[0].name: path}))


def _thermal(place: Place, rng: random.Random) -> Case:
    sensor = _sensor(rng, "thermal", "thermal", "thermal-minmax", "thermal unit=cK")
    return _one_file(sensor, place.damaged("flir", rng))


def _depth(place: Place, rng: random.Random) -> Case:
    sensor = _sensor(
        rng, "depth", "depth", "depth-minmax", "depth unit=m", "depth unit=mm"
    )
    return _one_file(sensor, place.damaged("images", rng, _ORDINARY))


def _exr(place: Place, rng: random.Random) -> Case:
    return _one_file(
        _sensor(rng, "depth", "depth-minmax", "depth unit=m"), place.damaged("exr", rng)
    )


def _hha(place: Place, rng: random.Random) -> Case:
    adapter = _sensor(rng, "hha", "hha gravity=level").configured(_INTRINSICS)
    path = place.damaged(rng.choice(("exr", "images")), rng, (".exr", *_ORDINARY))
    return Case(lambda: _load(adapter, {"hha": path}))


def _polarization(place: Place, rng: random.Random) -> Case:
    adapter = registry().modality("polarization")
    seeds = sorted(place.seeds.files("polarization"), key=lambda path: int(path.stem))
    damaged = rng.randrange(len(seeds))
    files = {}
    for index, (source, seed) in enumerate(zip(adapter.sources, seeds, strict=True)):
        whole = index != damaged
        files[source.name] = (
            place.link(seed) if whole else place.put(seed.name, mutate_file(seed, rng))
        )
    return Case(lambda: _load(adapter, files))


def _mosaic(place: Place, rng: random.Random) -> Case:
    return _one_file(
        _sensor(rng, "polarization files=mosaic"), place.damaged("mosaic", rng)
    )


def _multispectral(place: Place, rng: random.Random) -> Case:
    sensor = rng.choice(
        (
            registry().modality("multispectral"),
            registry().modality("multispectral", {"scale": 1e-4}),
        )
    )
    return _one_file(sensor, place.damaged("geotiffs", rng))


def _satellite(place: Place, rng: random.Random) -> Case:
    satellites = (
        ("sentinel2", {}),
        ("sentinel2", {"boa_offset": True}),
        ("landsat8", {}),
    )
    name, options = rng.choice(satellites)
    # the other seeds do not name their bands
    named = place.seeds.folder("geotiffs") / "bands.tif"
    return _one_file(
        registry().modality(name, options),
        place.put(named.name, mutate_file(named, rng)),
    )


def _sar(place: Place, rng: random.Random) -> Case:
    sensor = _sensor(
        rng,
        "sar",
        "sar scale=power",
        "sar scale=db",
        "sar filter=lee",
        "sar polarizations=dual",
    )
    return _one_file(
        sensor,
        place.damaged(rng.choice(("geotiffs", "geotiffs", "images")), rng, _ORDINARY),
    )


_DEPTH, _POLARIZATION = "simmat_plugin_depth", "simmat_plugin_polarization"
_BANDS = ("simmat_plugin_multispectral", "rasterio")
TARGETS = (
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
