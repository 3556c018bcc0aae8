"""The learning curve of a pretraining run: `python -m simmat_plugin_lite.curve --run RUN --out curve.png`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from simmat.files import atomic_path, read_log
from simmat_plugin_lite.command import run_command
from simmat_plugin_lite.run_log import LOG_FILE

VALIDATED = {
    "click1": "1 click",
    "click1_oracle": "1 click, best of 4",
    "click3": "3 clicks",
    "box": "box",
}


def draw(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and training IoU on the left, validation mIoU on the right."""
    from matplotlib.figure import Figure

    train = [line for line in lines if line["kind"] == "train"]
    checks = [line for line in lines if line["kind"] == "val"]
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for key, label in (("loss", "loss"), ("iou", "IoU of the single mask")):
        left.plot([line["step"] for line in train], smoothed([line[key] for line in train]), label=label)
    for key, label in VALIDATED.items():
        right.plot([line["step"] for line in checks], [line[key] for line in checks], marker=".", label=label)
    left.set(title="training (mean of 100 steps)", xlabel="step", ylim=(0, 3))
    right.set(title="validation split, running mean of the weights", xlabel="step", ylabel="mIoU", ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)


def smoothed(values: list[float], width: int = 10) -> list[float]:
    """Mean of the last `width` values at each place."""
    return [sum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m simmat_plugin_lite.curve", description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = read_log(options.run / LOG_FILE)
    if not lines:
        raise ValueError(f"{options.run / LOG_FILE} is missing or empty; give the folder of a pretraining run")
    draw(lines, options.out)


if __name__ == "__main__":
    run_command(main)
