"""What is wrong with the data sets and sensors of docs/bad-input.md; each is called in the folder that holds `data`."""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layout_trees
import numpy as np
from PIL import Image

Break = Callable[[], Any]
DATA = Path("data")
MANIFEST = DATA / "manifest.csv"
NAMES = ("s0", "s1", "s2", "s3", "s4")


def png(path: str, values: Any) -> None:
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def replace(path: Path | str, *pairs: tuple[str, str]) -> None:
    file = Path(path)
    text = file.read_text(encoding="utf-8")
    for old, new in pairs:
        assert old in text, (path, old)
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def manifest(*pairs: tuple[str, str]) -> Break:
    return lambda: replace(MANIFEST, *pairs)


def card(text: str) -> Break:
    return lambda: (DATA / "card.toml").write_text(text, encoding="utf-8")


def gone(path: str) -> Break:
    return Path(path).unlink


def cut(path: str, size: int = 300) -> Break:
    return lambda: Path(path).write_bytes(Path(path).read_bytes()[:size])


def write(path: str, text: str = "no picture\n") -> Break:
    return lambda: Path(path).write_text(text, encoding="utf-8")


def both(*steps: Break) -> Break:
    return lambda: [step() for step in steps]


def arrays(values: Callable[[int], Any]) -> Break:
    """Put a npy in the place of each image."""

    def put() -> None:
        for index, name in enumerate(NAMES):
            np.save(DATA / f"images/{name}.npy", values(index))
            (DATA / f"images/{name}.png").unlink()
        replace(MANIFEST, *((f"images/{name}.png", f"images/{name}.npy") for name in NAMES))

    return put


def zipped_array() -> None:
    arrays(lambda index: np.ones((40, 56), np.float32))()
    with zipfile.ZipFile(DATA / "images/s0.npy", "w") as archive:
        archive.writestr("a.npy", b"x")


def each_mask(values: Any, *names: str) -> Break:
    return lambda: [png(f"data/masks/{name}.png", values) for name in names or NAMES]


def float_mask() -> None:
    np.save(DATA / "masks/s1.npy", np.full((40, 56), 0.5, np.float32))
    replace(MANIFEST, ("masks/s1.png", "masks/s1.npy"))


def jpeg_mask() -> None:
    Image.fromarray(np.ones((40, 56), np.uint8)).save(DATA / "masks/s1.jpg")
    replace(MANIFEST, ("masks/s1.png", "masks/s1.jpg"))


def jpeg_tiff_mask() -> None:
    Image.fromarray(np.ones((40, 56), np.uint8)).save(DATA / "masks/s1.tif", compression="jpeg")
    replace(MANIFEST, ("masks/s1.png", "masks/s1.tif"))


