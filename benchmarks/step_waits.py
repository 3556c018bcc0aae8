"""Which share of its time a training step waits for data, with different numbers of loading processes.

    python benchmarks/step_waits.py [--workers 0 1 2] [--steps 20] [--size 256] [--foundation lite] [--data DIR]

Runs `simmat train` with its other settings as they are, on the images of `training_items.py`, and clocks each step and
its wait for the batch. The number that SimMAT chooses on this machine is printed, too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from training_items import make_set

from simmat import training
from simmat.config import TrainConfig
from simmat.nn.losses import Batch
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry
from simmat.training import build, fit


@dataclass
class Waits:
    """Batches, and how long was waited for them, in seconds."""

    batches: Iterator[Batch]
    seconds: float = 0.0

    def __iter__(self) -> Waits:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        batch = next(self.batches)
        self.seconds += time.perf_counter() - start
        return batch


def measure(
    config: TrainConfig, registry: Registry
) -> tuple[list[float], list[float], int]:
    """Train; return the seconds of each step and of its wait, and the number of loading processes."""
    steps: list[float] = []
    waits: list[float] = []
    counts: list[int] = []
    step, choose = fit.take_step, build.loading_processes

    def timed(one: fit.Learner, batches: Iterator[Batch]) -> None:
        watched, start = Waits(batches), time.perf_counter()
        step(one, watched)
        steps.append(time.perf_counter() - start)
        waits.append(watched.seconds)

    def noted(*given: object) -> int:
        counts.append(choose(*given))  # type: ignore[arg-type]
        return counts[-1]

    with (
        mock.patch.object(fit, "take_step", timed),
        mock.patch.object(build, "loading_processes", noted),
    ):
        training.train(config, registry)
    return steps, waits, counts[0]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--foundation", default="lite")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    registry = load_plugins()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = given.data or make_set(root / "set", 24, 16)
        for number, workers in enumerate([None, *given.workers]):
            config = TrainConfig(
                modality="gray",
                data=data,
                out=root / f"run{number}",
                foundation=given.foundation,
                image_size=given.size,
                steps=given.steps,
                val_every=given.steps,
                val_images=1,
                pictures=False,
                workers=workers,
            )
            steps, waits, count = measure(config, registry)
            chosen = " (chosen)" if workers is None else ""
            whole, first = sum(steps[1:]), waits[0]
            print(
                f"{count} loading processes{chosen}: steps wait {sum(waits[1:]) / whole:.1%} of "
                f"{whole / len(steps[1:]):.2f} s, the first one {first:.2f} s; {os.cpu_count()} cores",
                flush=True,
            )


if __name__ == "__main__":
    main()
