"""The whole way on a small set of thermal scenes: simulate, train, evaluate, predict, and a page to look at.

    python examples/demo.py --out demo-out

Every step is a command that a user can type. The first one that fails ends the demo with its exit code. Started again
after it was stopped, the demo resumes its training; after it was done, it begins anew.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from simmat.bundle import read_bundle_spec
from simmat.data.clicks import center_click
from simmat.data.dataset import Dataset, Sample, open_dataset
from simmat.plugins.loader import load_plugins
from simmat.report.curves import plot_curves
from simmat.report.display import PictureArray, display_rgb
from simmat.report.overlay import FALSE_ALARM, HIT, MISS, POSITIVE, WHITE, draw_comparison
from simmat.report.page import Figure, Table, write_template
from simmat.training.run_folder import RunFolder
from simmat.types import BoolArray, Channel, Prompt

MARK = ".simmat-demo"
"""This file says that a folder was made by the demo and may be replaced."""
PAGE = "index.html"
"""The last file that the demo writes."""

SCENES = 48
PREDICTED = 3
"""Test images that are asked for their largest object."""

TRAINING = {
    "lite": (80, ("--tune", "lora", "--batch-size", "2", "--val-every", "20")),
    "sam_vit_tiny": (300, ("--tune", "full", "--batch-size", "2", "--lr", "1e-3", "--val-every", "50")),
}
"""Foundation model -> steps and settings for about two minutes on two cores; the first one installed is taken."""

LEGEND = (
    (HIT, "hit"),
    (MISS, "miss"),
    (FALSE_ALARM, "false alarm"),
    (WHITE, "outline of the truth"),
    (POSITIVE, "click"),
)


@dataclass(frozen=True)
class Shown:
    """A test image, the object asked for, and the answer.

    Attributes:
        sample: the test image.
        truth: (H, W) bool, the object.
        ignore: (H, W) bool, where nothing is scored.
        picture: (H, W, 3) uint8, the sensor image as shown.
        click_xy: where the object was clicked.
        mask: (H, W) bool, the answer.
    """

    sample: Sample
    truth: BoolArray
    ignore: BoolArray
    picture: PictureArray
    click_xy: tuple[float, float]
    mask: BoolArray

    @property
    def iou(self) -> float:
        """Intersection over union of truth and answer."""
        scored = ~self.ignore
        union = int(((self.truth | self.mask) & scored).sum())
        return int((self.truth & self.mask & scored).sum()) / max(union, 1)


@dataclass(frozen=True)
class Step:
    """A command that was run, what it was for, and how long it took."""

    command: str
    purpose: str
    seconds: float


@dataclass
class Terminal:
    """Runs commands and records them."""

    steps: list[Step] = field(default_factory=list)

    def run(self, purpose: str, *arguments: str | Path) -> None:
        """Run `simmat ARGUMENTS`, shown as one types it; a failure ends the demo with the command's exit code."""
        words = [str(argument) for argument in arguments]
        command = shlex.join(["simmat", *words])
        print(f"\n{purpose}\n$ {command}", flush=True)
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "simmat", *words])
        try:
            code = process.wait()
        except KeyboardInterrupt:
            code = process.wait()  # the command got the signal too; let it save its work
        if code:
            print(f"error: the demo stops here, because the command above failed: {command}", file=sys.stderr)
            sys.exit(code)
        self.steps.append(Step(command, purpose, time.monotonic() - began))


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for everything it makes")
    parser.add_argument("--steps", type=int, help="training steps of a new run; fewer are faster and worse")
    options = parser.parse_args()
    began = time.monotonic()
    out: Path = options.out
    data, run, predictions = out / "data", out / "run", out / "predict"
    terminal = Terminal()
    if prepare(out):
        terminal.run("Resume the training of the demo that was stopped", "train", "--resume", run)
    else:
        terminal.run(
            "Make a small set of thermal scenes", "data", "simulate", "--modality", "thermal", "--out", data,
            "--count", str(SCENES), "--seed", "0",
        )  # fmt: skip
        foundation = pick_foundation()
        steps, settings = TRAINING[foundation]
        terminal.run(
            "Train on them", "train", "--modality", "thermal", "--data", data, "--foundation", foundation,
            "--mat", "mat-residual", *settings, "--steps", str(options.steps or steps), "--out", run,
        )  # fmt: skip
    terminal.run(
        "Score it on scenes it has not seen", "eval", run / "bundle", "--data", data, "--split", "test",
        "--out", out / "scores.json",
    )  # fmt: skip
    report = json.loads((out / "scores.json").read_text(encoding="utf-8"))
    dataset = open_dataset(data, load_plugins().modality("thermal"))
    shown = [predict(terminal, dataset, sample, run / "bundle", predictions) for sample in pick_samples(dataset)]
    page = show(out / PAGE, run, report, shown, terminal.steps, seen=len(dataset.split("train")))
    print(f"\nDone in {time.monotonic() - began:.0f} s. Open this page in a browser:\n  {page.resolve().as_uri()}")


