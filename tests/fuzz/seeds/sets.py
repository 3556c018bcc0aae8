"""Data sets of six grey images: one with a manifest, one with COCO annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fuzz.mutate.coco import SIZE_HW
from fuzz.seeds.arrays import GRAY8, LABELS

COUNT = 6
_SPLITS = ("train",) * 4 + ("val", "test")


def make_manifest_set(folder: Path) -> None:
    """Images, masks, manifest.csv and card.toml."""
    (folder / "masks").mkdir()
    _write_images(folder)
    rows = ["id,split,image,mask,zero_means,note"]
    for index, split in enumerate(_SPLITS):
        Image.fromarray(np.roll(LABELS, index, axis=0)).save(folder / f"masks/s{index}.png")
        rows.append(f"s{index},{split},images/s{index}.png,masks/s{index}.png,background,x")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (folder / "card.toml").write_text('format = 1\nregions = "instances"\nmin_region = 2\n')


def make_coco_set(folder: Path) -> None:
    """Images and annotations.json: run lengths as text, a polygon, and a crowd in run lengths as numbers."""
    _write_images(folder)
    annotations: list[dict[str, Any]] = []
    for index in range(COUNT):
        mask = np.asfortranarray((np.roll(LABELS, index, axis=0) == 2).astype(np.uint8))
        segmentations = (
            (1, 0, {"size": list(SIZE_HW), "counts": coco_mask.encode(mask)["counts"].decode()}),
            (2, 0, [[1, 1, 10.5, 2, 9, 12.25, 2, 9]]),
            (1, 1, {"size": list(SIZE_HW), "counts": _run_lengths(mask)}),
        )
        for category, crowd, segmentation in segmentations:
            annotation = {"id": len(annotations) + 1, "image_id": index, "category_id": category, "iscrowd": crowd}
            annotations.append({**annotation, "segmentation": segmentation})
    height, width = SIZE_HW
    images = [{"id": n, "file_name": f"s{n}.png", "height": height, "width": width} for n in range(COUNT)]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    document = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(document))


def _write_images(folder: Path) -> None:
    (folder / "images").mkdir()
    for index in range(COUNT):
        Image.fromarray(np.roll(GRAY8, index, axis=0)).save(folder / f"images/s{index}.png")


def _run_lengths(mask: Any) -> list[int]:
    """Return the lengths of the runs of a mask (H, W) read down its columns, the first of zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *changes, flat.size]).tolist()
    return [0, *lengths] if flat[0] else lengths
