"""Measure how long a training takes to read its data before it builds its network: the first start and the second.

    python benchmarks/training_start.py [--images 2000] [--entries 100000] [--before CHECKOUT]

On so many images of 640x512, or on --entries samples, most of them links to those. --before measures another version of
SimMAT beside it. Seconds are those of a clock, and those that all cores worked, which other work on the machine changes
less. Memory is what the process of the training took before and at most, and the largest of those that it started.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

SIZE_HW = (512, 640)
SCENES = 20
PREPARE = """
import json, resource, sys, time
from pathlib import Path
from simmat.config import load_config
from simmat.plugins.loader import load_plugins
from simmat.training import Callback
from simmat.training.plan import plan_run
settings = {"modality": "gray", "data": Path(sys.argv[1]), "out": Path(sys.argv[1] + "-run"), "tune": "lora",
            "foundation": "sam_vit_tiny", "steps": 1}
registry = load_plugins(env={"SIMMAT_PLUGINS": "testing"})
config = load_config(None, settings)
own, others = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
before = resource.getrusage(own).ru_maxrss
start, used = time.perf_counter(), time.process_time()
plan_run(config, registry)
wall, used = time.perf_counter() - start, time.process_time() - used
cpu = used + sum(resource.getrusage(others)[:2])
memory = [kib / 1024 for kib in (before, *(resource.getrusage(one).ru_maxrss for one in (own, others)))]
print(json.dumps({"wall": wall, "cpu": cpu, "mib": memory}))
"""


def make_data(root: Path, images: int, entries: int) -> None:
    """Write 16-bit images with eight objects each; entries beyond their number are links to them."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    scenes = []
    for _ in range(SCENES):
        image, mask = rng.normal(3000, 8, SIZE_HW), np.zeros(SIZE_HW, dtype=np.uint8)
        for value in range(1, 9):
            y, x, radius = (
                rng.integers(40, 470),
                rng.integers(40, 600),
                rng.integers(8, 38),
            )
            disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            image[disc] += 300
            mask[disc] = value
        scenes.append((image.astype(np.uint16), mask))
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(entries):
        image, mask = scenes[number % SCENES]
        for kind in ("images", "masks"):
            path = root / kind / f"{number:06}.png"
            if number < images:
                values = (
                    image + np.uint16(number // SCENES) if kind == "images" else mask
                )
                Image.fromarray(values).save(path, compress_level=1)
            else:
                path.symlink_to(f"{number % images:06}.png")
    (root / "card.toml").write_text('format = 1\nregions = "instances"\n')


def measure_training(images: int, entries: int, before: Path | None) -> None:
    """Measure the first and the second start of a training, with each version, and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make_data(root, images, entries)
        for checkout in (None, before) if before else (None,):
            shutil.rmtree(root / ".simmat", ignore_errors=True)
            environment = os.environ | (
                {"PYTHONPATH": str(checkout)} if checkout else {}
            )
            for name in ("first start", "second start"):
                done = subprocess.run(
                    [sys.executable, "-c", PREPARE, str(root)],
                    env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                found = json.loads(done.stdout)
                start, most, other = found["mib"]
                print(
                    f"{name:<12} {found['wall']:>8.2f} s, {found['cpu']:>8.2f} s of all cores; {start:.0f} MiB before, "
                    f"at most {most:.0f}, and {other:.0f} in another process {f'({checkout})' if checkout else ''}",
                    flush=True,
                )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--entries", type=int)
    parser.add_argument("--before", type=Path)
    given = parser.parse_args()
    measure_training(
        given.images,
        given.entries or given.images,
        given.before.resolve() if given.before else None,
    )


if __name__ == "__main__":
    main()
