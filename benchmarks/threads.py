"""Measure what the number of CPU threads, and how they wait, costs: on the machine as it is, and with all cores taken.

    python benchmarks/threads.py [--train] [--images 20] [--rounds 3] [--side 256] [--json FILE]

Each arm is a process that encodes images with `simmat-plugin-lite`, untuned, and asks for the mask of one click; with
`--train` it takes training steps at 256 px, of 6 images with 4 prompts, and needs scikit-image. The arms: one thread;
SimMAT's default, as many threads as cores are free, which spin briefly while they wait (`simmat.threads`); torch's own
default, all cores with threads that spin for milliseconds. "every core taken" runs two endless loops per core beside
them, at the same priority. Arms take turns, so that a machine that others use slows all alike; the ratio, image by
image, is above 1 where it is slower than one thread. "cpu" is CPU time, which spinning is a part of.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest import mock

import numpy as np
from measuring import Line, in_own_process, parser_of, report

from simmat.threads import THREADS_VARIABLE, WAIT_VARIABLES, usable_cpus

if TYPE_CHECKING:
    from simmat.nn.losses import Batch

ARMS: dict[str, dict[str, str]] = {
    "one thread": {THREADS_VARIABLE: "1"},
    "SimMAT's default": {},
    "torch's default": {
        THREADS_VARIABLE: str(usable_cpus()),
        "GOMP_SPINCOUNT": "300000",
        "KMP_BLOCKTIME": "200",
    },  # of GNU's and of Intel's OpenMP
}
"""Arm -> environment variables. The first is what the others are compared with."""


AIMS = {("SimMAT's default", "CPU"): 1.25}
"""Ratio to one thread, at most, whatever else runs."""


def segment(images: int, side: int) -> None:
    """Segment images and print as json the seconds of each, in wall and CPU time."""
    import simmat

    model = simmat.load(foundation="lite", modality="gray", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    found: list[tuple[float, float]] = []
    for number in range(images + 1):
        start, spent = time.perf_counter(), time.process_time()
        model.set_image(image + np.uint8(number))
        model.predict(points=[(side / 2, side / 2)])
        found.append((time.perf_counter() - start, time.process_time() - spent))
    print(json.dumps(found[1:]))  # the first warms up


def train(steps: int) -> None:
    """Take training steps and print as json the seconds of each, in wall and CPU time."""
    from training_items import make_set

    from simmat import training
    from simmat.config import TrainConfig
    from simmat.plugins.loader import load_plugins
    from simmat.training import fit

    found: list[tuple[float, float]] = []
    take_step = fit.take_step

    def timed(learner: fit.Learner, batches: Iterator[Batch]) -> None:
        ready = iter([next(batches)])
        start, spent = time.perf_counter(), time.process_time()
        take_step(learner, ready)
        found.append((time.perf_counter() - start, time.process_time() - spent))

    with TemporaryDirectory() as folder, mock.patch.object(fit, "take_step", timed):
        config = TrainConfig(
            modality="gray",
            foundation="lite",
            data=make_set(Path(folder) / "set", 24, 16),
            out=Path(folder) / "run",
            batch_size=6,
            prompts_per_image=4,
            steps=steps + 1,
            val_every=steps + 1,
            val_images=1,
            pictures=False,
            workers=0,
        )
        with redirect_stdout(sys.stderr):
            training.train(config, load_plugins())
    print(json.dumps(found[1:]))  # the first warms up


@contextmanager
def every_core_taken() -> Iterator[None]:
    """Run two endless loops per core."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * usable_cpus())
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure(title: str, work: str, images: int, rounds: int, side: int) -> list[Line]:
    """Compare the arms with the first, in wall and in CPU time."""
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    clean = dict.fromkeys((THREADS_VARIABLE, *WAIT_VARIABLES))
    for _ in range(rounds):
        for arm, variables in ARMS.items():
            found[arm] += in_own_process(
                __file__,
                work,
                "--images",
                images,
                "--side",
                side,
                **clean | variables,
            )
    base, *others = (
        dict(zip(("wall", "CPU"), zip(*times, strict=True), strict=True))
        for times in found.values()
    )
    return [
        Line(
            f"{arm}, {title}",
            f"{clock} s",
            times[clock],
            "one thread",
            base[clock],
            aim=AIMS.get((arm, clock)),
        )
        for arm, times in zip(list(ARMS)[1:], others, strict=True)
        for clock in ("wall", "CPU")
    ]


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument(
        "--train", action="store_true", help="take training steps instead"
    )
    parser.add_argument("--train-steps", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--segment", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.segment:
        segment(asked.images, asked.side)
        return
    if asked.train_steps:
        train(asked.images)
        return
    work = "--train-steps" if asked.train else "--segment"
    print(f"{usable_cpus()} cores, load {os.getloadavg()[0]:.1f} before the start\n")
    size = asked.images, asked.rounds, asked.side
    lines = measure("machine as it is", work, *size)
    with every_core_taken():
        lines += measure("every core taken", work, *size)
    report(lines, asked.json)


if __name__ == "__main__":
    main()
