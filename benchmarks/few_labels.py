"""Which weights to keep where labels are few: those that a validation chooses, the last, a mean, or those of folds.

    python benchmarks/few_labels.py DIR [--sets NAME ...] [--labels 8 15 30] [--draws 0 1 2] [--folds 3] [--table]

For each set of defaults.toml, number of labels and draw, some images of its train and val splits are the labels of a
user, and at most 8 others are the truth; the test split is not read. Trainings of `lite` at 128 px, each of the steps
that SimMAT takes for so many labels:

* `split`: the labels are divided as SimMAT does it, into train, val and test. `best` is what that validation chooses.
* `all`: every label trains. `half` and `quarter` are the mean of the weights in the last half or quarter of the steps.
* with --folds K also K trainings, each on all labels but those of one fold; `folds` is the state of `all` after the
  steps at which the mean of their scores is best, of 40, 60, 80 and 100 %.

The score is the mean of one-click mIoU, AP50 of every object and class mIoU on the truth, as a training chooses by it.
What is done is kept in DIR, a json file for each training; --table prints what is there. Set OMP_NUM_THREADS=1: then a
training takes about two minutes of a core.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

import simmat
from simmat import training
from simmat.bundle import load_tensors, read_bundle
from simmat.config import TrainConfig, default_steps
from simmat.data.card import write_card
from simmat.data.dataset import Dataset
from simmat.data.samples import Sample, id_digest
from simmat.evaluation import Scores, evaluate
from simmat.io.files import atomic_write_json
from simmat.plugins.loader import installed
from simmat.training import Callback
from simmat.training.fit import selection_score

CONFIG = Path(__file__).with_name("defaults.toml")
MOST_TRUTH = 8
LEAST_TRUTH = 6
"""Images that no training sees, even where fewer labels are left than were asked for."""
CHECKPOINTS = 10
"""Validations of each training, beside the one before its first step."""
_NOT_OF_TRAINING = ("name", "data", "val_images")
SETTINGS = {
    "image_size": 128,
    "precision": "bf16",
    "heads": "prompt,dense",
    "pictures": False,
    "keep": "last",
}


@dataclass
class Snapshots(Callback):
    """Keeps the weights and the score of each validation of a training that keeps its last weights."""

    bundle: Path
    weights: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def validated(
        self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores
    ) -> None:
        """Read the bundle that was just written."""
        self.weights[step] = read_bundle(self.bundle)[1]
        self.scores[step] = selection_score(summary)


@dataclass
class Case:
    """The labels of a draw, and what judges a training on them."""

    settings: Mapping[str, Any]
    dataset: Dataset
    labels: Sequence[Sample]
    truth: Sequence[Sample]

    def train(
        self, root: Path, val: Sequence[Sample] | None, **settings: Any
    ) -> tuple[Snapshots, training.RunFolder]:
        """Train on the labels but those of `val`, with other settings; None lets SimMAT divide them."""
        data = root / "data"
        images = list(self.labels)
        if val is not None:
            images = [one for one in self.labels if one not in val] + list(val)
        for part in ("images", "masks"):
            (data / part).mkdir(parents=True)
        lines = ["id,image,mask"] if val is None else ["id,image,mask,split"]
        for sample in images:
            (image,) = sample.files.values()
            mask = Path(sample.paths[-1])
            shutil.copy(image, data / "images" / image.name)
            shutil.copy(mask, data / "masks" / mask.name)
            line = f"{sample.id},images/{image.name},masks/{mask.name}"
            if val is not None:
                line += ",val" if sample in val else ",train"
            lines.append(line)
        (data / "manifest.csv").write_text("\n".join(lines) + "\n")
        write_card(data, self.dataset.card)
        steps = settings.pop("steps", default_steps(len(self.labels)))
        config = TrainConfig(
            **SETTINGS,
            **self.settings,
            **settings,
            data=data,
            out=root / "run",
            steps=steps,
            val_every=-(-steps // CHECKPOINTS),
        )
        folder = training.RunFolder(config.out)
        watch = Snapshots(folder.bundle)
        training.train(config, installed(), watch)
        return watch, folder

    def judge(
        self, folder: training.RunFolder, states: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, dict[str, float]]:
        """Score the weights of a training on the truth, name -> score and one-click mIoU."""
        model = simmat.load(folder.bundle)
        found = {}
        for name, weights in states.items():
            load_tensors(model.model, weights, name)
            scores = evaluate(
                model, self.dataset, self.truth, everything=True, semantic=True
            )
            summary = scores.summary()
            found[name] = {
                "score": selection_score(summary),
                "miou": summary["miou_object"],
            }
        return found


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of floating-point tensors, and of others the last one."""
    found = dict(states[-1])
    for name, last in states[-1].items():
        if last.is_floating_point():
            found[name] = torch.stack([one[name] for one in states]).mean(0)
    return found


def sets() -> dict[str, dict[str, Any]]:
    """Return the tables of the data sets by name."""
    return {one["name"]: one for one in tomllib.loads(CONFIG.read_text())["data"]}


