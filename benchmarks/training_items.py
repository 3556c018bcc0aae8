"""Measure what a training item costs in one process, against decoding its two files: CPU ms, both timed in turn.

    python benchmarks/training_items.py [--data DIR] [--images 24] [--runs 9] [--profile] [--json FILE]

Items of `simmat train` by default (`lite`, 256 px, augmentation, 4 prompts, both heads where there are classes), from
images of 640 x 512 pixels with 5 objects in 16 and in 8 bits, after the first epoch: read from their files, and with
the images in memory. The baseline is Pillow's decoding of image and mask. --data takes another folder of PNG or JPEG
images, whose card says what a region is.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from measuring import Line, cpu_seconds, parser_of, report
from PIL import Image
from scipy import ndimage

from simmat.config import TrainConfig
from simmat.data.batches import TrainingItems
from simmat.io.images import write_image
from simmat.nn.device import keep_freed_memory
from simmat.plugins.loader import load_plugins
from simmat.training.plan import plan_run

HEIGHT, WIDTH, OBJECTS = 512, 640, 5


def make_set(root: Path, images: int, bits: int) -> Path:
    """Write images of smooth ground with noise and five warm ellipses each, and masks of two classes."""
    for folder in ("images/train", "images/val", "masks/train", "masks/val"):
        (root / folder).mkdir(parents=True)
    (root / "card.toml").write_text('regions = "components"\n')
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(images + 1):
        rng = np.random.default_rng(number)
        ground = ndimage.zoom(
            rng.standard_normal((6, 8)), (HEIGHT / 6, WIDTH / 8), order=1
        )
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for index in range(OBJECTS):  # in places of their own
            y, x = rng.integers(60, HEIGHT - 60), 64 + 128 * index
            inside = ((rows - y) / rng.integers(15, 50)) ** 2 + (
                (columns - x) / rng.integers(15, 50)
            ) ** 2 <= 1
            mask[inside] = 1 + index % 2
        values = (
            128
            + 20 * ground
            + 30 * (mask > 0)
            + 2 * rng.standard_normal((HEIGHT, WIDTH))
        )
        counts = np.clip(values * (2**bits / 256), 0, 2**bits - 1).astype(
            f"u{bits // 8}"
        )
        split = "val" if number == images else "train"
        write_image(root / f"images/{split}/{number:03}.png", counts[None])
        write_image(root / f"masks/{split}/{number:03}.png", mask[None])
    return root


def stream(data: Path, out: Path) -> TrainingItems:
    """Return the items of a run with default settings."""
    keep_freed_memory()  # as a run does that has built its network
    config = TrainConfig(
        modality="gray", foundation="lite", data=data, out=out, steps=1000
    )
    return plan_run(config, load_plugins()).items()


def decode(paths: tuple[str, ...]) -> None:
    """Decode files into arrays, as Pillow gives them."""
    for path in paths:
        with Image.open(path) as picture:
            np.asarray(picture)


def cpu_ms(work: Callable[[int], object], count: int) -> float:
    """Return the CPU ms of one call, of `count` calls."""
    return 1e3 * cpu_seconds(lambda: [work(index) for index in range(count)]) / count


def measure(name: str, items: TrainingItems, runs: int) -> list[Line]:
    """Time all in turn."""
    count = len(items.samples)
    ways = {"from files": items, "in memory": replace(items, image_bytes=2**30)}
    bare: list[float] = []
    whole: dict[str, list[float]] = {way: [] for way in ways}
    for run in range(runs + 1):  # the first warms up
        bare.append(cpu_ms(lambda index: decode(items.samples[index].paths), count))
        for way, these in ways.items():
            whole[way].append(
                cpu_ms(
                    lambda index, run=run, these=these: these[run * count + index],
                    count,
                )
            )  # type: ignore[misc]
    baseline = ("decoding image and mask", bare[1:])
    return [
        Line(f"training item, {name} {way}", "CPU ms", found[1:], *baseline, aim=2.5)
        for way, found in whole.items()
    ]


def profile(items: TrainingItems) -> None:
    """Print where the time of items goes."""
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(lambda: [items[index] for index in range(100)])
    pstats.Stats(profiler).sort_stats("cumtime").print_stats(60)


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sets = (
            {given.data.name: given.data}
            if given.data
            else {f"{bits} bits": root / str(bits) for bits in (16, 8)}
        )
        for name, data in sets.items():
            if not given.data:
                make_set(data, given.images, int(name.split()[0]))
            items = stream(data, root / f"run {name}")
            lines += measure(name, items, given.runs)
            if given.profile:
                profile(items)
    report(lines, given.json)


if __name__ == "__main__":
    main()
