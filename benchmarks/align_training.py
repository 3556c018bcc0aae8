"""Scores of `rgb+thermal` on simulated scenes: registered, aligned by `simmat align`, and not aligned.

    python benchmarks/align_training.py DIR [--count 240] [--steps 200] [--seeds 0 1 2]

The colour camera sees the middle of each simulated scene. The thermal camera sees more of it, moved by one known
homography: a shift of up to 10 % of the side, a rotation of up to 5 degrees, a scale of up to 1.1. Three data sets hold
the same colour images and masks:

* `registered`: the thermal images of the same part of the scene, as they were simulated.
* `aligned`: those of the moved camera, and the card that `simmat align` writes.
* `unaligned`: the middle of those of the moved camera, in the size of the colour images.

`lite` is trained on each by the same settings and seed, and scored on the test split. What is done is kept in DIR.
Set OMP_NUM_THREADS=1: then a training takes about two minutes of a core.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from align import corner_error_px, random_homography

from simmat.io.images import read_image, write_image
from simmat.plugins.loader import installed
from simmat.sensors.warp import Warp
from simmat.types import Window

SCENE_HW = (216, 288)
THERMAL_HW = (168, 224)
COLOUR_HW = (120, 160)
SETS = ("registered", "aligned", "unaligned")
MODALITY = ("--modality", "rgb+thermal")
SETTINGS = ("--foundation", "lite", "--image-size", "128", "--heads", "prompt,dense")
SETTINGS += ("--val-every", "100", "--keep", "last", "--no-pictures")
SCORES = {
    "one-click mIoU": ("miou_object",),
    "AP50, any class": ("everything", "any_class", "ap50"),
    "class mIoU": ("semantic", "miou"),
}
"""Score -> where it stands in what `simmat eval` prints."""


def middle(whole_hw: tuple[int, int], part_hw: tuple[int, int]) -> Window:
    """Return the middle part of an image."""
    y0, x0 = (whole_hw[0] - part_hw[0]) // 2, (whole_hw[1] - part_hw[1]) // 2
    return Window(y0, x0, y0 + part_hw[0], x0 + part_hw[1])


def shift_to(window: Window) -> np.ndarray:
    """Return the matrix from pixels of an image to those of its part."""
    matrix = np.eye(3)
    matrix[:2, 2] = -window.x0, -window.y0
    return matrix


def simmat(*arguments: str | Path) -> dict[str, Any]:
    """Run a command that prints json."""
    command = [sys.executable, "-m", "simmat", *map(str, arguments), "--json"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return dict(json.loads(printed))


def write_sets(root: Path, count: int) -> dict[str, float]:
    """Write the three data sets; return the corner error of `simmat align`, and what the thermal camera sees."""
    scenes = root / "scenes"
    size = str(SCENE_HW[1]), str(SCENE_HW[0])
    command = [sys.executable, "-m", "simmat", "data", "simulate", *MODALITY]
    command += ["--out", str(scenes), "--count", str(count), "--size", *size]
    subprocess.run(command, check=True, stdout=sys.stderr)
    thermal = installed().modality("thermal")
    colour = middle(SCENE_HW, COLOUR_HW)
    whole = Window(0, 0, *SCENE_HW)
    inner = middle(THERMAL_HW, COLOUR_HW)
    moved = random_homography(np.random.default_rng(0), COLOUR_HW)
    # from pixels of the colour camera to those of the thermal one
    true = np.linalg.inv(shift_to(inner)) @ moved
    # from those of the thermal camera to those of the scene
    to_scene = np.linalg.inv(shift_to(colour)) @ np.linalg.inv(true)
    with (scenes / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for name in SETS:
        for folder in ("images/rgb", "images/thermal", "masks"):
            (root / name / folder).mkdir(parents=True)
        shutil.copy(scenes / "manifest.csv", root / name)
        shutil.copy(scenes / "card.toml", root / name)
    for row in rows:
        scene = thermal.load({"thermal": scenes / row["thermal"]})
        seen = Warp(to_scene, SCENE_HW)(scene, Window(0, 0, *THERMAL_HW), whole, [True])
        images = {
            "registered": scene.cut(colour),
            "aligned": seen,
            "unaligned": seen.cut(inner),
        }
        parts = {}
        for column in ("rgb", "mask"):
            planes = read_image(scenes / row[column]).planes
            inside = slice(colour.y0, colour.y1), slice(colour.x0, colour.x1)
            parts[column] = np.ascontiguousarray(planes[:, *inside])
        for name in SETS:
            write_image(root / name / row["rgb"], parts["rgb"], colour="rgb")
            write_image(root / name / row["mask"], parts["mask"])
            thermal.save(images[name], {"thermal": root / name / row["thermal"]})
    grid = Window(0, 0, *COLOUR_HW)
    back = Warp(true, THERMAL_HW)(seen, grid, Window(0, 0, *THERMAL_HW), [True])
    found = simmat("align", root / "aligned", *MODALITY)["sources"]["thermal"]
    error_px = corner_error_px(np.asarray(found["matrix"]), true, COLOUR_HW)
    return {
        "corner_error_px": round(error_px, 2),
        "seen_by_both": round(float(back.valid.mean()), 3),
    }


def scores_of(root: Path, name: str, seed: int, steps: int) -> dict[str, float]:
    """Train on a data set, and return the scores on its test split, in per cent."""
    run = root / f"runs/{name}-{seed}"
    result = run / "scores.json"
    if not result.exists():
        shutil.rmtree(run, ignore_errors=True)
        command = [sys.executable, "-m", "simmat", "train", *MODALITY, *SETTINGS]
        command += ["--data", str(root / name), "--out", str(run)]
        command += ["--steps", str(steps), "--seed", str(seed)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        bundle = run / "bundle.safetensors"
        which = ("--data", root / name, "--no-zero-shot", "--everything", "--semantic")
        result.write_text(json.dumps(simmat("eval", bundle, *which)))
    tuned = json.loads(result.read_text())["tuned"]
    found = {}
    for score, keys in SCORES.items():
        value = tuned
        for key in keys:
            value = value[key]
        found[score] = 100 * float(value)
    return found


def main() -> None:
    """Print the scores of each data set, and the differences to registered images, as json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", metavar="DIR", type=Path)
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    facts = options.root / "alignment.json"
    if not facts.exists():
        facts.write_text(json.dumps(write_sets(options.root, options.count)))
    of_sets: dict[str, list[dict[str, float]]] = {name: [] for name in SETS}
    for seed in options.seeds:
        for name, found in of_sets.items():
            found.append(scores_of(options.root, name, seed, options.steps))
    results: dict[str, Any] = {"alignment": json.loads(facts.read_text())}
    for score in SCORES:
        usual = [one[score] for one in of_sets["registered"]]
        for name, found in of_sets.items():
            own = [one[score] for one in found]
            pairs = zip(own, usual, strict=True)
            results.setdefault(score, {})[name] = {
                "mean": round(fmean(own), 2),
                "minus registered": [round(one - other, 2) for one, other in pairs],
            }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
