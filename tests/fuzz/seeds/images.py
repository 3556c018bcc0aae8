"""Images and masks in every format and layout that is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from fuzz.damage import CODE

HEIGHT, WIDTH = 24, 31
_RNG = np.random.default_rng(0)
GRAY8 = _RNG.integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
GRAY16 = _RNG.integers(0, 65_535, (HEIGHT, WIDTH), dtype=np.uint16)
RGB = _RNG.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
FLOATS = _RNG.normal(size=(HEIGHT, WIDTH)).astype(np.float32)
POSITIVE = np.abs(FLOATS) + np.float32(0.01)
LABELS = (GRAY8 // 60).astype(np.uint8)
"""Values 0 to 4."""

_SCALE = (
    "<GDALMetadata><Item name='SCALE' sample='0' role='scale'>0.1</Item></GDALMetadata>"
)
_GDAL = [(42113, 2, 0, "-9999", True), (42112, 2, 0, _SCALE, True)]


def make_images(folder: Path) -> None:
    """PNG, JPEG, TIFF and npy: bits, grey, RGB, alpha, palette, planes, pages, tiles, byte orders, texts."""
    _save(folder / "gray8.png", GRAY8)
    _save(folder / "gray16.png", GRAY16)
    _save(folder / "rgb.png", RGB)
    _save(folder / "rgba.png", np.dstack([RGB, GRAY8]))
    Image.fromarray(GRAY8).convert("1").save(folder / "bits.png")
    Image.fromarray(RGB).quantize(16).save(folder / "palette.png")
    _save(folder / "gray8.jpg", GRAY8)
    _save(folder / "rgb.jpg", RGB)
    for name, array in (
        ("float", FLOATS),
        ("planes", np.stack([GRAY16] * 3)),
        ("gray8", GRAY8),
    ):
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "big_endian.npy", GRAY16.astype(">u2"))
    _make_tiffs(folder)


def _make_tiffs(folder: Path) -> None:
    def write(name: str, array: Any, **options: Any) -> None:
        tifffile.imwrite(folder / f"{name}.tif", array, **{"metadata": None, **options})

    gray = {"photometric": "minisblack"}
    write("gray16", GRAY16)
    write("float", FLOATS, compression="zlib")
    write("rgb", RGB, photometric="rgb", compression="zlib", predictor=True)
    write("separate", np.stack([GRAY16] * 5), planarconfig="separate", **gray)
    write("pages", np.stack([GRAY8] * 4), **gray)
    write(
        "tiled", np.pad(GRAY16, ((0, 40), (0, 40))), tile=(16, 16), compression="zlib"
    )
    write("big_endian", GRAY16, byteorder=">")
    write("bigtiff", GRAY8, bigtiff=True)
    write(
        "described",
        GRAY16,
        description='{"quantity": "brightness_temperature", "unit": "cK"}',
    )
    write("gdal", GRAY16, extratags=_GDAL)
    write("ome.ome", np.stack([GRAY8] * 3), metadata={"axes": "CYX"}, **gray)
    write("imagej", np.stack([GRAY8] * 3), imagej=True, metadata={}, **gray)
    write("shaped", np.stack([GRAY8] * 3), metadata={}, **gray)


def make_masks(folder: Path) -> None:
    """Label images in every format; `postscript.png` is a PostScript program under a wrong name."""
    _save(folder / "labels8.png", LABELS)
    _save(folder / "labels16.png", LABELS.astype(np.uint16) * 300)
    Image.fromarray(LABELS > 1).save(folder / "bits.png")
    palette = Image.fromarray(LABELS)
    palette.putpalette(
        [part for value in range(256) for part in (value, 255 - value, value // 2)]
    )
    palette.save(folder / "palette.png")
    palette.save(folder / "palette.bmp")
    for dtype in ("uint8", "int64", "float32"):
        tifffile.imwrite(folder / f"{dtype}.tif", LABELS.astype(dtype), metadata=None)
    for order, dtype in (("<", "uint16"), (">", "int32")):
        tifffile.imwrite(
            folder / f"{dtype}.tif",
            LABELS.astype(dtype),
            metadata=None,
            byteorder=order,
            compression=8,
        )
    for dtype in ("int32", "float64"):
        np.save(folder / f"{dtype}.npy", LABELS.astype(dtype))
    (folder / "postscript.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 31 24\n%%EndComments\n"
        f"(%pipe%{CODE}) (r) file pop\nshowpage\n%%EOF\n"
    )


def _save(path: Path, array: Any) -> None:
    Image.fromarray(array).save(path)