def case_of(settings: Mapping[str, Any], labels: int, draw: int) -> Case:
    """Draw the labels and the truth of a set."""
    own = {name: settings[name] for name in settings if name not in _NOT_OF_TRAINING}
    folder = (CONFIG.parent / settings["data"]).resolve()
    config = TrainConfig(**own, data=folder, out=folder.parent / "unused")
    dataset = training.open_data(config, installed())
    images = []
    for sample in dataset.samples:
        if sample.split != "test" and dataset.label(sample).regions:
            images.append(sample)
    images.sort(key=lambda sample: id_digest(f"{draw}/{sample.id}"))
    count = min(labels, len(images) - LEAST_TRUTH)
    return Case(own, dataset, images[:count], images[count:][:MOST_TRUTH])


def measure(case: Case, arm: str, folds: int) -> dict[str, Any]:
    """Train an arm in a folder of its own, and return what is kept of it."""
    with tempfile.TemporaryDirectory() as root:
        val: Sequence[Sample] | None = None
        if arm == "all":
            val = case.truth[:1]  # a training needs one; it chooses nothing
        elif arm != "split":
            val = case.labels[int(arm.removeprefix("fold")) :: folds]
        watch, folder = case.train(Path(root), val)
        steps = sorted(watch.weights)
        result: dict[str, Any] = {
            "own": {str(step): watch.scores[step] for step in steps}
        }
        if arm.startswith("fold"):
            return result
        states = {"last": watch.weights[steps[-1]]}
        after = {"half": steps[-1] / 2, "quarter": steps[-1] * 0.75}
        for name, start in after.items():
            late = [watch.weights[step] for step in steps if step > start]
            states[name] = mean_of(late)
        if arm == "split":
            best = max(steps, key=lambda step: watch.scores[step])
            states["best"] = watch.weights[best]
        elif folds:
            for step in steps[4:-1:2]:
                states[str(step)] = watch.weights[step]
        return {**result, "truth": case.judge(folder, states)}


def result_of(folder: Path, name: str, labels: int, draw: int, arm: str) -> Path:
    """Return the file that keeps a training."""
    return folder / f"{name}-{labels}-{draw}-{arm}.json"


def chosen(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return what each way to keep weights gives, from the trainings of a case by arm."""
    split, every = results["split"]["truth"], results["all"]["truth"]
    found = {
        "split best": split["best"],
        "split last": split["last"],
        "all last": every["last"],
        "all half": every["half"],
        "all quarter": every["quarter"],
    }
    folds = [results[arm]["own"] for arm in results if arm.startswith("fold")]
    if folds:
        last = list(folds[0])[-1]
        states = {step: every[step] for step in every if step.isdigit()}
        states[last] = every["last"]
        best = max(states, key=lambda step: fmean(fold[step] for fold in folds))
        found["folds"] = states[best]
    return found


def table(folder: Path, arguments: argparse.Namespace, arms: Sequence[str]) -> None:
    """Print the mean over sets and draws of each number of labels, and how each way differs from `split best`."""
    print("| labels | cases | kept | score | mIoU | difference in score | better in |")
    print("|---|---|---|---|---|---|---|")
    for labels in arguments.labels:
        cases = []
        for name in arguments.sets:
            for draw in arguments.draws:
                files = {
                    arm: result_of(folder, name, labels, draw, arm) for arm in arms
                }
                files = {arm: file for arm, file in files.items() if file.exists()}
                if "split" in files and "all" in files:
                    cases.append(
                        chosen({a: json.loads(f.read_text()) for a, f in files.items()})
                    )
        ways = dict.fromkeys(way for case in cases for way in case)
        for way in ways:
            with_it = [case for case in cases if way in case]
            gains = [
                case[way]["score"] - case["split best"]["score"] for case in with_it
            ]
            error = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            score = fmean(case[way]["score"] for case in with_it)
            miou = fmean(case[way]["miou"] for case in with_it)
            better = sum(gain > 0 for gain in gains)
            print(
                f"| {labels} | {len(with_it)} | {way} | {score:.3f} | {miou:.3f} | {fmean(gains):+.3f} ± {error:.3f} "
                f"| {better} |"
            )


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(sets()), choices=list(sets()))
    parser.add_argument("--labels", nargs="+", type=int, default=[8, 15, 30])
    parser.add_argument("--draws", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arms = ["split", "all"]
    for fold in range(arguments.folds):
        arms.append(f"fold{fold}")
    if arguments.table:
        table(arguments.dir, arguments, arms)
        return
    arguments.dir.mkdir(parents=True, exist_ok=True)
    for draw in arguments.draws:
        for labels in arguments.labels:
            for name in arguments.sets:
                case = None
                for arm in arms:
                    file = result_of(arguments.dir, name, labels, draw, arm)
                    if file.exists():
                        continue
                    case = case or case_of(sets()[name], labels, draw)
                    atomic_write_json(file, measure(case, arm, arguments.folds))
                    print(file.name, flush=True)


if __name__ == "__main__":
    main()
