"""Bad input in settings, weights, runs, bundles, prompts, plugins and benches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_input_case import Case, Spoil, both, cut, png, replace, write
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


class Code:
    """Unpickled, it would run a command."""

    def __reduce__(self) -> Any:
        return os.getpid, ()


def weights(content: Callable[[], Any]) -> Spoil:
    return lambda: torch.save(content(), "x.pth")


def of_vit_l() -> dict[str, torch.Tensor]:
    """The names of ViT-L's weights and the shape of its patches, in a file of 3 MB."""
    from simmat_plugin_sam.model import SamModel, sam_parts
    from simmat_plugin_sam.specs import SAM_VIT_L

    with torch.device("meta"):
        shapes = sam_parts(SamModel(SAM_VIT_L, SAM_VIT_L.image_size)).state_dict()
    return {name: torch.zeros(like.shape if "patch_embed" in name else 1) for name, like in shapes.items()}


def bundle_json(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    return lambda: change_json(BUNDLE, change)


def flip(path: str, position: int = -1) -> Spoil:
    """Turn one bit."""

    def put() -> None:
        content = bytearray(Path(path).read_bytes())
        content[position] ^= 1
        Path(path).write_bytes(content)

    return put


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
    "foundation: unknown": Case("'sam_vit_tny'", "tiny", "sam_vit_b", run="train … --foundation sam_vit_tny"),
    "mat: unknown": Case("'mat-residul'", "'mat-residual'", "first-conv", run="train … --mat mat-residul"),
    "tune: unknown": Case("'lorra'", "'lora'", "decoder", run="train … --tune lorra"),
    "tune option: unknown": Case("'lora'", "'rnk'", "'rank'", run="train … --tune lora --tune-option rnk=4"),
    "tune option: value": Case("'lora'", "rank", "1", "-1", run="train … --tune lora --tune-option rank=-1"),
    "image size: no multiple": Case("'tiny'", "16", "65", "64 or 80", run="train … --image-size 65"),
    "image size: word": Case("--image-size", "'big'", "integer", run="train … --image-size big"),
    "batch size: not divisible": Case(
        "batch_size = 3", "grad_accumulation = 2", run="train … --batch-size 3 --grad-accumulation 2"
    ),
    "steps and epochs": Case("steps = 1", "epochs = 2", run="train … --epochs 2"),
    "rotate without augment": Case("rotate", "--augment", run="train … --rotate --no-augment"),
    "paste of classes": Case(
        "--paste", "data", "classes", "--regions components", run="train … --paste 0.5 --regions classes"
    ),
    "lr: absurd": Case("loss", "nan", "--lr", "1e+30", run="train … --lr 1e30 --steps 8 --grad-clip 0"),
    "lr: nan": Case("--lr", "finite", "nan", run="train … --lr nan"),
    "precision: fp16 on a CPU": Case("fp16", "fp32 or bf16", run="train … --precision fp16 --device cpu"),
    "workers: absurd": Case("--workers", "99999", "256", run="train … --workers 99999"),
    "protocol: of scores": Case("--protocol", "'full'", "'one-click'", run="train … --protocol full"),
    "config: several mistakes": Case(
        "--data", "--out", "c.toml", "steps", "'x'", "'modalty'", "'modality'",
        spoil=write("c.toml", 'modalty = "gray"\nsteps = "x"\n'), run="train --config c.toml",
    ),
    "config: no toml": Case(
        "c.toml", "line 1", spoil=write("c.toml", "modality = gray\n"), run="train --config c.toml"
    ),
    "sensors: one given twice": Case(
        "data 2", "'gray'", "twice", "name", run="train --config c.toml --out run",
        spoil=write("c.toml", '[[data]]\nmodality = "gray"\ndata = "data"\n' * 2),
    ),
    "sensors: one data set twice": Case(
        "'a'", "'b'", "twice", "data", run="train --config c.toml --out run",
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
    "out: among the images": Case("data/images/run", "outside", "data/images", run="train … --out data/images/run"),
    "weights: not fetched": Case(
        "~/.cache/simmat/sam_vit_b_01ec64.pth", "simmat foundations fetch sam_vit_b", "--checkpoint", "--from-scratch",
        run="train … --foundation sam_vit_b",
    ),
    "weights: nothing to fetch": Case("'tiny'", run="foundations fetch tiny"),
    "checkpoint: not there": Case("--checkpoint x.pth", run=VIT_B),
    "checkpoint: cut short": Case(
        "x.pth", "fetch", spoil=both(weights(lambda: {"a": torch.zeros(999)}), cut("x.pth", 900)), run=VIT_B
    ),
    "checkpoint: not SAM": Case(
        "x.pth", "image_encoder.patch_embed.proj.weight", "conv.weight",
        spoil=weights(lambda: {"conv.weight": torch.zeros(3)}), run=VIT_B,
    ),
    "checkpoint: other variant": Case(
        "x.pth", "sam_vit_b", "--foundation sam_vit_l", spoil=weights(of_vit_l), run=VIT_B
    ),
    "checkpoint: code": Case("x.pth", ".safetensors", spoil=weights(lambda: {"a": Code()}), run=VIT_B),
    "resume: with an option": Case("--lr", "run/config.toml", run="train --resume run --lr 1"),
    "resume: no run": Case("nope", "config.toml", "--out", run="train --resume nope"),
    "resume: damaged state": Case("run/last.safetensors", spoil=cut("run/last.safetensors", 100), run=RESUME),
    "resume: changed setting": Case(
        "run in run ", "config.toml", "tune", "'full'", "'lora'",
        spoil=replace(CONFIG, ('"lora"', '"full"')), run=RESUME,
    ),
    "resume: added setting": Case(
        "run in run ", "config.toml", "train_images = 1",
        spoil=replace(CONFIG, ("steps = 1\n", "steps = 1\ntrain_images = 1\n")), run=RESUME,
    ),
    "resume: changed data": Case(
        "data/images/s0.png", "50x50", "56x40",
        spoil=lambda: png("data/images/s0.png", np.ones((50, 50))), run=RESUME,
    ),
    "bundle: flipped bit": Case(
        "run/bundle.safetensors", "sha256", spoil=flip("run/bundle.safetensors"), run=CLICK
    ),
    "bundle: cut short": Case(
        "run/bundle.safetensors", "damaged", spoil=cut("run/bundle.safetensors", 490), run=CLICK
    ),
    "bundle: newer format": Case(
        "run/bundle.safetensors", "99", "pip install --upgrade simmat",
        spoil=bundle_json(lambda document: document.update(format=99)), run=CLICK,
    ),
    "bundle: text": Case("b.safetensors", "damaged", spoil=write("b.safetensors"),
        run="predict b.safetensors data/images/s4.png --out pred --point 3,3",
    ),
    "bundle: text as zip": Case("drv.zip", "zip", spoil=write("drv.zip"),
        run="predict drv.zip data/images/s4.png --out pred --point 3,3",
    ),
    "bundle: other unit": Case(
        "data/images/s4.png", "gray [count]", "gray [K]",
        spoil=bundle_json(lambda document: document["sensor_channels"][0].update(unit="K")), run=CLICK,
    ),
    "eval: another sensor": Case(
        "data/images/s4.png", "'gray'",
        spoil=lambda: png("data/images/s4.png", np.full((40, 56, 3), 9)), run="eval run/bundle.safetensors --data data",
    ),
    "eval: unknown split": Case("'tset'", "test", "train", run="eval run/bundle.safetensors --data data --split tset"),
    "eval: empty split": Case(
        "data", "test", "train", "val",
        spoil=replace("data/manifest.csv", (",test,", ",val,")), run="eval run/bundle.safetensors --data data",
    ),
    "predict: no prompt": Case("--point X,Y", "--box X0,Y0,X1,Y1", run=PREDICT),
    "predict: point outside": Case("data/images/s4.png", "300,3", "0 to 55", "0 to 39", run=PREDICT + " --point 300,3"),
    "predict: malformed point": Case("point", "X,Y", "'3;3'", run=PREDICT + " --point '3;3'"),
    "predict: inverted box": Case("X0 < X1", "30", "10", run=PREDICT + " --box 30,30,10,10"),
    "predict: one name twice": Case("s4", "rename", spoil=other_folder, run=CLICK + " o/s4.png"),
    "predict: bad file beside a good one": Case(
        "bad.png", "PNG, JPEG, TIFF", spoil=write("bad.png"), run=CLICK + " bad.png"
    ),
    "predict: missing file": Case("nope.png", run="predict run/bundle.safetensors nope.png --out pred --point 3,3"),
    "predict: over other files": Case(
        "pred/s4.json", "--out", spoil=folder("pred", "s4.json", '{"shapes": []}'), run=CLICK
    ),
    "predict: no measurement": Case(
        "nan.npy", spoil=lambda: np.save("nan.npy", np.full((40, 56), np.nan, np.float32)),
        run="predict run/bundle.safetensors nan.npy --out pred --point 3,3",
    ),
    "missing: unknown channel": Case(
        "--missing", "'nir'", "gray", run=TWO + " --source rgb=d2/images/rgb/s4.png --missing nir"
    ),
    "missing: all channels": Case("--missing", "r2/bundle.safetensors", run=TWO + " --missing red,green,blue,gray"),
    "missing: bundle that needs all": Case(
        "run/bundle.safetensors", "'mat-residual'", "--mat channel-attention", run=CLICK + " --missing gray"
    ),
    "missing: source of another channel": Case(
        "gray", "--source gray=FILE", run=TWO + " --source rgb=d2/images/rgb/s4.png --missing red"
    ),
}  # fmt: skip