def prepare(out: Path) -> bool:
    """Return whether an earlier demo was stopped after its training began; else empty the folder that it made.

    A folder that the demo did not make ends it.
    """
    if (out / MARK).is_file():
        if RunFolder(out / "run").config.is_file() and not (out / PAGE).is_file():
            return True
        shutil.rmtree(out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        print(f"error: {out} is not empty and was not made by this demo; choose another --out", file=sys.stderr)
        sys.exit(2)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()
    return False


def pick_foundation() -> str:
    """Return the first foundation model of `TRAINING` that is installed."""
    installed = load_plugins().names("foundation model")
    return next(name for name in TRAINING if name in installed)


def pick_samples(dataset: Dataset) -> list[Sample]:
    """Return the first test images that hold an object."""
    return [sample for sample in dataset.split("test") if dataset.label(sample).regions][:PREDICTED]


def predict(terminal: Terminal, dataset: Dataset, sample: Sample, bundle: Path, out: Path) -> Shown:
    """Click the largest object of a test image, and ask the bundle for it."""
    image = dataset.image(sample)
    label = dataset.label(sample, image)
    truth = max(label.regions, key=lambda region: region.area).mask(label.size_hw)
    x, y = center_click(truth)
    file = sample.reference
    terminal.run(f"Click an object of {sample.id}", "predict", bundle, file, "--point", f"{x:g},{y:g}", "--out", out)
    with Image.open(out / f"{file.stem}_mask.png") as opened:
        mask = np.asarray(opened) > 0
    return Shown(sample, truth, label.ignore, display_rgb(image), (x, y), mask)


def show(out: Path, run: Path, report: dict[str, Any], shown: list[Shown], steps: list[Step], *, seen: int) -> Path:
    """Write the page; `seen` is the number of training images."""
    spec = read_bundle_spec(run / "bundle")
    with tempfile.TemporaryDirectory() as folder:
        light, dark = (
            plot_curves(RunFolder(run).records(), Path(folder, f"{name}.png"), dark=name == "dark")
            for name in ("light", "dark")
        )
        return write_template(
            out,
            Path(__file__).with_name("demo.html.j2"),
            title="SimMAT demo: masks in thermal images from one click",
            summary=summary(report, seen),
            scores=scores(report),
            scores_note=scores_note(report),
            curves=Figure(light, "Training loss and validation mIoU against training steps", dark=dark),
            sheet=Figure(
                run / "samples.png",
                "Validation samples, worst to best: sensor image, truth, click and prediction side by side",
                "From the worst to the best, at the step that was kept.",
            ),
            predictions=[figure(one) for one in shown],
            legend=LEGEND,
            steps=steps,
            channels=channels(spec.channels),
        )


def summary(report: dict[str, Any], seen: int) -> str:
    """Say what the page shows."""
    return (
        f"The foundation model {report['foundation']} learned to see with a thermal camera from {seen} simulated "
        "scenes. For an object in a scene it has not seen, it gets one click and answers with a mask."
    )


def scores(report: dict[str, Any]) -> Table:
    """Return the table of scores, the untuned model first."""
    means = ("object", "image", "class")
    rows = []
    for name, key in (("zero-shot", "zero_shot"), ("tuned", "tuned")):
        summary = report[key] or {}
        rows.append([name, *(number(summary.get(f"miou_{mean}"), ".3f") for mean in means)])
    tuned_is_best = report["zero_shot"] is None or report["tuned"]["miou_object"] >= report["zero_shot"]["miou_object"]
    best = {(int(tuned_is_best), column) for column in range(len(means) + 1)}
    return Table(("mIoU, one click", *(f"by {mean}" for mean in means)), rows, numbers_from=1, best=best)


def channels(found: Sequence[Channel]) -> Table:
    """Return the table of the bundle's channels."""
    rows = [
        [
            channel.name,
            channel.quantity.replace("_", " "),
            channel.unit,
            *(number(value, ".5g") for value in (channel.wavelength_um, channel.mean, channel.std)),
        ]
        for channel in found
    ]
    return Table(("name", "quantity", "unit", "wavelength, µm", "mean", "std"), rows, numbers_from=3)


def number(value: float | None, form: str) -> str:
    """Write a number, a dash where there is none."""
    return "–" if value is None else format(value, form)


def scores_note(report: dict[str, Any]) -> str:
    """Say what was scored, and why a figure is missing where one is."""
    tuned = report["tuned"]
    note = f"{tuned['objects']} objects in {tuned['images']} test images, one click each at the object's centre."
    if tuned["miou_class"] is None:
        note += " The objects of this set have no classes."
    if report["zero_shot"] is None:
        note += f" {report['foundation']} has no zero-shot score: it was not pretrained."
    return note


def figure(one: Shown) -> Figure:
    """Draw a test image with hit, miss and false alarm."""
    drawn = draw_comparison(one.picture, one.truth, one.mask, Prompt.points([one.click_xy]), ignore=one.ignore)
    text = f"{one.sample.id}: IoU {one.iou:.3f}"
    return Figure(drawn, f"Prediction on test image {text}", text)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
