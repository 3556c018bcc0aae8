"""Bad input in settings, weights, runs, bundles, prompts, plugins and benches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bad_input_case import Case, Spoil, cut, png, replace, write
from bundles import change_json

RUN = Path("run")
BUNDLE = RUN / "bundle.safetensors"
CONFIG = RUN / "config.toml"


def two_sensors(root: Path) -> None:
    """Make `d2`, the set `data` with colours beside its gray."""
    shutil.copytree(root / "data", root / "d2")
    (root / "d2/manifest.csv").unlink()
    rng = np.random.default_rng(0)
    (root / "d2/images/gray").mkdir()
    (root / "d2/images/rgb").mkdir()
    for file in sorted((root / "d2/images").glob("*.png")):
        file.rename(root / f"d2/images/gray/{file.name}")
        png(root / f"d2/images/rgb/{file.name}", rng.integers(0, 255, (40, 56, 3)))


def bundle_json(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    return lambda: change_json(BUNDLE, change)


def other_folder() -> None:
    Path("o").mkdir()
    shutil.copy("data/images/s4.png", "o/s4.png")


def folder(name: str, file: str, text: str = "x") -> Spoil:
    return lambda: [Path(name).mkdir(), Path(name, file).write_text(text)]


VIT_B = "train … --foundation sam_vit_b --checkpoint x.pth"
RESUME = "train --resume run"
PREDICT = "predict run/bundle.safetensors data/images/s4.png --out pred"
CLICK = PREDICT + " --point 3,3"
TWO = "predict r2/bundle.safetensors --point 3,3 --out pred"
CASES = {
    "nothing given": Case("--modality", "--data", "--out", run="train"),
    "command: unknown": Case("'trian'", "'train'", "--help", run="trian"),
    "option: unknown": Case("--imagesize", "--image-size", "train --help", run="train … --imagesize 64"),
    "modality: unknown": Case("'grey'", "'gray'", "raster", "rgb", run="train … --modality grey"),
    "image size: no multiple": Case("'tiny'", "16", "65", "64 or 80", run="train … --image-size 65"),
    "image size: word": Case("--image-size", "'big'", "integer", run="train … --image-size big"),
    "lr: absurd": Case("loss", "nan", "--lr", "1e+30", run="train … --lr 1e30 --steps 8 --grad-clip 0"),
    "workers: absurd": Case("--workers", "99999", "256", run="train … --workers 99999"),
    "protocol: of scores": Case("--protocol", "'full'", "'one-click'", run="train … --protocol full"),
    "config: several mistakes": Case(
        "--data", "--out", "c.toml", "steps", "'x'", "'modalty'", "'modality'",
        spoil=write("c.toml", 'modalty = "gray"\nsteps = "x"\n'), run="train --config c.toml",
    ),
    "sensors: one given twice": Case(
        "data 2", "'gray'", "twice", "name", run="train --config c.toml --out run",
        spoil=write("c.toml", '[[data]]\nmodality = "gray"\ndata = "data"\n' * 2),
    ),
    "sensors: one data set twice": Case(
        "'a'", "'b'", "same sensor", "data", run="train --config c.toml --out run",
        spoil=write("c.toml", "".join(f'[[data]]\nname = "{n}"\nmodality = "gray"\ndata = "data"\n' for n in "ab")),
    ),
    "sensors: out is a number": Case(
        "out", "path", "5", run="train --config c.toml",
        spoil=write("c.toml", 'out = 5\n[[data]]\nmodality = "gray"\ndata = "data"\n'),
    ),
    "out: empty path": Case("--out", ".", run="train … --out ''"),
    "out: not empty": Case("--out", "remove", spoil=folder("out", "notes.txt")),
    "out: a run": Case("--out run", "train --resume run", run="train … --out run"),
    "out: a file": Case("out", "another path", spoil=write("out")),
    "out: name too long": Case("ooo", "too long", run=f"train … --out {'o' * 300}"),
    "weights: not fetched": Case(
        "~/.cache/simmat/sam_vit_b_01ec64.pth", "simmat foundations fetch sam_vit_b", "--checkpoint", "--from-scratch",
        run="train … --foundation sam_vit_b",
    ),
    "weights: nothing to fetch": Case("'tiny'", run="foundations fetch tiny"),
    "checkpoint: not there": Case("--checkpoint x.pth", run=VIT_B),
    "resume: with an option": Case("--lr", "run/config.toml", run="train --resume run --lr 1"),
    "resume: added setting": Case(
        "run in run ", "config.toml", "train_images = 1",
        spoil=replace(CONFIG, ("steps = 1\n", "steps = 1\ntrain_images = 1\n")), run=RESUME,
    ),
    "resume: changed data": Case(
        "data/images/s0.png", "50x50", "56x40",
        spoil=lambda: png("data/images/s0.png", np.ones((50, 50))), run=RESUME,
    ),
    "bundle: cut short": Case(
        "run/bundle.safetensors", "damaged", spoil=cut("run/bundle.safetensors", 490), run=CLICK
    ),
    "bundle: text": Case("b.safetensors", "damaged", spoil=write("b.safetensors"),
        run="predict b.safetensors data/images/s4.png --out pred --point 3,3",
    ),
    "bundle: other unit": Case(
        "data/images/s4.png", "gray [count]", "gray [K]",
        spoil=bundle_json(lambda document: document["sensor_channels"][0].update(unit="K")), run=CLICK,
    ),
    "eval: another sensor": Case(
        "data/images/s4.png", "'gray'",
        spoil=lambda: png("data/images/s4.png", np.full((40, 56, 3), 9)), run="eval run/bundle.safetensors --data data",
    ),
    "predict: no prompt": Case("--point X,Y", "--box X0,Y0,X1,Y1", run=PREDICT),
    "predict: malformed point": Case("point", "X,Y", "'3;3'", run=PREDICT + " --point '3;3'"),
    "predict: one name twice": Case("s4", "rename", spoil=other_folder, run=CLICK + " o/s4.png"),
    "predict: bad file beside a good one": Case(
        "bad.png", "PNG, JPEG, TIFF", spoil=write("bad.png"), run=CLICK + " bad.png"
    ),
    "predict: missing file": Case("nope.png", run="predict run/bundle.safetensors nope.png --out pred --point 3,3"),
    "predict: over other files": Case(
        "pred/s4.json", "--out", spoil=folder("pred", "s4.json", '{"shapes": []}'), run=CLICK
    ),
    "missing: source of another channel": Case(
        "gray", "--source gray=FILE", run=TWO + " --source rgb=d2/images/rgb/s4.png --missing red"
    ),
}  # fmt: skip
