"""How long a training takes to 90 % of the final score of the released recipe: CPU seconds and steps.

    python benchmarks/time_to_score.py DIR [--modality gray] [--regions instances] [--steps 300] [--every 10]

The released recipe (arXiv 2409.08083): one random click an image, BCE and dice, Adam without decay or warm-up, a
rate halved every 10 epochs, no augmentation, squashed images. It is trained for --steps, and its best validation mIoU
of one click is its final score. Then SimMAT's defaults are trained until they reach that share of it, at most as long.
Both train the same network (`lite`, mat-residual, LoRA) at the same rate with batches of 4. Validation is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simmat import training
from simmat.config import COMPAT_DEFAULTS, TrainConfig
from simmat.evaluation import Scores
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.training import Callback, RunPlan

RELEASED = {name: value for name, value in COMPAT_DEFAULTS.items() if name not in ("epochs", "heads", "batch_size")}


class Reached(Exception):
    """The score that was waited for."""


@dataclass
class Watch(Callback):
    """Notes after each validation the step, the CPU seconds of training before it, and the score."""

    enough: float = float("inf")
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    _seconds: float = 0.0
    _since: float = 0.0

    def started(self, plan: RunPlan) -> None:
        """Start the clock."""
        self._since = time.process_time()

    def preparing(self, what: str, total: int) -> None:
        """Stop the clock where a validation begins."""
        if what == "validation":
            self._seconds += time.process_time() - self._since

    def validated(self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores) -> None:
        """Note the score, and start the clock again."""
        self.curve.append((step, self._seconds, summary["miou_object"]))
        print(f"    step {step:>4}  {self._seconds:>7.1f} s  mIoU {summary['miou_object']:.4f}", flush=True)
        if summary["miou_object"] >= self.enough:
            raise Reached
        self._since = time.process_time()

    def first_above(self, score: float) -> tuple[int, float] | None:
        """Return the step and the CPU seconds of the first validation with a score."""
        return next(((step, seconds) for step, seconds, found in self.curve if found >= score), None)


def run(settings: dict[str, Any], registry: Registry, watch: Watch) -> Watch:
    """Train until the watch has seen enough."""
    with tempfile.TemporaryDirectory() as folder, suppress(Reached):
        training.train(TrainConfig(out=Path(folder) / "run", **settings), registry, watch)
    return watch


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--modality", default="gray")
    parser.add_argument("--regions", default="instances")
    parser.add_argument("--min-region", type=int)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--every", type=int, default=10, help="steps between validations")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=0.9)
    given = parser.parse_args()
    common: dict[str, Any] = {
        "modality": given.modality,
        "data": given.data,
        "regions": given.regions,
        "min_region": given.min_region,
        "foundation": "lite",
        "heads": "prompt",
        "steps": given.steps,
        "val_every": given.every,
        "image_size": given.size,
        "lr": given.lr,
        "seed": given.seed,
        "workers": 0,
        "pictures": False,
    }
    registry = load_plugins()
    print("released recipe")
    released = run(common | RELEASED, registry, Watch())
    final = max(score for _, _, score in released.curve)
    target = given.share * final
    print(f"SimMAT's defaults, until {target:.4f}, {given.share:.0%} of {final:.4f}")
    ours = run(common, registry, Watch(target))
    first = {"released": released.first_above(target), "defaults": ours.first_above(target)}
    for name, found in first.items():
        print(f"{name:<10}", "not reached" if found is None else f"step {found[0]:>4}, {found[1]:.1f} CPU s")
    if (slow := first["released"]) and (fast := first["defaults"]) and fast[0]:
        print(f"defaults are {slow[1] / fast[1]:.1f} times as fast in CPU time, {slow[0] / fast[0]:.1f} times in steps")


if __name__ == "__main__":
    main()
