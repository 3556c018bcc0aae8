"""What is wrong with weights, runs, bundles and benches of docs/bad-input.md; each is called in their folder."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_input_data import Break, both, cut, manifest, png, replace, write
from bundles import change_json

RUN = Path("run")
BUNDLE = RUN / "bundle"


def two_sensors(root: Path) -> None:
    """Make `d2`, the set `data` with colours beside its gray."""
    shutil.copytree(root / "data", root / "d2")
    (root / "d2/manifest.csv").unlink()
    rng = np.random.default_rng(0)
    (root / "d2/images/gray").mkdir()
    (root / "d2/images/rgb").mkdir()
    for file in sorted((root / "d2/images").glob("*.png")):
        file.rename(root / f"d2/images/gray/{file.name}")
        png(str(root / f"d2/images/rgb/{file.name}"), rng.integers(0, 255, (40, 56, 3)))


class Code:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> Any:
        return os.getpid, ()


def weights(content: Callable[[], Any]) -> Break:
    return lambda: torch.save(content(), "x.pth")


def of_vit_l() -> dict[str, torch.Tensor]:
    """The shapes of ViT-L's weights, in a file of a few kilobytes."""
    from simmat.builtin.sam import SAM_VIT_L
    from simmat.builtin.sam.model import SamModel, sam_parts

    with torch.device("meta"):
        shapes = sam_parts(SamModel(SAM_VIT_L, SAM_VIT_L.image_size)).state_dict()
    return {name: torch.zeros(1).expand(tensor.shape) for name, tensor in shapes.items()}


def bundle_json(change: Callable[[dict[str, Any]], Any]) -> Break:
    def put() -> None:
        change_json(BUNDLE, change)

    return put


def flip(path: str, position: int = -1) -> Break:
    """Turn one bit."""

    def put() -> None:
        content = bytearray(Path(path).read_bytes())
        content[position] ^= 1
        Path(path).write_bytes(content)

    return put


def other_folder() -> None:
    Path("o").mkdir()
    shutil.copy("data/images/s4.png", "o/s4.png")


def foreign_zip() -> None:
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("../x", "x")


def flipped_zip() -> None:
    with zipfile.ZipFile("flip.zip", "w") as archive:
        for file in BUNDLE.iterdir():
            archive.write(file, file.name)
    flip("flip.zip", 20_000)()


def small_folder(name: str) -> Break:
    return lambda: [Path(name).mkdir(), Path(name, "notes.txt").write_text("x")]


TRAIN = 'foundation = "sam_vit_tiny"\n[train]\nimage_size = 64\nsteps = 1\n'
SET = '[[data]]\nname = "discs"\nmodality = "gray"\ndata = "data"\n'
ARM = '[[arm]]\nname = "x"\n'


def bench(text: str) -> Break:
    return write("b.toml", text)


BREAK: dict[str, Break] = {
    f"{section}/{title}": step
    for section, steps in {
        "Names and settings": {
            "Config unknown key": write("c.toml", 'modalty = "gray"\nsteps = "x"\n'),
            "Config bad toml": write("c.toml", "modality = gray\n"),
            "Out not empty": small_folder("out"),
            "Out is a file": write("out"),
        },
        "Weights": {
            "Checkpoint text": write("x.pth"),
            "Checkpoint truncated": both(weights(lambda: {"a": torch.zeros(999)}), cut("x.pth", 900)),
            "Checkpoint not SAM": weights(lambda: {"conv.weight": torch.zeros(3)}),
            "Checkpoint other variant": weights(of_vit_l),
            "Checkpoint with code": weights(lambda: {"a": Code()}),
        },
        "Resuming": {
            "Resume without bundle": lambda: shutil.rmtree(BUNDLE),
            "Resume truncated state": cut("run/last.safetensors", 100),
            "Resume changed config loratofull": lambda: replace(RUN / "config.toml", ('"lora"', '"full"')),
            "Resume with `train_images = 1` written into the config": lambda: replace(
                RUN / "config.toml", ("steps = 1\n", "steps = 1\ntrain_images = 1\n")
            ),
            "Resume changed data": both(
                lambda: png("data/images/s0.png", np.ones((50, 50)))
            ),
        },
        "Bundles, scoring, predicting": {
            "Bundle weights cut": cut("run/bundle/weights.safetensors"),
            "Bundle weights bit flipped": flip("run/bundle/weights.safetensors"),
            "Bundle json cut": cut("run/bundle/bundle.json", 490),
            "Bundle newer format": bundle_json(lambda document: document.update(format=2)),
            "Bundle wrong unit": bundle_json(lambda document: document["sensor_channels"][0].update(unit="K")),
            "Eval of another sensor": lambda: png("data/images/s4.png", np.full((40, 56, 3), 9)),
            "Eval empty split": manifest((",test,", ",val,")),
            "Predict same stem twice": other_folder,
            "Predict good and bad file": write("bad.png"),
            "Predict over other files": both(Path("pred").mkdir, write("pred/s4.json", '{"shapes": []}')),
            "Predict without a measurement": lambda: np.save("nan.npy", np.full((40, 56), np.nan, np.float32)),
        },
        "Benches": {
            "Several slips": bench(TRAIN.replace("steps", "stpes") + SET + ARM + "lr = 0\n"),
            "Data set not there": bench(TRAIN + SET.replace('"data"', '"dta"') + ARM),
            "Weight file not there": bench(
                'checkpoints = { sam_vit_b = "no.pth" }\n' + TRAIN.replace("_tiny", "_b") + SET + ARM
            ),
            '`score = "miou_objects"`': bench('score = "miou_objects"\n' + TRAIN + SET + ARM),
            "Weight file of an unknown model": bench('checkpoints = { sam_vit_bb = "b.pth" }\n' + TRAIN + SET + ARM),
            "One pair of brackets": bench(TRAIN + SET + ARM.replace("[[arm]]", "[arm]")),
            "Arm on an unknown data set": bench(TRAIN + SET + ARM + 'on = ["disc"]\n'),
            "Nothing to train": bench(TRAIN + SET),
            "Quick without its table": bench(TRAIN + SET + ARM),
            "Quick with an unknown arm": bench(TRAIN + SET + ARM + '[quick]\narms = "y"\n'),
            "No cell of that name": bench(TRAIN + SET + ARM),
            "Folder of something else": bench(TRAIN + SET + ARM),
            "Report of nothing": bench(TRAIN + SET + ARM),
            "Executor that is none": bench(TRAIN + SET + ARM),
            "Two wishes": bench(TRAIN + SET + ARM),
        },
        "Plugins": {"Install a text file": write("notes.txt")},
        "Sharing bundles": {
            "Zip with other files": foreign_zip,
            "Zip damaged": flipped_zip,
            "Text named zip": write("drv.zip"),
        },
    }.items()
    for title, step in steps.items()
}  # fmt: skip
