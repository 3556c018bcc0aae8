"""Bad input in data sets, cards and sensor files."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_input_case import Case, Spoil, both, cut, gone, png, replace, write
from PIL import Image

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


def card(text: str) -> Spoil:
    return write("data/card.toml", text)


def arrays(values: Callable[[int], Any]) -> Spoil:
    """Put a npy in the place of each image."""

    def put() -> None:
        for index, name in enumerate(NAMES):
            np.save(DATA / f"images/{name}.npy", values(index))
            (DATA / f"images/{name}.png").unlink()
        manifest(*((f"images/{name}.png", f"images/{name}.npy") for name in NAMES))()

    return put


ONES = arrays(lambda index: np.ones((40, 56), np.float32))


def zip_as_npy() -> None:
    with zipfile.ZipFile(DATA / "images/s0.npy", "w") as archive:
        archive.writestr("a.npy", b"x")


def pickle_as_npy() -> None:
    np.save(DATA / "images/s0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def each_image(values: Any) -> Spoil:
    return lambda: [png(f"data/images/{name}.png", values) for name in NAMES]


def each_mask(values: Any, *names: str) -> Spoil:
    return lambda: [png(f"data/masks/{name}.png", values) for name in names or NAMES]


def float_mask() -> None:
    np.save(DATA / "masks/s1.npy", np.full((40, 56), 0.5, np.float32))
    manifest(("masks/s1.png", "masks/s1.npy"))()


def jpeg_mask(ending: str) -> Spoil:
    def put() -> None:
        Image.fromarray(np.ones((40, 56), np.uint8)).save(DATA / f"masks/s1.{ending}", compression="jpeg")
        manifest(("masks/s1.png", f"masks/s1.{ending}"))()

    return put


def bomb() -> None:
    """A header that claims 40000 x 40000 pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    written = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    (DATA / "images/s0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


def coco(document: Any, name: str = "annotations.json") -> Spoil:
    """Describe the set by a COCO json instead."""

    def put() -> None:
        MANIFEST.unlink()
        shutil.rmtree(DATA / "masks")
        (DATA / name).parent.mkdir(exist_ok=True)
        (DATA / name).write_text(document if isinstance(document, str) else json.dumps(document))

    return put


def coco_of(image: dict[str, Any]) -> Spoil:
    picture = {"id": 1, "file_name": "s1.png", "width": 56, "height": 40, **image}
    region = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [40, 56], "counts": [2240]}}
    return coco({"images": [picture], "categories": [{"id": 1, "name": "disc"}], "annotations": [region]})


