"""Bad input in data sets, cards and sensor files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_input_case import Case, Spoil, both, cut, gone, png, replace, write

DATA = Path("data")
MANIFEST = DATA / "manifest.csv"
NAMES = ("s0", "s1", "s2", "s3", "s4")
HEAD = 'format = 1\nname = "s"\ndescription = "a sensor"\n'
SOURCE = '[[source]]\nname = "s"\nfiles = ["*.png"]\n'
CHANNEL = '[[channel]]\nname = "c"\nquantity = "intensity"\nunit = "count"\n'
OWN = "train … --modality ./s.toml"


def manifest(*pairs: tuple[str, str]) -> Spoil:
    return replace(MANIFEST, *pairs)


def sensor(text: str) -> Spoil:
    return write("s.toml", text)


def arrays(values: Callable[[int], Any]) -> Spoil:
    """Put a npy in the place of each image."""

    def put() -> None:
        for index, name in enumerate(NAMES):
            np.save(DATA / f"images/{name}.npy", values(index))
            (DATA / f"images/{name}.png").unlink()
        manifest(*((f"images/{name}.png", f"images/{name}.npy") for name in NAMES))()

    return put


def each_image(values: Any) -> Spoil:
    return lambda: [png(f"data/images/{name}.png", values) for name in NAMES]


def each_mask(values: Any, *names: str) -> Spoil:
    return lambda: [png(f"data/masks/{name}.png", values) for name in names or NAMES]


def coco(document: Any, name: str = "annotations.json") -> Spoil:
    """Describe the set by a COCO json instead."""

    def put() -> None:
        MANIFEST.unlink()
        shutil.rmtree(DATA / "masks")
        (DATA / name).parent.mkdir(exist_ok=True)
        (DATA / name).write_text(
            document if isinstance(document, str) else json.dumps(document)
        )

    return put


def coco_of(image: dict[str, Any]) -> Spoil:
    picture = {"id": 1, "file_name": "s1.png", "width": 56, "height": 40, **image}
    region = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "segmentation": {"size": [40, 56], "counts": [2240]},
    }
    return coco(
        {
            "images": [picture],
            "categories": [{"id": 1, "name": "disc"}],
            "annotations": [region],
        }
    )


CASES = {
    "manifest: no mask file": Case("data/manifest.csv", "line 2", "masks/s0.png", spoil=gone("data/masks/s0.png")),
    "folders: no mask at all": Case(
        "5 images", "masks/s0.png",
        spoil=both(gone("data/manifest.csv"), *(gone(f"data/masks/{name}.png") for name in NAMES)),
    ),
    "split: no training": Case("train", "test", spoil=manifest((",train,", ",test,"), (",val,", ",test,"))),
    "mask: all empty": Case("--min-region", "--nodata", spoil=each_mask(np.zeros((40, 56)))),
    "mask: all of val empty": Case("data", "--min-region", spoil=each_mask(np.zeros((40, 56)), "s3")),
    "image: cut short": Case("data/images/s0.png", "PNG", spoil=cut("data/images/s0.png")),
    "image: other channels than the first": Case(
        "data/images/s1.npy", "s0.npy", "band3",
        spoil=arrays(lambda i: np.random.default_rng(i).random((4 if i == 0 else 3, 40, 56))),
        run="train … --modality raster",
    ),
    "image: NaN everywhere": Case(
        "--nodata", spoil=arrays(lambda i: np.full((40, 56), np.nan, np.float32)), run="train … --modality raster"
    ),
    "image: all nodata": Case("--nodata", spoil=each_image(np.full((40, 56), 7)), run="train … --nodata 7"),
    "image: constant": Case(
        "'band0'", "5", "--channels", "--nodata",
        spoil=arrays(lambda i: np.full((40, 56), 5, np.float32)), run="train … --modality raster",
    ),
    "npy: complex": Case(
        "data/images/s0.npy", "complex64", "float32",
        spoil=arrays(lambda i: np.ones((40, 56), np.complex64)), run="train … --modality raster",
    ),
    "coco: no image file": Case("image 1", "'no.png'", "images/gray", spoil=coco_of({"file_name": "no.png"})),
    "coco: huge image": Case("image 1", "1000000000", "--max-image-gib", spoil=coco_of({"width": 1000000000})),
    "sensor: several mistakes": Case(
        "s.toml", "*.exe", ".png", "'unti'", "'unit'",
        spoil=sensor(HEAD + SOURCE.replace("png", "exe") + CHANNEL + 'unti = "count"\n'), run=OWN,
    ),
}  # fmt: skip
