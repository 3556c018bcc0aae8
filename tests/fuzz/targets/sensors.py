"""What the plugins of sensors read."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from fuzz.case import Case, Place, Target, check_image, registry
from fuzz.damage import mutate_file
from simmat.sensors.adapter import ModalityAdapter, load_sample

_INTRINSICS = {"intrinsics": {"fx": 20.0, "fy": 20.0, "cx": 15.0, "cy": 12.0}}
_READ = (".png", ".tif", ".npy", ".exr", ".jpg")


def _load(adapter: ModalityAdapter, files: Mapping[str, Path]) -> None:
    image = check_image(load_sample(adapter, files))
    check_image(adapter.transform(image))


def _sensor(rng: random.Random, *choices: str) -> ModalityAdapter:
    """Return one of some sensors, each said as "NAME OPTION=VALUE …"."""
    name, *options = rng.choice(choices).split()
    return registry().modality(name, dict(option.split("=") for option in options))


def _file(
    kinds: tuple[str, ...], *choices: str
) -> Callable[[Place, random.Random], Case]:
    """Make what damages a file of some kinds for one of some sensors."""

    def prepare(place: Place, rng: random.Random) -> Case:
        adapter = _sensor(rng, *choices)
        path = place.damaged(rng.choice(kinds), rng, _READ)
        return Case(lambda: _load(adapter, {adapter.sources[0].name: path}))

    return prepare


def _hha(place: Place, rng: random.Random) -> Case:
    adapter = _sensor(rng, "hha", "hha gravity=level").configured(_INTRINSICS)
    path = place.damaged(rng.choice(("exr", "images")), rng, _READ)
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


def _satellite(place: Place, rng: random.Random) -> Case:
    satellites = (
        ("sentinel2", {}),
        ("sentinel2", {"boa_offset": True}),
        ("landsat8", {}),
    )
    name, options = rng.choice(satellites)
    # the other seeds do not name their bands
    named = place.seeds.folder("geotiffs") / "bands.tif"
    adapter = registry().modality(name, options)
    path = place.put(named.name, mutate_file(named, rng))
    return Case(lambda: _load(adapter, {adapter.sources[0].name: path}))


_DEPTH, _POLARIZATION = "simmat_plugin_depth", "simmat_plugin_polarization"
_BANDS = ("simmat_plugin_multispectral", "rasterio")
TARGETS = (
    Target(
        "thermal",
        _file(("flir",), "thermal", "thermal", "thermal-minmax", "thermal unit=cK"),
        needs=("simmat_plugin_thermal",),
    ),
    Target(
        "depth",
        _file(("images",), "depth", "depth-minmax", "depth unit=m", "depth unit=mm"),
        needs=(_DEPTH,),
    ),
    Target(
        "exr",
        _file(("exr",), "depth", "depth-minmax", "depth unit=m"),
        needs=(_DEPTH, "OpenEXR"),
    ),
    Target("hha", _hha, needs=(_DEPTH, "OpenEXR"), weight=6),
    Target("polarization", _polarization, needs=(_POLARIZATION,)),
    Target(
        "mosaic",
        _file(("mosaic",), "polarization files=mosaic"),
        needs=(_POLARIZATION,),
    ),
    Target(
        "multispectral",
        _file(("geotiffs",), "multispectral"),
        needs=_BANDS,
    ),
    Target("satellite", _satellite, needs=_BANDS),
    Target(
        "sar",
        _file(
            ("geotiffs", "geotiffs", "images"),
            "sar",
            "sar scale=power",
            "sar scale=db",
            "sar filter=lee",
            "sar polarizations=dual",
        ),
        needs=("simmat_plugin_sar", "rasterio"),
    ),
)
