"""Data sets of six grey images, with a manifest and with COCO annotations; TOML files that people write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fuzz.damage import SIZE_HW
from fuzz.seeds.images import GRAY8, LABELS

COUNT = 6
_SPLITS = ("train",) * 4 + ("val", "test")


def make_manifest(folder: Path) -> None:
    """Images, masks, manifest.csv and card.toml."""
    (folder / "masks").mkdir()
    _write_images(folder)
    rows = ["id,split,image,mask,zero_means,note"]
    for index, split in enumerate(_SPLITS):
        Image.fromarray(np.roll(LABELS, index, axis=0)).save(
            folder / f"masks/s{index}.png"
        )
        rows.append(
            f"s{index},{split},images/s{index}.png,masks/s{index}.png,background,x"
        )
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "card.toml").write_text(
        'format = 1\nregions = "instances"\nmin_region = 2\n'
    )


def make_coco(folder: Path) -> None:
    """Images and annotations.json: run lengths as text, a polygon, and a crowd in run lengths as numbers."""
    _write_images(folder)
    annotations: list[dict[str, Any]] = []
    for index in range(COUNT):
        mask = np.asfortranarray((np.roll(LABELS, index, axis=0) == 2).astype(np.uint8))
        segmentations = (
            (
                1,
                0,
                {
                    "size": list(SIZE_HW),
                    "counts": coco_mask.encode(mask)["counts"].decode(),
                },
            ),
            (2, 0, [[1, 1, 10.5, 2, 9, 12.25, 2, 9]]),
            (
                1,
                1,
                {
                    "size": list(SIZE_HW),
                    "counts": [SIZE_HW[0], SIZE_HW[0] * (SIZE_HW[1] - 1)],
                },
            ),
        )
        for category, crowd, segmentation in segmentations:
            annotation = {
                "id": len(annotations) + 1,
                "image_id": index,
                "category_id": category,
                "iscrowd": crowd,
            }
            annotations.append({**annotation, "segmentation": segmentation})
    height, width = SIZE_HW
    images = [
        {"id": n, "file_name": f"s{n}.png", "height": height, "width": width}
        for n in range(COUNT)
    ]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(document))


def _write_images(folder: Path) -> None:
    (folder / "images").mkdir()
    for index in range(COUNT):
        Image.fromarray(np.roll(GRAY8, index, axis=0)).save(
            folder / f"images/s{index}.png"
        )


_CARD = """
format = 1
regions = "components"
min_region = 3
min_region_share = 0.001
nodata = { gray = 0 }
ignore = 255
zero_means = "background"
notes = "n"
licence = "CC0"
source = "s"
[class_names]
1 = "ship"
2 = "x"
[intrinsics]
fx = 500.0
fy = 500.0
cx = 10.0
cy = 12.0
"""
_SENSOR = """
format = 1
name = "bands"
description = "d"
source = [{ files = ["*.tif", "*.png"], planes = 3 }]
defaults = { quantity = "reflectance", unit = "1", scale = 1e-4, nodata = [0, 65535] }
channel = [
    { name = "a", plane = 0, wavelength_um = 0.5, normalize = { kind = "percentile", low = 2, high = 98 } },
    { name = "f", plane = 0, valid_range = [0.0, 2.0] },
    { name = "b", plane = 1, normalize = { kind = "db", of = "power", floor = 1e-3 } },
    { name = "c", band = 3, normalize = { kind = "range", low = 0, high = 1 } },
    { name = "d", plane = 2, normalize = "log" },
    { name = "e", plane = 2, normalize = { kind = "z-score", mean = 0.3, std = 0.1 } },
]
"""
_CONFIG = """
modality = "gray"
data = "set"
out = "run"
foundation = "tiny"
mat = "mat-residual"
tune = "lora"
regions = "instances"
image_size = 64
steps = 5
batch_size = 2
lr = 1e-3
seed = 3
augment = true
rotate = false
paste = 0.0
mat_options = { width = 8 }
tune_options = { rank = 4 }
workers = 0
nodata = 0
channels = [0]
"""
_BENCH = """
title = "T"
foundation = "tiny"
seeds = [0, 1]
lr = [1e-4, 1e-3]
score = "miou_object"
reference = "x"
keep_bundles = true
train = { image_size = 64, steps = 4, batch_size = 2 }
data = [
    { name = "d", modality = "gray", data = "set", regions = "instances" },
    { name = "e", modality = "gray", simulate = { count = 4, seed = 0, size = [32, 32] }, averaged = false },
]
grid = [{ mat = ["mat", "mat-residual"], tune = ["lora"], train_share = [0.5, 1.0] }]
arm = [{ name = "x", from_scratch = true, steps_factor = 2, seeds = 0, on = "d" }]
quick = { data = "d", arms = ["x"], seeds = 0, steps = 2 }
"""


def make_documents(folder: Path) -> None:
    """One of each, with most of the keys it may have."""
    for name, text in (
        ("card", _CARD),
        ("sensor", _SENSOR),
        ("config", _CONFIG),
        ("bench", _BENCH),
    ):
        (folder / f"{name}.toml").write_text(text.lstrip())
