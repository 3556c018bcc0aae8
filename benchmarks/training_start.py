"""How long a training takes to read its data before it builds its network: the first start and the second.

    python benchmarks/training_start.py [--images 2000] [--entries 100000] [--before CHECKOUT]

On so many images of 640x512, or on --entries links to them. --before measures another version of SimMAT beside it.
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
from simmat.training.setup import prepare
settings = {"modality": "gray", "data": Path(sys.argv[1]), "out": Path(sys.argv[1] + "-run"), "tune": "lora",
            "foundation": "sam_vit_tiny", "steps": 1}
registry = load_plugins(env={"SIMMAT_PLUGINS": ""})
config = load_config(None, settings)
who = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
start, used = time.perf_counter(), time.process_time()
prepare(config, registry, Callback())
wall, used = time.perf_counter() - start, time.process_time() - used
cpu = used + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
print(json.dumps({"wall": wall, "cpu": cpu, "mib": max(resource.getrusage(one).ru_maxrss for one in who) / 1024}))
"""


def make_data(root: Path, images: int, entries: int) -> None:
    """Write 16-bit images with eight objects each; entries beyond their number are links to them."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    scenes = []
    for _ in range(SCENES):
        image, mask = rng.normal(3000, 8, SIZE_HW), np.zeros(SIZE_HW, dtype=np.uint8)
        for value in range(1, 9):
            y, x, radius = rng.integers(40, 470), rng.integers(40, 600), rng.integers(8, 38)
            disc = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
            image[disc] += 300
            mask[disc] = value
        scenes.append((image.astype(np.uint16), mask))
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(entries):
        image, mask = scenes[number % SCENES]
        for kind, values in (("images", image + np.uint16(number // SCENES)), ("masks", mask)):
            path = root / kind / f"{number:06}.png"
            if number < images:
                Image.fromarray(values).save(path, compress_level=1)
            else:
                path.symlink_to(f"{number % images:06}.png")
    (root / "card.toml").write_text('format = 1\nregions = "instances"\n')


def measure_training(images: int, entries: int, before: Path | None) -> None:
    """Measure the first and the second start of a training, and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        make_data(root, images, entries)
        starts = {"first start": None, "second start": None} | ({"before": before} if before else {})
        for name, checkout in starts.items():
            if name == "before":
                shutil.rmtree(root / ".simmat", ignore_errors=True)
            environment = os.environ | ({"PYTHONPATH": str(checkout)} if checkout else {})
            done = subprocess.run(
                [sys.executable, "-c", PREPARE, str(root)],
                env=environment, cwd=folder, capture_output=True, text=True, check=True,
            )  # fmt: skip
            found = json.loads(done.stdout)
            print(
                f"{name:<14} {found['wall']:>8.2f} s, {found['cpu']:>8.2f} s of all cores, "
                f"at most {found['mib']:.0f} MiB a process",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--entries", type=int)
    parser.add_argument("--before", type=Path)
    given = parser.parse_args()
    measure_training(given.images, given.entries or given.images, given.before.resolve() if given.before else None)


if __name__ == "__main__":
    main()
