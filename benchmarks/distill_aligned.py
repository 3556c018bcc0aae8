"""Masks that a teacher gives for the images of a moved camera, by their alignment, and for registered images.

    python benchmarks/distill_aligned.py ../shared/data/rgb-thermal-pairs --pairs 12

One known homography moves the thermal camera of registered pairs, as in `align.py`. Three data sets hold the same
moved thermal images. `registered`: the colour images are moved, too. `aligned`: they are not, but the card states the
homography. `unaligned`: they are not, and the card states nothing. Printed is the IoU of each mask of `registered` with
the most similar one of the other set, within the pixels that both colour images show. Pairs of the test split are left
out.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np
from align import MARGIN, RIG_HW, random_homography
from PIL import Image
from pycocotools import mask as coco_mask
from simmat_plugin_distill.pairs import check_pairs, open_pairs
from simmat_plugin_distill.teacher import load_teacher, write_masks

from simmat.config import load_config
from simmat.io.images import read_image
from simmat.plugins.loader import installed
from simmat.sensors.warp import Warp
from simmat.types import Channel, SensorImage, Window

SETS = ("registered", "aligned", "unaligned")
SMALLEST_PX = 100


def read(file: Path, planes: int) -> SensorImage:
    """Return the first planes of a picture."""
    values = read_image(file).planes[:planes].astype(np.float32)
    channels = tuple(Channel(f"c{n}", "counts", "count") for n in range(planes))
    return SensorImage.from_planes(values, channels)


def save(file: Path, image: SensorImage) -> None:
    """Write a picture; pixels that were not seen are 0."""
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.clip(np.rint(image.data), 0, 255).astype(np.uint8)
    Image.fromarray(values[0] if len(values) == 1 else np.moveaxis(values, 0, 2)).save(
        file
    )


def write_sets(
    data: Path, root: Path, true: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    """Write the three data sets; return name -> where both colour images of a pair show something."""
    with (data / "manifest.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] != "test"]
    whole = Window(0, 0, *RIG_HW)
    seen: dict[str, np.ndarray] = {}
    for number in np.random.default_rng(0).permutation(len(rows)):
        row = rows[number]
        colour, thermal = read(data / row["rgb"], 3), read(data / row["thermal"], 1)
        height, width = colour.size_hw
        if height < MARGIN * RIG_HW[0] or width < MARGIN * RIG_HW[1]:
            continue
        y0, x0 = (height - RIG_HW[0]) // 2, (width - RIG_HW[1]) // 2
        part = colour.cut(Window(y0, x0, y0 + RIG_HW[0], x0 + RIG_HW[1]))
        to_part = np.eye(3)
        to_part[:2, 2] = -x0, -y0
        moved = {}
        for name, image in (("rgb", colour), ("gray", thermal)):
            warp = Warp(np.linalg.inv(true @ to_part), image.size_hw)
            averaged = [True] * len(image.channels)
            moved[name] = warp(image, whole, Window(0, 0, height, width), averaged)
        inner = Warp(np.linalg.inv(true), RIG_HW)(part, whole, whole, [True] * 3)
        name = row["id"]
        seen[name] = inner.valid[0] & moved["rgb"].valid[0]
        for kind in SETS:
            own = moved["rgb"] if kind == "registered" else part
            save(root / kind / f"images/rgb/{name}.png", own)
            save(root / kind / f"images/gray/{name}.png", moved["gray"])
        if len(seen) == count:
            break
    (root / "aligned/card.toml").write_text(
        'regions = "instances"\n[alignment.gray]\nreference = "rgb"\n'
        f"matrix = {true.tolist()}\n"
    )
    return seen


def masks_of(root: Path, out: Path) -> dict[str, list[np.ndarray]]:
    """Return name of a pair -> masks that untuned `lite` gives for its colour image."""
    registry = installed()
    values = {"modality": "gray", "data": root, "out": out, "device": "cpu"}
    config = load_config(None, values)
    teacher = load_teacher("lite", None, 256, config, registry)
    pairs = open_pairs(config, teacher.adapter, registry)
    check_pairs(pairs)
    write_masks(pairs, teacher, out, progress=lambda done: None)
    found = {}
    for file in sorted((out / "found").glob("*.json")):
        objects = json.loads(file.read_text())["objects"]
        found[file.stem] = [
            coco_mask.decode(one["segmentation"]).astype(bool) for one in objects
        ]
    return found


def main() -> None:
    """Print the agreement of the sets as json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=12)
    options = parser.parse_args()
    true = random_homography(np.random.default_rng(0), RIG_HW)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        seen = write_sets(options.data, root, true, options.pairs)
        found = {kind: masks_of(root / kind, root / f"out-{kind}") for kind in SETS}
    results = {}
    for kind in SETS[1:]:
        best = []
        for name, masks in found["registered"].items():
            others = [one & seen[name] for one in found[kind][name]]
            for mask in masks:
                own = mask & seen[name]
                if own.sum() < max(SMALLEST_PX, 0.9 * mask.sum()):
                    continue
                overlaps = [(own & one).sum() / (own | one).sum() for one in others]
                best.append(max(overlaps, default=0))
        results[kind] = {
            "masks": len(best),
            "mean_iou": round(float(np.mean(best)), 3),
            "median_iou": round(float(np.median(best)), 3),
            "above_0.5": round(float(np.mean(np.array(best) > 0.5)), 3),
        }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
