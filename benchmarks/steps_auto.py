"""A training that ends by its validation, compared with trainings of 100, 200, 400 and 800 steps.

    OMP_NUM_THREADS=1 python benchmarks/steps_auto.py DIR [--sets NAME ...] [--lengths auto 100 200 400 800] [--table]

Each training is one of `lite` with its defaults at --image-size 256, on a data set of shared/data beside the clone. The
score is that by which a training chooses its bundle: the mean of one-click mIoU, AP50 of every object and class mIoU on
the validation split. The test split is not read. Processor seconds are those of the whole training with its
validations. What is done is kept in DIR, a json file for each training; --table prints what is there.

The aim: within half a point of the best of the four lengths, at less than twice the processor time of the shortest that
is within half a point of the best. Needs simmat-plugin-lite and simmat-plugin-geo. About 12 hours of a core at 256 px.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simmat import training
from simmat.config import TrainConfig
from simmat.io.files import atomic_write_json
from simmat.plugins.loader import load_plugins
from simmat.training import Callback, RunFolder

SHARED = Path(__file__).absolute().parents[2] / "shared" / "data"
SETS: Mapping[str, Mapping[str, Any]] = {
    "thermal-udder": {"modality": "thermal", "regions": "classes"},
    "sonar-classes": {"modality": "gray", "regions": "components", "min_region": 60},
    "nir-crops": {
        "modality": "raster",
        "channels": "0,1",
        "regions": "components",
        "min_region": 200,
        "crop": 256,
    },
    "fluorescence-nuclei": {
        "modality": "gray",
        "regions": "instances",
        "min_region": 30,
        "crop": 256,
    },
    "multispectral-water": {
        "modality": "raster",
        "channels": "0-6",
        "regions": "components",
        "min_region": 100,
    },
    "s2-fields": {
        "modality": "raster",
        "regions": "instances",
        "class_attribute": "Afgroede",
        "crop": 64,
    },
}
LENGTHS = ("auto", "100", "200", "400", "800")
NEAR = 0.005
"""Half a point."""


class Watch(Callback):
    """Keeps the score of the bundle so far."""

    def __init__(self) -> None:
        self.best = 0.0
        self.scores: list[tuple[int, float]] = []

    def validated(self, step: int, summary: dict[str, Any], **more: Any) -> None:
        """Keep the score."""
        score = summary.get("score", summary["miou_object"])
        self.scores.append((step, score))
        self.best = max(self.best, score)


def data_of(name: str, scratch: Path) -> Path:
    """Return the folder of a data set; that of the satellite image is laid out as SimMAT reads it."""
    if name != "s2-fields":
        return SHARED / name
    folder = scratch / name
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    shutil.copy(SHARED / name / "RGB_small.tif", folder / "images" / "tile.tif")
    for path in (SHARED / name).glob("marker2016_small.*"):
        shutil.copy(path, folder / "masks" / f"tile{path.suffix}")
    return folder


def measure(name: str, length: str, root: Path, given: argparse.Namespace) -> None:
    """Train once, unless it was done, and write what came out."""
    result = root / f"{name}-{length}-{given.seed}.json"
    if result.is_file():
        return
    out = root / "run"
    shutil.rmtree(out, ignore_errors=True)
    steps: int | str = length if length == "auto" else int(length)
    config = TrainConfig(
        **SETS[name],
        data=data_of(name, root / "data"),
        out=out,
        foundation="lite",
        image_size=given.image_size,
        precision=given.precision,
        val_images=given.val_images,
        seed=given.seed,
        steps=steps,
        pictures=False,
        workers=0,
    )
    watch = Watch()
    before = time.process_time()
    training.train(config, load_plugins(), watch)
    seconds = time.process_time() - before
    records = list(RunFolder(out).records())
    atomic_write_json(
        result,
        {
            "set": name,
            "length": length,
            "steps": max(record["step"] for record in records),
            "score": watch.best,
            "cpu_s": seconds,
            "scores": watch.scores,
        },
    )
    shutil.rmtree(out)


def table(root: Path, seed: int) -> str:
    """Return a table of what was measured, a row for each set."""
    lines = [
        "| set | auto | steps | CPU s | best of the others | shortest near it | its CPU s | difference | time |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in SETS:
        runs: dict[str, Any] = {}
        for length in LENGTHS:
            path = root / f"{name}-{length}-{seed}.json"
            if path.is_file():
                runs[length] = json.loads(path.read_text())
        auto = runs.pop("auto", None)
        if auto is None or not runs:
            continue
        lines.append(_row(name, auto, list(runs.values())))
    return "\n".join(lines)


def _row(name: str, auto: Mapping[str, Any], others: Sequence[Any]) -> str:
    best = max(run["score"] for run in others)
    near = [run for run in others if run["score"] >= best - NEAR]
    shortest = min(near, key=lambda run: run["steps"])
    cells = [
        name,
        f"{auto['score']:.3f}",
        auto["steps"],
        f"{auto['cpu_s']:.0f}",
        f"{best:.3f}",
        shortest["steps"],
        f"{shortest['cpu_s']:.0f}",
        f"{100 * (auto['score'] - best):+.1f}",
        f"{auto['cpu_s'] / shortest['cpu_s']:.1f}x",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, metavar="DIR")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument(
        "--lengths", nargs="+", default=list(LENGTHS), choices=list(LENGTHS)
    )
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--val-images", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="print what is there")
    given = parser.parse_args()
    if not given.table:
        given.root.mkdir(parents=True, exist_ok=True)
        for name in given.sets:
            for length in given.lengths:
                measure(name, length, given.root, given)
    print(table(given.root, given.seed))


if __name__ == "__main__":
    main()
