"""Does `next` of `simmat annotate` need fewer labelled images than a random order?

    python benchmarks/next_image.py [--sets fluorescence-nuclei,nir-crops] [--rounds 5] [--seeds 3] [--out FILE.json]

A simulation: the train images of a labelled set are taken as unlabelled. A run starts with --first random images, the
same for both orders; after each training the next --each images are labelled (their true masks are taken), either those
that the annotator's own ranking calls least sure (`simmat_plugin_annotate.models.uncertainty_of`) or random ones. After
every training the model is scored on the set's test images. Validation images are always labelled.

Printed for each set: the score against the number of labelled images, for both orders, mean over the seeds; and how
many images each order needs for what the random order has reached at the end. The json holds every number.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simmat_plugin_annotate.models import uncertainty_of

import simmat
from simmat.predictor import LargeImage, Predictor
from simmat.predictor.reading import LoadedImage

SHARED = Path(os.environ.get("SIMMAT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
SETS: dict[str, dict[str, Any]] = {
    "fluorescence-nuclei": {"modality": "gray", "card": {"regions": "instances", "min_region": 30}},
    "nir-crops": {
        "modality": "raster",
        "channels": "0,1",
        "card": {"regions": "components", "min_region": 200},
    },
    "thermal-udder": {"modality": "gray", "card": {"regions": "components", "min_region": 100}},
}
ORDERS = ("next", "random")


def rows_of(data: Path) -> list[dict[str, str]]:
    """Return the rows of a set's manifest."""
    with (data / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_set(folder: Path, data: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write a data set of some rows; images and masks are links."""
    folder.mkdir(parents=True)
    for name in ("images", "masks"):
        (folder / name).symlink_to(data / name)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def rank(predictor: Predictor, data: Path, rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the ids of images, the least sure first."""
    found: dict[str, float] = {}
    for row in rows:
        image = predictor.reader(data / row["image"])
        if isinstance(image, LoadedImage):
            value = uncertainty_of(LargeImage(predictor, image), dense=predictor.dense is not None)
        else:
            value = uncertainty_of(predictor.open_image(data / row["image"]), dense=predictor.dense is not None)
        found[row["id"]] = -1.0 if value is None else value
    return sorted(found, key=lambda name: -found[name])


def run(
    name: str, order: str, seed: int, options: argparse.Namespace, place: Path, first: dict[str, float] | None = None
) -> list[dict[str, float]]:
    """Label, train and score round by round; return a point for each round.

    `first` is the point of another order's first round, whose model is still there.
    """
    settings, data = SETS[name], options.data / name
    rows = rows_of(data)
    if options.test is not None:
        kept = {row["id"] for row in [row for row in rows if row["split"] == "test"][: options.test]}
        rows = [row for row in rows if row["split"] != "test" or row["id"] in kept]
    waiting = [row for row in rows if row["split"] == "train"]
    rng = random.Random(seed)
    rng.shuffle(waiting)
    others = [row for row in rows if row["split"] != "train"]
    labelled, waiting = waiting[: options.first], waiting[options.first :]
    points = []
    for number in range(options.rounds):
        folder = place / (f"{name}-{order}-{seed}-{number}" if number else f"{name}-{seed}")
        if number or first is None:
            points.append(train_and_score(folder, data, [*labelled, *others], settings, seed, options))
            points[-1]["images"] = float(len(labelled))
        else:
            points.append(first)
        predictor = simmat.load(folder / "run", device=options.device)
        print(f"{name} {order:>6} seed {seed}: " + ", ".join(f"{key} {value:.4g}" for key, value in points[-1].items()))
        if not waiting or number == options.rounds - 1:
            break
        if order == "next":
            best = rank(predictor, data, waiting)[: options.each]
            chosen = [row for row in waiting if row["id"] in best]
        else:
            chosen = waiting[: options.each]
        labelled = [*labelled, *chosen]
        waiting = [row for row in waiting if row not in chosen]
    return points


def train_and_score(
    folder: Path, data: Path, rows: Sequence[dict[str, str]], settings: dict[str, Any], seed: int, options: Any
) -> dict[str, float]:
    """Train in folder/run with the rows of a set, and return the scores of its test images."""
    write_set(folder / "set", data, rows)
    arguments = {"channels": settings.get("channels"), "image_size": options.image_size, "crop": options.crop}
    simmat.train(
        modality=settings["modality"],
        data=folder / "set",
        out=folder / "run",
        foundation=options.foundation,
        steps=options.steps,
        val_every=options.steps,
        seed=seed,
        pictures=False,
        progress=False,
        device=options.device,
        **settings["card"],
        **{name: value for name, value in arguments.items() if value is not None},
    )
    report = simmat.evaluate(folder / "run", folder / "set", zero_shot=False, everything=options.everything)
    scores = {"one_click": float(report["tuned"]["miou_object"])}
    if options.everything:
        scores["ap50"] = float(report["tuned"]["everything"]["ap50"])
    return scores


def images_needed(points: Sequence[dict[str, float]], score: str, goal: float) -> float | None:
    """Return with how many images a score is reached, between two rounds on a line; None if it is not."""
    for before, after in zip([points[0], *points], points, strict=False):
        if after[score] >= goal:
            rise = after[score] - before[score]
            part = 1.0 if rise <= 0 else (goal - before[score]) / rise
            return before["images"] + max(part, 0.0) * (after["images"] - before["images"])
    return None


def mean_points(runs: Sequence[Sequence[dict[str, float]]]) -> list[dict[str, float]]:
    """Return the mean over runs of each round's numbers."""
    return [{key: statistics.mean(one[key] for one in each) for key in each[0]} for each in zip(*runs, strict=True)]


def main() -> None:
    """Simulate, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHARED)
    parser.add_argument("--sets", default="fluorescence-nuclei,nir-crops")
    parser.add_argument("--foundation", default="lite")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--crop", type=int, help="train on windows of this side at native resolution")
    parser.add_argument("--first", type=int, default=4)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--test", type=int, help="score on this many test images only")
    parser.add_argument("--everything", action="store_true", help="score masks without clicks, too")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        for name in options.sets.split(","):
            found[name] = {order: [] for order in ORDERS}
            for seed in range(options.seeds):
                shared = None
                for order in ORDERS:
                    points = run(name, order, seed, options, Path(place), shared)
                    found[name][order].append(points)
                    shared = points[0]
    for name, runs in found.items():
        means = {order: mean_points(runs[order]) for order in ORDERS}
        print(f"\n{name}, mean of {options.seeds} seeds, {options.steps} steps each")
        for score in (key for key in means["random"][0] if key != "images"):
            for order in ORDERS:
                values = "  ".join(f"{point['images']:.0f}: {point[score]:.3f}" for point in means[order])
                print(f"  {score:>9} {order:>6}  {values}")
            goal = means["random"][-1][score]
            needed = {order: images_needed(means[order], score, goal) for order in ORDERS}
            words = {order: "not reached" if value is None else f"{value:.1f}" for order, value in needed.items()}
            print(f"  images for {score} {goal:.3f}: next {words['next']}, random {words['random']}")
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
