"""Measure what `--measure` costs, and how often the interval of a mean temperature holds the true one.

    python benchmarks/measure.py time [--objects 1000] [--side 4000] [--runs 2] [--bundle BUNDLE]
    python benchmarks/measure.py intervals [--bundle BUNDLE] [--seed 77] [--scenes 100]

`time` compares the CPU seconds of `simmat predict` with and without --measure, in turn, on one thermal image: each
object is prompted by its box, or with --bundle all objects are found without prompts. `intervals` clicks the objects of
simulated thermal scenes, whose temperatures are known, and counts how many true means lie in the interval of
--uncertainty. It prints json.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from measuring import parser_of


def write_scene(folder: Path, side: int, objects: int) -> None:
    """Write a thermal image with discs on a grid, and a table of their boxes."""
    rng = np.random.default_rng(0)
    kelvin = (285 + rng.normal(size=(side, side))).astype(np.float32)
    across = int(np.ceil(np.sqrt(objects)))
    step = side // across
    lines = ["file,object,box"]
    for number in range(objects):
        radius = int(rng.integers(step // 8, step // 3))
        y = (number // across) * step + step // 2
        x = (number % across) * step + step // 2
        rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
        disc = rows**2 + columns**2 <= radius**2
        kelvin[y - radius : y + radius + 1, x - radius : x + radius + 1][disc] += 15
        box = f"{x - radius},{y - radius},{x + radius + 1},{y + radius + 1}"
        lines.append(f'scene.tif,{number},"{box}"')
    tifffile.imwrite(folder / "scene.tif", kelvin, tile=(256, 256))
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def cpu_seconds(words: list[str]) -> float:
    """Run `simmat` and return the CPU seconds that it takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "simmat", *words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def time_measuring(
    side: int, objects: int, bundle: str | None, runs: int
) -> dict[str, Any]:
    """Return CPU seconds without and with --measure, and the ratio of the fewest."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scene(folder, side, objects)
        words = ["predict", "--modality-option", "unit=K", "--format", "coco"]
        if bundle is None:
            words += ["--foundation", "lite", "--modality", "thermal"]
            words += ["--prompts", str(folder / "prompts.csv")]
        else:
            words += [bundle, str(folder / "scene.tif"), "--everything"]
        seconds: dict[str, list[float]] = {"without": [], "with": []}
        for run in range(runs):
            for kind, more in (("without", []), ("with", ["--measure"])):
                out = ["--out", str(folder / f"{kind}{run}")]
                seconds[kind].append(cpu_seconds([*words, *more, *out]))
        table = (folder / "with0/objects.csv").read_text(encoding="utf-8")
    without, measured = min(seconds["without"]), min(seconds["with"])
    return {
        "objects": len(table.splitlines()) - 1,
        "cpu_s": seconds,
        "ratio": measured / without,
    }


def intervals(bundle: str | None, seed: int, scenes: int) -> dict[str, Any]:
    """Click the objects of simulated scenes, and return how many true means lie in their interval.

    Truth is the mean over the true mask of the temperature at the lens, before the camera's blur, noise and vignetting.
    """
    from simmat_plugin_measure.measuring import mean_intervals, measure
    from simmat_plugin_scenes.generate import generate_scene
    from simmat_plugin_thermal.camera import apparent_temperature

    import simmat
    from simmat.data.instances import center_click, region_from_mask
    from simmat.plugins.loader import installed

    if bundle is None:
        model = simmat.load(foundation="lite", modality="thermal")
    else:
        model = simmat.load(bundle)
    adapter = installed().modality("thermal")
    rows = []
    for index in range(scenes):
        scene = generate_scene(np.random.default_rng([seed, index, 0]))
        truth = apparent_temperature(scene)
        image = adapter.simulate(scene, np.random.default_rng([seed, index, 1]))
        model.set_image(image)
        for number in np.unique(scene.instance[scene.instance > 0]).tolist():
            is_object = scene.instance == number
            point = center_click(is_object)
            mask = model.predict(points=[point]).mask
            instance = region_from_mask(mask, None)
            if instance is None:
                continue
            measured = measure(image, [instance]).row(0)
            mean = measured["intensity_mean-thermal [K]"]
            probability = model.uncertainty(points=[point]).mean
            low, high = mean_intervals(image, probability, measured).values()
            true_mean = float(truth[is_object].mean())
            iou = float((mask & is_object).sum() / (mask | is_object).sum())
            rows.append((true_mean, mean, low, high, iou))
    true_means, means, lows, highs, ious = np.array(rows).T
    error = np.abs(true_means - means)
    half = (highs - lows) / 2
    return {
        "objects": len(rows),
        "share_in_interval": float(
            ((lows <= true_means) & (true_means <= highs)).mean()
        ),
        "median_half_width_k": float(np.median(half)),
        "mean_error_k": float(error.mean()),
        "mean_iou": float(ious.mean()),
        "factor_for_90_percent": float(np.quantile(error / half, 0.9)),
    }


def main() -> None:
    """Print what the command line asks for."""
    parser = parser_of(__doc__)
    parser.add_argument("what", choices=["time", "intervals"])
    parser.add_argument("--bundle")
    parser.add_argument("--objects", type=int, default=1000)
    parser.add_argument("--side", type=int, default=4000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--scenes", type=int, default=100)
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if given.what == "time":
        found = time_measuring(given.side, given.objects, given.bundle, given.runs)
    else:
        found = intervals(given.bundle, given.seed, given.scenes)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
