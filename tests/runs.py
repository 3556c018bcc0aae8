"""Small gray data sets and runs for the tests of training, bundles, evaluation and prediction."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from simmat.callbacks import Callback
from simmat.config import TrainConfig, load_config
from simmat.plugins.loader import load_plugins
from simmat.plugins.registry import Registry


def registry(*plugins: str) -> Registry:
    """The built-in parts, the model `tiny`, and some plugins."""
    return load_plugins(env={"SIMMAT_PLUGINS": ",".join(["testing", *plugins])})


def gray_set(
    root: Path,
    *,
    train: int = 5,
    val: int = 2,
    test: int = 2,
    size_hw: tuple[int, int] = (40, 56),
) -> Path:
    """A data set of bright discs on dark noise, two instances an image."""
    rng = np.random.default_rng(0)
    rows = ["id,split,image,mask"]
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    for index, split in enumerate(splits):
        image, mask = _scene(rng, size_hw)
        Image.fromarray(image).save(root / f"images/s{index}.png")
        Image.fromarray(mask).save(root / f"masks/s{index}.png")
        rows.append(f"s{index},{split},images/s{index}.png,masks/s{index}.png")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    (root / "card.toml").write_text('format = 1\nregions = "instances"\n')
    return root


def _scene(
    rng: np.random.Generator, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    height, width = size_hw
    rows, columns = np.mgrid[:height, :width]
    image = rng.normal(60, 10, size_hw)
    mask = np.zeros(size_hw, dtype=np.uint8)
    for value, centre in ((1, width // 4), (2, 3 * width // 4)):
        disc = (rows - rng.integers(12, height - 12)) ** 2 + (
            columns - centre
        ) ** 2 < rng.integers(6, 10) ** 2
        image[disc] += 110
        mask[disc] = value
    return image.clip(0, 255).astype(np.uint8), mask


def config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    """A run of a few quick steps on the tiny SAM."""
    settings = {
        "modality": "gray",
        "data": data,
        "out": out,
        "foundation": "tiny",
        "heads": "prompt",
        "tune": "lora",
        "image_size": 64,
        "steps": 6,
        "val_every": 2,
        "batch_size": 2,
        "prompts_per_image": 2,
        "lr": 1e-3,
        "device": "cpu",
    }
    return load_config(None, settings | changes)


def files_of(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of every file in a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def die() -> None:
    """Kill this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def nth_call(
    number: int,
    then: Callable[..., Any],
    real: Callable[..., Any],
    match: Callable[..., bool],
) -> Any:
    """Wrap `real` so that its `number`-th call that matches goes to `then` instead."""
    count = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        if match(*args, **kwargs):
            count += 1
            if count == number:
                return then(*args, **kwargs)
        return real(*args, **kwargs)

    return wrapped


def run_and_die(
    data: str, out: str, where: str, number: int, changes: dict[str, Any]
) -> None:
    """Train or, where a run is there, resume, and die at the named place's `number`-th passing.

    Runs in a process of its own.
    """
    import torch

    from simmat import training

    torch.set_num_threads(1)
    with _trap(where, number):
        if Path(out, "config.toml").exists():
            training.resume(Path(out), registry())
        else:
            training.train(config(Path(data), Path(out), **changes), registry())


def _trap(where: str, number: int) -> Any:
    """Patch one place of the writing so that the process dies there."""
    real_write = Path.write_bytes
    real_replace = os.replace

    def half(path: Path, data: bytes) -> None:
        real_write(path, data[: len(data) // 2])
        die()

    def is_state(path: Any, *_: Any) -> bool:
        return ".last." in str(path)

    def is_bundle(path: Any, *_: Any) -> bool:
        return ".bundle." in str(path)

    if where == "between steps":
        from simmat.training.run_folder import RunFolder

        patched = nth_call(
            number,
            lambda *_: die(),
            RunFolder.log,
            lambda _, record: record["kind"] == "train",
        )
        return mock.patch.object(RunFolder, "log", patched)
    if where == "half the state written":
        return mock.patch.object(
            Path, "write_bytes", nth_call(number, half, real_write, is_state)
        )
    if where == "state written, not renamed":
        return mock.patch(
            "os.replace", nth_call(number, lambda *_: die(), real_replace, is_state)
        )
    if where == "half the bundle written":
        return mock.patch.object(
            Path, "write_bytes", nth_call(number, half, real_write, is_bundle)
        )
    if where == "bundle written, not renamed":
        return mock.patch(
            "os.replace", nth_call(number, lambda *_: die(), real_replace, is_bundle)
        )
    if where == "bundle written, state not":
        patched = nth_call(number, lambda *_: die(), real_write, is_state)
        return mock.patch.object(Path, "write_bytes", patched)
    return mock.patch.object(Path, "exists", Path.exists)  # "nowhere"


class StopAt(Callback):
    """Interrupts a training at a step, as Ctrl-C does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def stepped(self, step: int, losses: dict[str, float]) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)
