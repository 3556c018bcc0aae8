"""Measure the input contract: faults that it finds in images, and false alarms on images as they are.

    python benchmarks/contract.py [--data ../shared/data] [--split val] [--draws 50] [--seed 0]

Each data set is a folder of DATA with a manifest.csv. Its contract is made of the images of the train split; no model
is needed. Images of another split are judged one by one, and together in folders of ten that are drawn at random: as
they are, and after each fault. `thermal-scenes` are simulated in kelvin, as no set of DATA states a temperature.

Faults: gain 2; an offset of 10 % of the range of the training values, up and down; kelvin as centikelvin; two channels
swapped (each pair in turn); and 8 bits in place of 16, where the training images are those of the set in 16 bits.
Counts that leave the range of their type are clipped, as a camera would.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from measuring import DATA, parser_of

from simmat.cli.options import load_registry
from simmat.sensors.contract import GROUP, ImageValues, InputContract
from simmat.types import SensorImage

SETS = {
    "depth-bins": ("depth", "image", {"nodata": 0}),
    "fluorescence-nuclei": ("gray", "image", {}),
    "multispectral-water": ("raster", "image", {}),
    "nir-crops": ("red-nir", "image", {}),
    "rgb-regions": ("rgb", "image", {}),
    "rgb-thermal-pairs/rgb": ("rgb", "rgb", {}),
    "rgb-thermal-pairs/thermal": ("thermal", "thermal", {}),
    "sar-ships": ("sar", "image", {"gray_picture": True}),
    "sonar-classes": ("gray", "image", {}),
    "sonar-objects": ("gray", "image", {}),
    "thermal-udder": ("thermal", "image", {}),
}
"""Folder of the data set -> modality, column of the images, options."""
WATER_BANDS = 7
"""Bands of `multispectral-water` that are reflectance."""
PIXELS_PER_SIDE = 128
SCENES = {"train": 64, "val": 24, "test": 24}

Images = list[SensorImage]
Change = Callable[[SensorImage], SensorImage]


def images_of(data: Path, name: str, split: str) -> Images:
    """Load the images of a split, thinned out to about 128 pixels a side."""
    modality, column, options = SETS[name]
    adapter = load_registry().modality(modality, options or None)
    folder = data / name.partition("/")[0]
    with (folder / "manifest.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == split]
    files = list(dict.fromkeys(row[column] for row in rows))
    found = []
    for file in files:
        image = adapter.load({adapter.sources[0].name: folder / file})
        if name == "multispectral-water":
            image = image.select(list(range(WATER_BANDS)))
        found.append(thinned(image))
    return found


def scenes_of(split: str) -> Images:
    """Return simulated thermal images in kelvin."""
    from simmat_plugin_scenes.generate import generate_scene

    adapter = load_registry().modality("thermal")
    first = list(SCENES).index(split) * 1000
    found = []
    for number in range(first, first + SCENES[split]):
        rng = np.random.default_rng(number)
        found.append(thinned(adapter.simulate(generate_scene(rng, (128, 160)), rng)))
    return found


def thinned(image: SensorImage) -> SensorImage:
    """Return every n-th pixel of an image."""
    step = max(min(image.size_hw) // PIXELS_PER_SIDE, 1)
    data = np.ascontiguousarray(image.data[:, ::step, ::step])
    valid = np.ascontiguousarray(image.valid[:, ::step, ::step])
    return replace(image, data=data, valid=valid, georeference=None)


def contract_of(images: Images) -> InputContract:
    """Make the contract of training images."""
    values = [ImageValues.of_image(image) for image in images]
    contract = InputContract.of(
        images[0].channels,
        np.stack([one.quantiles for one in values]),
        np.stack([one.correlation for one in values]),
    )
    assert contract is not None
    return contract


def affine(gain: float, offset: Sequence[float], largest: float) -> Change:
    """Return a change of all channels: value * gain + offset, rounded and clipped if it is a count."""

    def change(image: SensorImage) -> SensorImage:
        shift = np.asarray(offset, np.float32)[:, None, None]
        data = image.data * np.float32(gain) + shift
        if np.isfinite(largest):
            data = np.clip(np.rint(data), 0, largest)
        return replace(image, data=data.astype(np.float32))

    return change


def swapped(one: int, other: int) -> Change:
    """Return a change that swaps two channels."""

    def change(image: SensorImage) -> SensorImage:
        order = list(range(len(image.channels)))
        order[one], order[other] = order[other], order[one]
        return replace(image, data=image.data[order], valid=image.valid[order])

    return change


def faults_of(images: Images) -> Iterator[tuple[str, Change, Change]]:
    """Yield name, change of the training images, and change of the others."""
    count = len(images[0].channels)
    low = np.min([image.data[:, image.valid.all(0)].min(1) for image in images], axis=0)
    high = np.max(
        [image.data[:, image.valid.all(0)].max(1) for image in images], axis=0
    )
    is_count = images[0].channels[0].unit == "count"
    largest = np.inf
    if is_count:
        largest = 255.0
        if high.max() > 255:
            largest = 32767.0
    span = high - low
    none = [0.0] * count
    same = affine(1, none, np.inf)
    yield "own", same, same
    yield "gain 2", same, affine(2, none, largest)
    yield "offset +10 %", same, affine(1, span / 10, largest)
    yield "offset -10 %", same, affine(1, -span / 10, largest)
    if images[0].channels[0].unit == "K":
        yield "kelvin as cK", same, affine(100, none, np.inf)
    if largest == 255:
        yield "8 bit for 16", affine(257, none, 65535), same
    if largest == 32767:
        yield "8 bit for 16", same, affine(1 / 256, none, 255)
    for one, other in combinations(range(count), 2):
        yield "swapped", same, swapped(one, other)


def alarms(contract: InputContract, images: Images, size: int, draws: int, seed: int):
    """Return for each group of images whether the contract objects to it."""
    if size == 1:
        groups = [[image] for image in images]
    else:
        rng = np.random.default_rng(seed)
        groups = []
        for _ in range(draws):
            picks = rng.choice(len(images), size, replace=len(images) < size)
            groups.append([images[pick] for pick in picks])
    return [bool(contract.check(group)) for group in groups]


def main() -> None:
    """Print a table: for each data set and fault the share of alarms, of single images and of folders."""
    parser = parser_of(__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("val", "test"), default="val")
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sets", nargs="*", default=[*SETS, "thermal-scenes"])
    arguments = parser.parse_args()
    totals: dict[tuple[str, int], list[float]] = {}
    for name in arguments.sets:
        if name == "thermal-scenes":
            train = scenes_of("train")
            others = scenes_of(arguments.split)
        else:
            train = images_of(arguments.data, name, "train")
            others = images_of(arguments.data, name, arguments.split)
        shares: dict[tuple[str, int], list[float]] = {}
        contract = contract_of(train)
        for fault, of_training, of_others in faults_of(train):
            if fault == "8 bit for 16":
                own = contract_of([of_training(image) for image in train])
            else:
                own = contract
            changed = [of_others(image) for image in others]
            for size in (1, GROUP):
                found = alarms(own, changed, size, arguments.draws, arguments.seed)
                shares.setdefault((fault, size), []).append(float(np.mean(found)))
        cells = []
        for (fault, size), found in shares.items():
            totals.setdefault((fault, size), []).append(float(np.mean(found)))
            cells.append(f"{fault} x{size} {np.mean(found):.3f}")
        print(f"{name}: {len(train)} train, {len(others)} {arguments.split}")
        print("   " + ", ".join(cells), flush=True)
    print("mean over the sets")
    for (fault, size), found in sorted(totals.items()):
        print(f"   {fault} x{size}: {np.mean(found):.3f} of {len(found)} sets")


if __name__ == "__main__":
    main()
