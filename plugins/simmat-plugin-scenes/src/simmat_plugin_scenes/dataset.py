"""Write data sets of synthetic scenes for any sensor that can be simulated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from simmat.data.card import DataCard, write_card
from simmat.data.formats.manifest import MANIFEST_FILE
from simmat.data.instances import PANOPTIC
from simmat.errors import ConfigError, OutputError
from simmat.io.files import atomic_folder, write_rows
from simmat.io.images import write_image
from simmat.sensors.adapter import ModalityAdapter, options_of
from simmat_plugin_scenes.generate import generate_frames
from simmat_plugin_scenes.world import CLASSES

SIZE_HW = (192, 256)
MIN_COUNT = 3
MAX_COUNT = 100_000
"""The names of samples have five digits."""
MAX_FRAMES = 10_000
"""The names of frames have four digits."""
MAX_SIDE_PX = 8192
"""A scene of so many pixels takes some 10 GB."""
_VAL, _TEST = frozenset({1, 8, 15}), frozenset({2, 9, 16})


def simulate_dataset(
    adapter: ModalityAdapter,
    out: Path | str,
    count: int,
    seed: int,
    *,
    size_hw: tuple[int, int] = SIZE_HW,
    scenes: str = "everyday",
    frames: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write `count` synthetic scenes as a data set: images, 16-bit masks, manifest.csv, card.toml.

    Sample i depends on `seed` and i alone, not on `count` or the sensor, so two sensors with the same seed have the
    same scenes. Of each 20 samples 14 are for training, 3 for validation and 3 for testing.

    Args:
        adapter: a sensor with `simulate` and `save`.
        out: a new or empty folder; it is written completely or not at all.
        count: number of samples, at least 3 so that each split has one.
        seed: 0 or more; the same seed gives the same bytes.
        size_hw: (height, width) of each image in pixels.
        scenes: kind of scenes, a name of `simmat_plugin_scenes.generate.KINDS`.
        frames: more than 1 makes each sample a sequence of so many frames, in which the objects move.
        progress: called with 1 after each sample.

    Returns:
        The folder.

    Raises:
        ConfigError: the sensor cannot be simulated, or a number is out of range.
        OutputError: the folder is not empty or cannot be written.
    """
    target = Path(out)
    _check(target, count, seed, size_hw, frames)
    with atomic_folder(target) as folder:
        rows: list[dict[str, str]] = []
        for index in range(count):
            rows += _write_sample(adapter, folder, index, seed, size_hw, scenes, frames)
            if progress is not None:
                progress(1)
        write_rows(
            folder / MANIFEST_FILE,
            [list(rows[0]), *(list(row.values()) for row in rows)],
        )
        write_card(folder, _card(adapter, seed, scenes))
    return target


def split_of(index: int) -> str:
    """Return the split of sample `index`; the pattern repeats every 20, and the first three have one split each."""
    place = index % 20
    return "val" if place in _VAL else "test" if place in _TEST else "train"


def _check(
    target: Path, count: int, seed: int, size_hw: tuple[int, int], frames: int
) -> None:
    height, width = size_hw
    longest = max(size_hw)
    for name, value, least, most, said in (
        ("--count", count, MIN_COUNT, MAX_COUNT, f"{count}"),
        ("--seed", seed, 0, np.inf, f"{seed}"),
        ("--frames", frames, 1, MAX_FRAMES, f"{frames}"),
        ("--size", longest, 1, MAX_SIDE_PX, f"{width}x{height}"),
    ):
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, got {said}")
        if value > most:
            raise ConfigError(f"{name} must be at most {most}, got {said}")
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(
            f"{target} is not empty; choose another folder, or remove it first"
        )


def _write_sample(
    adapter: ModalityAdapter,
    folder: Path,
    index: int,
    seed: int,
    size_hw: tuple[int, int],
    scenes: str,
    frames: int,
) -> Iterator[dict[str, str]]:
    """Write the files of one sample, and yield its rows of the manifest: one for each frame."""
    rng = np.random.default_rng([seed, index, 1])
    several, sample = len(adapter.sources) > 1, f"s{index:05d}"
    top = ["images" if frames == 1 else "frames"]
    made = generate_frames(np.random.default_rng([seed, index, 0]), size_hw, scenes)
    for frame, scene in enumerate(itertools.islice(made, frames)):
        image = adapter.simulate(scene, rng)
        name = sample if frames == 1 else f"{sample}/{frame:04d}"
        paths = {
            source.name: "/".join(
                [*top, *([source.name] if several else []), name + source.extensions[0]]
            )
            for source in adapter.sources
        }
        files = {source: folder / path for source, path in paths.items()}
        for file in files.values():
            file.parent.mkdir(parents=True, exist_ok=True)
        adapter.save(image, files)
        mask = f"masks/{name}.png"
        values = np.where(
            scene.instance > 0, scene.class_id * PANOPTIC + scene.instance, 0
        )
        write_image(folder / mask, values[None].astype(np.uint16))
        columns = paths if several else {"image": next(iter(paths.values()))}
        place = {} if frames == 1 else {"sequence": sample, "frame": str(frame)}
        yield {"id": name, "split": split_of(index), **place, **columns, "mask": mask}


def _card(adapter: ModalityAdapter, seed: int, scenes: str) -> DataCard:
    return DataCard(
        regions="panoptic",
        class_names=dict(enumerate(CLASSES[1:], 1)),
        modality_options=options_of(adapter),
        source=f"simmat data simulate --modality {adapter.name} --scenes {scenes} --seed {seed}",
        notes="Synthetic scenes. Mask: 16 bits, class * 1000 + number of the object; 0 is background.",
        licence="CC0-1.0",
    )