CASES = {
    "manifest: no mask file": Case("data/manifest.csv", "line 2", "masks/s0.png", spoil=gone("data/masks/s0.png")),
    "manifest: misspelt column": Case("data/manifest.csv", "splt", "'split'", spoil=manifest(("id,split", "id,splt"))),
    "manifest: image in two splits": Case(
        "s0.png", "train", "test", spoil=manifest(("images/s4.png", "images/s0.png"))
    ),
    "manifest: many problems, all named at once": Case(
        "images/x.png", "'training'", "masks/none.png", "line 4", "'s0'",
        spoil=manifest(
            ("s0,train,images/s0.png", "s0,training,images/x.png"),
            ("masks/s1.png", "masks/none.png"),
            ("s2,train,images/s2.png,masks/s2.png", ",train,,\ns0,train,images/s2.png,masks/s2.png"),
        ),
    ),
    "manifest: files of another source": Case(
        "line 2", "images/s0.png", "'s'", ".npy",
        spoil=sensor(HEAD + SOURCE.replace("png", "npy") + CHANNEL), run=OWN,
    ),
    "folders: no mask at all": Case(
        "5 images", "masks/s0.png",
        spoil=both(gone("data/manifest.csv"), *(gone(f"data/masks/{name}.png") for name in NAMES)),
    ),
    "folder: not there": Case("dta", "images/", "masks/", run="train … --data dta"),
    "folder: is a file": Case("data/manifest.csv", "images/", "masks/", run="train … --data data/manifest.csv"),
    "folder: empty": Case(
        "images/", "masks/", "manifest.csv", "annotations.json", spoil=Path("e").mkdir, run="train … --data e"
    ),
    "split: no training": Case("train", "test", spoil=manifest((",train,", ",test,"), (",val,", ",test,"))),
    "mask: other size": Case(
        "data/masks/s1.png", "30x20", "data/images/s1.png", "56x40", spoil=each_mask(np.ones((20, 30)), "s1")
    ),
    "mask: all empty": Case("--min-region", "--nodata", spoil=each_mask(np.zeros((40, 56)))),
    "mask: all of val empty": Case("data", "--min-region", spoil=each_mask(np.zeros((40, 56)), "s3")),
    "mask: empty file": Case("data/masks/s0.png", "empty", spoil=write("data/masks/s0.png", "")),
    "mask: colours": Case("data/masks/s1.png", "3 planes", "one plane", spoil=each_mask(np.ones((40, 56, 3)), "s1")),
    "mask: fractions": Case("data/masks/s1.npy", "float32", "0.5", "threshold", spoil=float_mask),
    "mask: jpeg": Case("data/masks/s1.jpg", "PNG", spoil=jpeg_mask("jpg")),
    "mask: jpeg in a tiff": Case("data/masks/s1.tif", "JPEG", "PNG", spoil=jpeg_mask("tif")),
    "image: no picture": Case("data/images/s0.png", "PNG, JPEG, TIFF", spoil=write("data/images/s0.png")),
    "image: cut short": Case("data/images/s0.png", "PNG", spoil=cut("data/images/s0.png")),
    "image: empty file": Case("data/images/s0.png", "empty", spoil=write("data/images/s0.png", "")),
    "image: colours for gray": Case(
        "data/images/s0.png", "'gray'", "3", "--modality raster with --channels 0",
        spoil=lambda: png("data/images/s0.png", np.full((40, 56, 3), 9)),
    ),
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
    "image: decompression bomb": Case("data/images/s0.png", "40000", "2 GiB", "--max-image-gib 6", spoil=bomb),
    "npy: python objects": Case(
        "data/images/s0.npy", "Python objects", "np.save", spoil=both(ONES, pickle_as_npy),
        run="train … --modality raster",
    ),
    "npy: cut short": Case(
        "data/images/s0.npy", "NPY", spoil=both(ONES, cut("data/images/s0.npy")), run="train … --modality raster"
    ),
    "npy: a zip": Case(
        "data/images/s0.npy", "PNG, JPEG, TIFF", spoil=both(ONES, zip_as_npy), run="train … --modality raster"
    ),
    "npy: complex": Case(
        "data/images/s0.npy", "complex64", "float32",
        spoil=arrays(lambda i: np.ones((40, 56), np.complex64)), run="train … --modality raster",
    ),
    "npy: planes last": Case(
        "data/images/s0.npy", "(80, 70, 3)", "transpose(2, 0, 1)",
        spoil=arrays(lambda i: np.ones((80, 70, 3), np.float32)), run="train … --modality raster",
    ),
    "channels: number": Case("channel 1", "gray", run="train … --channels 0-6"),
    "channels: name": Case("'nir'", "gray", run="train … --channels nir"),
    "card: unknown key": Case("card", "'region'", "'regions'", spoil=card('format = 1\nregion = "instances"\n')),
    "card: bad values": Case(
        "regions", "'objects'", "'instances'", "min_region", "0",
        spoil=card('format = 1\nregions = "objects"\nmin_region = 0\n'),
    ),
    "card: no toml": Case("data/card.toml", "line 1", spoil=card("regions = instances\n")),
    "card: nothing says what a region is": Case(
        "--regions instances", "--regions classes", "--regions components", "data/card.toml", spoil=card("format = 1\n")
    ),
    "coco: no image file": Case("image 1", "'no.png'", "images/gray", spoil=coco_of({"file_name": "no.png"})),
    "coco: huge image": Case("image 1", "1000000000", "--max-image-gib", spoil=coco_of({"width": 1000000000})),
    "coco: unknown split": Case(
        "data/annotations/validation.json", "val.json", spoil=coco({}, "annotations/validation.json")
    ),
    "sensor: not there": Case("s.toml", "b.toml", spoil=write("b.toml", ""), run=OWN),
    "sensor: several mistakes": Case(
        "s.toml", "*.exe", ".png", "'unti'", "'unit'",
        spoil=sensor(HEAD + SOURCE.replace("png", "exe") + CHANNEL + 'unti = "count"\n'), run=OWN,
    ),
    "sensor: plane that no file has": Case(
        "data/images/s0.png", "1 plane", "'c'", "plane = 5",
        spoil=both(sensor(HEAD + SOURCE + CHANNEL + "plane = 5\n"), manifest(("split,image,", "split,s,"))), run=OWN,
    ),
}  # fmt: skip
