"""How long trainings take to shares of the final score of the released recipe: CPU seconds and steps.

    python benchmarks/time_to_score.py DIR [--modality gray] [--regions instances] [--steps 120] [--every 10]
        [--seeds 0 1] [--shares 0.9 1] [--arm "warmup_steps=0 lr=2e-3"]... [--whole]

The released recipe (arXiv 2409.08083): one random click an image, BCE and dice, Adam without decay or warm-up, a
rate halved every 10 epochs, no augmentation, squashed images. It is trained for --steps; the mean of its last three
validations (mIoU of one click) is its final score. Then SimMAT's defaults, and each --arm, which is the defaults with
some settings changed, are trained until they reach the largest of --shares, or with --whole to the end, at most
--steps. All train `lite` at the same rate (--lr; 1e-3, where LoRA's own is 3e-4) with batches of 4, and the prompt
head alone, where an arm does not say otherwise: the released recipe its layer `mat` and LoRA, the defaults what suits
`lite`. The defaults before these are --arm "mat=mat-residual tune=lora lr=3e-4". Validation is not counted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import tomllib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from simmat import training
from simmat.config import COMPAT_DEFAULTS, TrainConfig
from simmat.evaluation import Scores
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.training import Callback, RunInfo

RELEASED = {
    name: value
    for name, value in COMPAT_DEFAULTS.items()
    if name not in ("epochs", "heads", "batch_size")
}


class Reached(Exception):
    """The score that was waited for."""


@dataclass
class Watch(Callback):
    """Notes after each validation the step, the CPU seconds of training before it, and the score."""

    enough: float = float("inf")
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    _seconds: float = 0.0
    _since: float = 0.0

    def started(self, plan: RunInfo) -> None:
        """Start the clock."""
        self._since = time.process_time()

    def preparing(self, what: str, total: int) -> None:
        """Stop the clock where a validation begins."""
        if what == "validation":
            self._seconds += time.process_time() - self._since

    def validated(
        self, step: int, summary: dict[str, Any], *, best: bool, scores: Scores
    ) -> None:
        """Note the score, and start the clock again."""
        self.curve.append((step, self._seconds, summary["miou_object"]))
        print(
            f"    step {step:>4}  {self._seconds:>7.1f} s  mIoU {summary['miou_object']:.4f}",
            flush=True,
        )
        if summary["miou_object"] >= self.enough:
            raise Reached
        self._since = time.process_time()

    def first_above(self, score: float) -> tuple[int, float] | None:
        """Return the step and the CPU seconds of the first validation with a score."""
        return next(
            ((step, seconds) for step, seconds, found in self.curve if found >= score),
            None,
        )

    @property
    def final(self) -> float:
        """The mean of the last three scores."""
        return fmean(score for _, _, score in self.curve[-3:])


def run(settings: dict[str, Any], registry: Registry, watch: Watch) -> Watch:
    """Train until the watch has seen enough."""
    with tempfile.TemporaryDirectory() as folder, suppress(Reached):
        training.train(
            TrainConfig(out=Path(folder) / "run", **settings), registry, watch
        )
    return watch


def changes(text: str) -> dict[str, Any]:
    """Parse "NAME=VALUE NAME=VALUE", with values as in TOML or bare words."""
    found: dict[str, Any] = {}
    for part in text.split():
        name, _, value = part.partition("=")
        try:
            found |= tomllib.loads(f"{name} = {value}")
        except tomllib.TOMLDecodeError:
            found[name] = value
    return found


def compare(
    common: dict[str, Any],
    arms: list[str],
    shares: list[float],
    *,
    whole: bool,
    registry: Registry,
) -> list[str]:
    """Train the released recipe and the arms with one seed; return the rows of the table."""
    seed = common["seed"]
    print(f"seed {seed}: released recipe")
    watches = {"released": run(common | RELEASED, registry, Watch())}
    targets = [share * watches["released"].final for share in shares]
    for arm in arms:
        print(
            f"seed {seed}: {arm or 'defaults'}; wanted: {', '.join(f'{target:.4f}' for target in targets)}"
        )
        watch = Watch(float("inf") if whole else max(targets))
        watches[arm or "defaults"] = run(common | changes(arm), registry, watch)
    rows = []
    for name, watch in watches.items():
        steps, seconds, _ = watch.curve[-1]
        cells = [
            str(seed),
            name,
            f"{seconds / max(steps, 1):.2f}",
            f"{watch.curve[0][2]:.3f}",
        ]
        for target in targets:
            at, base = (
                watch.first_above(target),
                watches["released"].first_above(target),
            )
            times = (
                f" ({base[1] / at[1]:.2f} x)"
                if at and base and at[0] and base[0]
                else ""
            )
            cells.append(f"step {at[0]}, {at[1]:.1f} s{times}" if at else "not reached")
        rows.append(
            f"| {' | '.join([*cells, f'{watch.final:.3f}' if steps == common['steps'] else ''])} |"
        )
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--modality", default="gray")
    parser.add_argument("--regions", default="instances")
    parser.add_argument("--min-region", type=int)
    parser.add_argument("--crop", type=int)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument(
        "--every", type=int, default=10, help="steps between validations"
    )
    parser.add_argument(
        "--val-images", type=int, help="validate on this many images; all by default"
    )
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        default=[0.9],
        help="of the final score of the release",
    )
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        help="settings that differ from the defaults",
    )
    parser.add_argument(
        "--whole",
        action="store_true",
        help="train to the end, to compare final scores too",
    )
    given = parser.parse_args()
    common: dict[str, Any] = {
        "modality": given.modality,
        "data": given.data,
        "regions": given.regions,
        "min_region": given.min_region,
        "crop": given.crop,
        "foundation": "lite",
        "heads": "prompt",
        "steps": given.steps,
        "val_every": given.every,
        "val_images": given.val_images,
        "image_size": given.size,
        "lr": given.lr,
        "workers": 0,
        "pictures": False,
    }
    registry, rows = load_plugins(), []
    for seed in given.seeds:
        rows += compare(
            common | {"seed": seed},
            ["", *given.arm],
            given.shares,
            whole=given.whole,
            registry=registry,
        )
    wanted = " | ".join(
        f"{share:.0%} of the final score (x as fast)" for share in given.shares
    )
    print(f"| seed | recipe | CPU s a step | mIoU at step 0 | {wanted} | final mIoU |")
    print("|---" * (5 + len(given.shares)) + "|")
    print(*rows, sep="\n")


if __name__ == "__main__":
    main()
