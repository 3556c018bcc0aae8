"""How well `simmat forecast` foretells the score of a training on many labels from ten.

    python benchmarks/forecast.py DIR [--sets NAME ...] [--orders 0 1 2] [--data FOLDER] [--table]

For each set of defaults.toml some images of its train and val splits are the truth that judges, one validates, and the
others are labels; the test split is not read. `lite` is trained at 128 px on all labels. For each order of the labels,
it is trained on the first 3, and goes on with 5, 7 and 10 by --init, in half the steps that SimMAT takes for so many.
The forecast is made of what these four runs recorded, for as many labels as the training on all had.

DIR keeps a json file of each training on all labels and of each order; a finished part is not done again. --table
prints the difference of forecast and truth in points of mIoU, and whether the truth lies in the 80 % interval. Set
OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

from measuring import DATA, parser_of
from simmat_plugin_report.forecast import forecast_runs, runs_in

import simmat
from simmat import training
from simmat.config import TrainConfig, default_steps
from simmat.data.card import write_card
from simmat.data.dataset import Dataset
from simmat.data.samples import Sample, id_digest
from simmat.evaluation import evaluate
from simmat.io.files import atomic_write_json
from simmat.plugins.loader import installed

COUNTS = (3, 5, 7, 10)
"""Labels of the trainings of an order."""
TRUTH = 12
"""Most images that judge; of small sets a third."""
CONFIG = Path(__file__).with_name("defaults.toml")
CHECKPOINTS = 10
"""Validations of each training, beside the one before its first step."""
SETTINGS: dict[str, Any] = {
    "image_size": 128,
    "precision": "bf16",
    "heads": "prompt,dense",
    "pictures": False,
    "keep": "last",
}


@dataclass
class Case:
    """The labels in an order, the last of which validates, and the images that judge a training on them."""

    settings: Mapping[str, Any]
    dataset: Dataset
    labels: Sequence[Sample]
    truth: Sequence[Sample]

    def train(
        self, root: Path, steps: int, init: Path | None = None
    ) -> training.RunFolder:
        """Train on all labels but the last one, which validates."""
        data = root / "data"
        for part in ("images", "masks"):
            (data / part).mkdir(parents=True)
        lines = ["id,image,mask,split"]
        for sample in self.labels:
            (image,) = sample.files.values()
            mask = Path(sample.paths[-1])
            shutil.copy(image, data / "images" / image.name)
            shutil.copy(mask, data / "masks" / mask.name)
            split = "val" if sample is self.labels[-1] else "train"
            lines.append(f"{sample.id},images/{image.name},masks/{mask.name},{split}")
        (data / "manifest.csv").write_text("\n".join(lines) + "\n")
        write_card(data, self.dataset.card)
        config = TrainConfig(
            **SETTINGS,
            **self.settings,
            data=data,
            out=root / "run",
            init=init,
            steps=steps,
            val_every=-(-steps // CHECKPOINTS),
        )
        training.train(config, installed())
        return training.RunFolder(config.out)

    def judge(self, folder: training.RunFolder) -> float:
        """Return the one-click mIoU on the truth."""
        scores = evaluate(simmat.load(folder.bundle), self.dataset, self.truth)
        return float(scores.summary()["miou_object"])


def case_of(settings: Mapping[str, Any], data: Path, order: int) -> Case:
    """Return the labels of a set in an order, the last of which validates, and the truth, which is always the same."""
    left_out = ("name", "data", "val_images")
    own = {name: settings[name] for name in settings if name not in left_out}
    own["foundation"] = "lite"
    config = TrainConfig(**own, data=data / settings["name"], out=data / "unused")
    dataset = training.open_data(config, installed())
    images = []
    for sample in dataset.samples:
        if sample.split != "test" and dataset.label(sample).regions:
            images.append(sample)
    images.sort(key=lambda sample: id_digest(f"truth/{sample.id}"))
    count = min(TRUTH, len(images) // 3)
    truth, labels = images[:count], images[count:]
    labels.sort(key=lambda sample: id_digest(f"{order}/{sample.id}"))
    return Case(own, dataset, labels, truth)


def with_labels(case: Case, count: int) -> Case:
    """Return the case with its first labels, and the last one, which validates."""
    return replace(case, labels=[*case.labels[:count], case.labels[-1]])


def measure_full(case: Case) -> dict[str, Any]:
    """Train on all labels, and judge."""
    labels = len(case.labels) - 1
    with tempfile.TemporaryDirectory() as folder:
        run = case.train(Path(folder), default_steps(len(case.labels)))
        return {"labels": labels, "miou": case.judge(run)}


def measure_order(case: Case, full: int) -> dict[str, Any]:
    """Train on more and more labels, and forecast the score of `full` ones."""
    with tempfile.TemporaryDirectory() as folder:
        runs: list[Path] = []
        for count in COUNTS:
            root = Path(folder) / str(count)
            part = with_labels(case, count)
            steps = default_steps(count)
            if runs:
                run = part.train(root, steps // 2, init=runs[-1])
            else:
                run = part.train(root, steps)
            runs.append(run.root)
        forecast, _ = forecast_runs(runs_in(runs), [full - COUNTS[-1]], 0.01)
    row = forecast.rows[-1]
    return {
        "scores": forecast.scores,
        "labels": row.labels,
        "miou": row.miou.median,
        "low": row.miou.low,
        "high": row.miou.high,
    }


def table(folder: Path, sets: Sequence[str], orders: Sequence[int]) -> None:
    """Print what is there."""
    errors = []
    inside = []
    print("| set | order | labels | forecast | 80 % interval | trained | error |")
    print("|---|---|---|---|---|---|---|")
    for name in sets:
        for order in orders:
            file = folder / f"{name}-{order}.json"
            if not file.exists():
                continue
            found = json.loads(file.read_text())
            full = json.loads((folder / f"{name}-full.json").read_text())
            error = found["miou"] - full["miou"]
            errors.append(abs(error))
            inside.append(found["low"] <= full["miou"] <= found["high"])
            print(
                f"| {name} | {order} | {full['labels']} | {found['miou']:.3f} | {found['low']:.3f} to "
                f"{found['high']:.3f} | {full['miou']:.3f} | {error * 100:+.1f} |"
            )
    if errors:
        print(
            f"\nmedian error {median(errors) * 100:.1f} points; the interval holds in {fmean(inside) * 100:.0f} % of "
            f"{len(inside)}"
        )


def main() -> None:
    """Run what the command line says."""
    sets = {one["name"]: one for one in tomllib.loads(CONFIG.read_text())["data"]}
    parser = parser_of(__doc__)
    parser.add_argument("dir", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(sets), choices=list(sets))
    parser.add_argument("--orders", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the sets")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arguments.dir.mkdir(parents=True, exist_ok=True)
    for name in arguments.sets if not arguments.table else ():
        whole = arguments.dir / f"{name}-full.json"
        if not whole.exists():
            case = case_of(sets[name], arguments.data, 0)
            atomic_write_json(whole, measure_full(case))
        full = json.loads(whole.read_text())["labels"]
        for order in arguments.orders:
            file = arguments.dir / f"{name}-{order}.json"
            if not file.exists():
                case = case_of(sets[name], arguments.data, order)
                atomic_write_json(file, measure_order(case, full))
                print(file.name, flush=True)
    table(arguments.dir, arguments.sets, arguments.orders)


if __name__ == "__main__":
    main()
