"""Files as vendors deliver them, read by the sensors that know them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from fuzz.case import Case, Place, Target, check_image, registry
from fuzz.damage import mutate_bytes, mutate_file
from fuzz.seeds.vendors import copy_folder
from simmat.io.frames import frame_paths, open_stack
from simmat.sensors.adapter import ModalityAdapter, load_sample
from simmat.types import Window

_Sensor = tuple[str, dict[str, Any]]
"""Name and options."""


def _read(adapter: ModalityAdapter, path: Path) -> None:
    """Read a file, and its first pixel by itself, which must be the same."""
    files = {adapter.sources[0].name: path}
    whole = check_image(load_sample(adapter, files))
    if adapter.window_size(files) is not None:
        part = check_image(load_sample(adapter, files, Window(0, 0, 1, 1)))
        assert part.channels == whole.channels


def _one(place: Place, rng: random.Random, kind: str, *choices: _Sensor) -> Case:
    """Damage a file of a kind, and read it by one of some sensors."""
    adapter = registry().modality(*rng.choice(choices))
    path = place.damaged(kind, rng)
    return Case(lambda: _read(adapter, path))


_CHOSEN: tuple[_Sensor, ...] = (
    ("microscopy", {"t": 0, "z": 0}),
    ("microscopy", {"t": 1, "z": "max"}),
    ("microscopy", {"scene": 0}),
    ("microscopy", {}),
)


def _ome_tiff(place: Place, rng: random.Random) -> Case:
    """Damage the file, or the OME-XML in it."""
    if rng.random() < 0.5:
        return _one(place, rng, "ome_tiff", *_CHOSEN)
    adapter = registry().modality(*rng.choice(_CHOSEN))
    seed = rng.choice(place.seeds.files("ome_tiff"))
    content = seed.read_bytes()
    start = content.index(b"<OME ")
    end = content.index(b"</OME>")
    text = mutate_bytes(content[start:end], rng)[: end - start]
    path = place.put(
        seed.name, content[:start] + text.ljust(end - start) + content[end:]
    )
    return Case(lambda: _read(adapter, path))


def _folder(place: Place, rng: random.Random, kind: str, *choices: _Sensor) -> Case:
    """Damage one file in a folder that is an image, or leave it out."""
    seed = rng.choice(sorted(place.seeds.folder(kind).iterdir()))
    path = place.files / seed.name
    file = rng.choice(copy_folder(seed, path))
    if rng.random() < 0.05:
        file.unlink()
    else:
        file.write_bytes(mutate_file(file, rng))
    adapter = registry().modality(*rng.choice(choices))
    return Case(lambda: _read(adapter, path))


def _envi(place: Place, rng: random.Random) -> Case:
    """Damage the header, or the data."""
    adapter = registry().modality("multispectral")
    damaged = rng.choice((".hdr", ".hdr", ".hdr", ".img"))
    for seed in place.seeds.files("envi"):
        if seed.suffix == damaged:
            place.put(seed.name, mutate_file(seed, rng))
        else:
            place.link(seed)
    return Case(lambda: _read(adapter, place.files / "a.hdr"))


def _flir_sequence(place: Place, rng: random.Random) -> Case:
    options = rng.choice(({}, {"emissivity": 0.8}, {"unit": "K64"}))
    adapter = registry().modality("thermal", options)
    path = place.damaged("flir_sequence", rng)

    def read() -> None:
        for frame in frame_paths(path, "z")[:4]:
            _read(adapter, frame)
        assert open_stack(path).read(0, False).planes.ndim == 3

    return Case(read)


_MICROSCOPY = "simmat_plugin_microscopy"
_BANDS = ("simmat_plugin_multispectral", "rasterio")
_MULTISPECTRAL: _Sensor = ("multispectral", {})


def _file(
    kind: str, *choices: _Sensor, needs: tuple[str, ...], folder: bool = False
) -> Target:
    """Make a target of files, or of folders, of one kind."""
    damage = _folder if folder else _one
    name = kind.replace("_", "-")
    return Target(name, lambda place, rng: damage(place, rng, kind, *choices), needs)


TARGETS = (
    Target("ome-tiff", _ome_tiff, needs=(_MICROSCOPY,)),
    _file("czi", *_CHOSEN, needs=(_MICROSCOPY, "bioio_czi", "pylibCZIrw")),
    _file("lif", *_CHOSEN, needs=(_MICROSCOPY, "bioio_lif")),
    _file("ome_zarr", *_CHOSEN, needs=(_MICROSCOPY, "bioio_ome_zarr"), folder=True),
    _file("jp2", _MULTISPECTRAL, ("multispectral", {"scale": 1e-4}), needs=_BANDS),
    Target("envi", _envi, needs=_BANDS),
    _file(
        "netcdf",
        _MULTISPECTRAL,
        ("multispectral", {"variables": "Band1"}),
        needs=_BANDS,
    ),
    _file(
        "zarr",
        _MULTISPECTRAL,
        ("multispectral", {"variables": "refl"}),
        needs=_BANDS,
        folder=True,
    ),
    _file(
        "safe",
        ("sentinel2", {}),
        ("sentinel2", {"resolution": 20}),
        needs=_BANDS,
        folder=True,
    ),
    Target("flir-sequence", _flir_sequence, needs=("simmat_plugin_thermal",)),
)
