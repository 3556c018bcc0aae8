"""What simmat-runtime reads: the manifest of an exported model, and image files."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import numpy as np

from fuzz.case import Case, Place, Target
from fuzz.damage import mutate_bytes, mutate_tree, to_json
from simmat.errors import DataError, SimMATError
from simmat.io.images import read_image

_NEEDS = ("simmat_runtime", "onnxruntime")
_MANIFEST: dict[str, Any] = {
    "format": 1,
    "modality": "rgb+thermal",
    "channels": [
        {
            "name": "red",
            "quantity": "srgb",
            "unit": "count",
            "wavelength_um": 0.65,
            "valid_range": [0.0, 255.0],
        },
        {
            "name": "thermal",
            "quantity": "counts",
            "unit": "count",
            "wavelength_um": None,
            "valid_range": None,
        },
    ],
    "image_size": 64,
    "aspect": "pad",
    "largest": 128,
    "window": 64,
    "mask_size": [16, 16],
    "levels": 1,
    "dense": {"background": True, "classes": [1, 255]},
    "class_names": {"1": "cow", "255": "barn"},
    "sensors": [
        {"name": "rgb", "averaged": [True], "matrix": None, "size": None},
        {
            "name": "thermal",
            "averaged": [True],
            "matrix": [[0.5, 0.0, 1.0], [0.0, 0.5, 2.0], [0.0, 0.0, 1.0]],
            "size": [20, 150],
        },
    ],
    "files": {
        name: {"sha256": "0" * 64, "bytes": 9}
        for name in ("encoder.onnx", "decoder.onnx", "masks.onnx")
    },
    "precision": "fp32",
}


def _manifest(place: Place, rng: random.Random) -> Case:
    from simmat_runtime.manifest import ModelError, with_checksum
    from simmat_runtime.model import Model
    from simmat_runtime.network import Network

    tree = mutate_tree(_MANIFEST, rng)
    content = to_json(with_checksum(tree) if isinstance(tree, dict) else tree)
    place.put(
        "manifest.json", mutate_bytes(content, rng) if rng.random() < 0.1 else content
    )

    def read() -> None:
        try:
            model = Model(Network(place.files, check=False))
        except ModelError as error:
            raise DataError(str(error)) from error
        images = {}
        for sensor in model.manifest.sensors:
            images[sensor.name] = np.ones((len(sensor.averaged), 30, 40))
        for image in (np.ones((len(model.channels), 300, 40)), images):
            # the values are not valid for these channels, or a file is missing
            with suppress(ValueError):
                model.set_image(image)

    return Case(read)


def _image(place: Place, rng: random.Random) -> Case:
    from simmat_runtime.files import read_file
    from simmat_runtime.manifest import Channel

    path = place.damaged("images", rng, (".png", ".jpg", ".tif", ".npy"))

    def read() -> None:
        try:
            found = read_file(path, (Channel("gray", "count", "counts", None),))
        except ValueError as error:
            raise DataError(str(error)) from error
        try:
            expected = read_image(path)
        # SimMAT also refuses what the number of planes will refuse, and files named wrongly
        except SimMATError:
            return
        values = np.where(expected.valid, expected.planes, np.nan)
        found = found[None] if found.ndim == 2 else found
        assert np.array_equal(found, values, equal_nan=True), (
            "not the numbers that SimMAT reads"
        )

    return Case(read)


TARGETS = (
    Target("runtime-manifest", _manifest, needs=_NEEDS),
    Target("runtime-image", _image, needs=_NEEDS),
)
