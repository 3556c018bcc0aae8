"""Measure what the number of CPU threads, and how they wait, costs: on the machine as it is, and with all cores taken.

    python benchmarks/threads.py [--images 20] [--rounds 3] [--side 256]

Each arm is a process that encodes images with `simmat-plugin-lite`, untuned, and asks for the mask of one click. The
arms: one thread; SimMAT's default, all cores with threads that spin briefly while they wait (`simmat.threads`); torch's
own default, all cores with threads that spin for milliseconds. "every core taken" runs one endless loop per core beside
them, at the same priority. Arms take turns, so that a machine that others use slows all alike; the ratio is that of the
medians over all rounds, and above 1 means slower than one thread. "cpu" is CPU time, which spinning is a part of.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from simmat.threads import THREADS_VARIABLE, WAIT_VARIABLES, usable_cpus

ARMS: dict[str, dict[str, str]] = {
    "one thread": {THREADS_VARIABLE: "1"},
    "SimMAT's default": {},
    "torch's default": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"},  # of GNU's and of Intel's OpenMP
}
"""Arm -> environment variables. The first is what the others are compared with."""


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


@contextmanager
def every_core_taken() -> Iterator[None]:
    """Run one endless loop per core."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(usable_cpus())]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run_arms(images: int, rounds: int, side: int) -> dict[str, tuple[float, float]]:
    """Return arm -> median seconds of an image, in wall and CPU time."""
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS}
    bare = {name: value for name, value in os.environ.items() if name not in (THREADS_VARIABLE, *WAIT_VARIABLES)}
    command = [sys.executable, __file__, "--segment", "--images", str(images), "--side", str(side)]
    for _ in range(rounds):
        for arm, variables in ARMS.items():
            done = subprocess.run(command, env=bare | variables, check=True, capture_output=True, text=True)
            found[arm] += json.loads(done.stdout.splitlines()[-1])
    return {
        arm: (statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times))
        for arm, times in found.items()
    }


def print_ratios(title: str, found: dict[str, tuple[float, float]]) -> None:
    """Print a table with ratios to the first arm."""
    first = next(iter(found.values()))
    print(f"{title:<26} {'ms an image':>12} {'ratio':>7} {'cpu ms':>8} {'ratio':>7}")
    for arm, (wall, cpu) in found.items():
        print(f"{arm:<26} {wall * 1e3:>12.0f} {wall / first[0]:>7.2f} {cpu * 1e3:>8.0f} {cpu / first[1]:>7.2f}")
    print(flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--segment", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.segment:
        segment(asked.images, asked.side)
        return
    print(f"{usable_cpus()} cores, load {os.getloadavg()[0]:.1f} before the start\n")
    print_ratios("as it is", run_arms(asked.images, asked.rounds, asked.side))
    with every_core_taken():
        print_ratios("every core taken", run_arms(asked.images, asked.rounds, asked.side))


if __name__ == "__main__":
    main()