def bomb() -> None:
    """A header that claims 40000 x 40000 pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 8, 0, 0, 0, 0)), (b"IDAT", b""), (b"IEND", b"")]
    written = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    (DATA / "images/s0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


def coco(document: Any) -> Break:
    """Describe the set by a COCO json instead."""

    def put() -> None:
        MANIFEST.unlink()
        shutil.rmtree(DATA / "masks")
        text = document if isinstance(document, str) else json.dumps(document)
        (DATA / "annotations.json").write_text(text)

    return put


def coco_of(image: dict[str, Any], **annotation: Any) -> Break:
    picture = {"id": 1, "file_name": "s1.png", "width": 56, "height": 40, **image}
    region = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": {"size": [40, 56], "counts": [2240]}}
    return coco({"images": [picture], "categories": [{"id": 1, "name": "disc"}], "annotations": [region | annotation]})


def sensor(text: str, name: str = "s") -> Break:
    return write(f"{name}.toml", text)


HEAD = 'format = 1\nname = "s"\ndescription = "a sensor"\n'
SOURCE = '[[source]]\nname = "s"\nfiles = ["*.png"]\n'
CHANNEL = '[[channel]]\nname = "c"\nquantity = "intensity"\nunit = "count"\n'


def glass() -> None:
    layout_trees.tree("rgb-thermal-glass", Path("glass"))
    Path("glass/RGB_T_Glass_train_GroundTruth.csv").write_bytes(b"")


def nyu(broken: bool) -> Break:
    def make() -> None:
        layout_trees.tree("nyudv2", Path("nyu"))
        if broken:
            for file in Path("nyu").glob("*/0003.*"):
                file.unlink()

    return make


BREAK: dict[str, Break] = {
    f"{section}/{title}": step
    for section, steps in {
        "Data sets": {
            "Missing mask, manifest": gone("data/masks/s0.png"),
            "File of another ending, manifest": write(
                "sonar.toml", HEAD.replace('"s"', '"sonar"') + SOURCE.replace('"s"', '"sonar"').replace("png", "npy")
                + CHANNEL
            ),
            "No mask at all, folders": both(
                gone("data/manifest.csv"), *(gone(f"data/masks/{name}.png") for name in NAMES)
            ),
            "Mask without image": both(gone("data/manifest.csv"), gone("data/images/s0.png")),
            "Mask of other size": each_mask(np.ones((20, 30)), "s1"),
            "Mask of other size (check)": each_mask(np.ones((20, 30)), "s1"),
            "Rgb picture for gray": lambda: png("data/images/s0.png", np.full((40, 56, 3), 9)),
            "Two channel counts in one set": arrays(lambda i: np.random.default_rng(i).random(
                (4 if i == 0 else 3, 40, 56), np.float32)),
            "NaN everywhere in all images": arrays(lambda i: np.full((40, 56), np.nan, np.float32)),
            "Constant images": arrays(lambda i: np.full((40, 56), 5, np.float32)),
            "--nodata removes everything": lambda: [png(f"data/images/{n}.png", np.full((40, 56), 7)) for n in NAMES],
            "All masks empty": each_mask(np.zeros((40, 56))),
            "Val masks empty": each_mask(np.zeros((40, 56)), "s3"),
            "Text file named png": write("data/images/s0.png"),
            "Truncated png": cut("data/images/s0.png"),
            "Empty image file": write("data/images/s0.png", ""),
            "Empty mask file": write("data/masks/s0.png", ""),
            "Truncated mask": cut("data/masks/s1.png", 120),
            "Rgb mask": each_mask(np.ones((40, 56, 3)), "s1"),
            "Float mask": float_mask,
            "Jpeg mask": jpeg_mask,
            "Jpeg within a TIFF mask": jpeg_tiff_mask,
            "Object npy (pickle)": both(arrays(lambda i: np.ones((40, 56), np.float32)), lambda: np.save(
                DATA / "images/s0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)),
            "Truncated npy": both(arrays(lambda i: np.ones((40, 56), np.float32)), cut("data/images/s0.npy")),
            "Npz renamed npy": zipped_array,
            "Complex npy": arrays(lambda i: np.ones((40, 56), np.complex64)),
            "HWC npy": arrays(lambda i: np.ones((80, 70, 3), np.float32)),
            "Decompression bomb": bomb,
            "Manifest wrong columns": manifest(("id,split", "name,fold")),
            "Manifest misspelt column": manifest(("id,split", "id,splt")),
            "Manifest duplicate ids": manifest(("s1,train", "s0,train")),
            "Manifest image in two splits": manifest(("images/s4.png", "images/s0.png")),
            "Manifest path leaves the folder": manifest(("images/s0.png", "../../../etc/passwd")),
            "Manifest wrong split names": manifest((",train,", ",training,")),
            "Manifest ragged row": lambda: MANIFEST.write_text(MANIFEST.read_text() + "s5,train\n"),
            "Manifest semicolons": manifest((",", ";")),
            "Manifest many problems": manifest(
                ("s0,train,images/s0.png", "s0,training,images/x.png"),
                ("masks/s1.png", "masks/none.png"),
                ("s2,train,images/s2.png,masks/s2.png", ",train,,\ns0,train,images/s2.png,masks/s2.png"),
            ),
            "Card unknown key": card('format = 1\nregion = "instances"\n'),
            "Card bad value": card('format = 1\nregions = "objects"\nmin_region = 0\n'),
            "Card bad toml": card("regions = instances\n"),
            "No region rule": card("format = 1\n"),
            "Coco broken json": coco('{"images": [{"id": 1, "file_na'),
            "Coco missing keys": coco({"images": []}),
            "Coco rle wrong": coco_of({}, segmentation={"size": [40, 56], "counts": [1, 2, 3]}),
            "Coco missing image": coco_of({"file_name": "no.png"}),
            "Coco split of another name": both(coco({}), lambda: (DATA / "annotations").mkdir(), lambda: (
                DATA / "annotations.json").rename(DATA / "annotations/validation.json")),
            "Coco huge size": coco_of({"width": 1000000000}),
            "Data is empty folder": Path("e").mkdir,
            "Same stem twice": both(gone("data/manifest.csv"), lambda: np.save(
                DATA / "images/s0.npy", np.ones((40, 56), np.float32))),
            "Test split only": manifest((",train,", ",test,"), (",val,", ",test,")),
        },
        "Sensors of your own": {
            "Sensor file not there": write("b.toml", ""),
            "Bad toml": sensor("format = "),
            "No format": sensor(HEAD.replace("format = 1\n", "") + SOURCE + CHANNEL),
            "Several slips": sensor(HEAD + SOURCE.replace("png", "exe") + CHANNEL + 'unti = "count"\n'),
            "Unknown normalize": sensor(HEAD + SOURCE + CHANNEL + 'normalize = { kind = "minmax" }\n'),
            "One pair of brackets": sensor(HEAD + SOURCE + CHANNEL.replace("[[channel]]", "[channel]")),
            "Empty list": sensor(HEAD + SOURCE.replace('["*.png"]', "[]") + CHANNEL),
            "Plane that no file has": both(
                sensor(HEAD + SOURCE + CHANNEL + "plane = 5\n"), manifest(("split,image,", "split,s,"))
            ),
        },
        "Published data sets": {
            "Empty table": glass,
            "Files missing": nyu(True),
            "Out within": nyu(False),
        },
    }.items()
    for title, step in steps.items()
}  # fmt: skip
