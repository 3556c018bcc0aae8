"""What self-training brings where a sensor has neither labels nor pairs: its own answers, over views, as labels.

    python benchmarks/self_training.py DIR [--config sensors.toml] [--sensors thermal-udder nir-crops] [--seed 0]
        [--steps 100] [--lr 1e-4] [--split test]

For each sensor of the config: the untuned model answers a grid of clicks on images of the training and validation split
and on their mirror images, and the averages, which must have a predicted IoU of at least 0.5, are the masks that it
learns from, under the flips, scales, gains, offsets and noise of a training. The masks stay those of the untuned model.
Of the steps that are validated, among them 0, the one that agrees best with the masks of the validation split is kept,
so no label is used. Masks in DIR/SENSOR/masks can be looked at by `simmat data preview`.

It prints mIoU of one click by true masks, untuned and trained, and the agreement at each validated step. --split is
what is scored, val by default. What is done is kept in DIR. About ten minutes a sensor on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

import simmat
from simmat.config import TrainConfig, load_configs
from simmat.data.card import write_card
from simmat.data.instances import FoundObject
from simmat.foundation import MaskPrediction
from simmat.inference import coco_document, run_lengths
from simmat.io.files import atomic_write_json
from simmat.nn.dense_head import upsample_logits
from simmat.predictor import EncodedImage, EverythingSettings, Predictor, find_objects
from simmat.training.run_folder import read_log
from simmat.types import FloatArray

IMAGES = {"train": 30, "val": 8}
"""Most images of a split that masks are made for."""
LARGEST = 0.7
"""Share of an image above which a mask is background."""
SMALLEST_PX = 30
"""Where the config names no smallest region."""


@dataclass(frozen=True, eq=False)
class AveragedImage(EncodedImage):
    """An image whose answers are averaged with those of its two mirror images.

    Attributes:
        mirrored: the axis of (H, W) that is mirrored -> the mirror image.
    """

    mirrored: Mapping[int, EncodedImage] = field(default_factory=dict)

    def decode_clicks(self, points: FloatArray) -> MaskPrediction:
        """Answer K clicks at (K, 2) xy of the input."""
        letterbox = self.prepared.letterbox
        answer = super().decode_clicks(points)
        size_hw = (letterbox.size, letterbox.size)
        # (K, 1, S, S)
        probabilities = [
            upsample_logits(answer.logits[:, :1].float(), size_hw).sigmoid()
        ]
        scores = [answer.iou[:, :1].float()]
        for axis, view in self.mirrored.items():
            side = letterbox.scaled_hw[axis]
            own = points.copy()
            own[:, 1 - axis] = side - 1 - own[:, 1 - axis]
            answer = view.decode_clicks(own)
            seen = upsample_logits(answer.logits[:, :1].float(), size_hw).sigmoid()
            # but the padding
            seen.narrow(2 + axis, 0, side).copy_(
                seen.narrow(2 + axis, 0, side).flip(2 + axis)
            )
            probabilities.append(seen)
            scores.append(answer.iou[:, :1].float())
        return MaskPrediction(
            torch.stack(probabilities).mean(0).logit(1e-4), torch.stack(scores).mean(0)
        )


def objects_in(
    model: Predictor, file: Path, smallest: int
) -> tuple[tuple[int, int], list[FoundObject]]:
    """Return the size of an image and the masks that the model may learn from."""
    image = model.set_image(file)
    reader, adapter = model.reader(file), model.adapter
    whole = model.encode(image, reader)
    across = model.encode(adapter.flip(image, "horizontal"), reader)
    down = model.encode(adapter.flip(image, "vertical"), reader)
    seen = AveragedImage(
        whole.model, whole.prepared, whole.embedding, mirrored={1: across, 0: down}
    )
    settings = EverythingSettings(
        grid=10,
        skip_covered=False,
        alternatives=False,
        grid_score=0.5,
        overlap=0.7,
        min_area=smallest,
    )
    found = find_objects(seen, settings)
    return image.size_hw, [
        one for one in found if one.instance.area < LARGEST * np.prod(image.size_hw)
    ]


def write_masks(config: TrainConfig, folder: Path) -> None:
    """Write the masks that the untuned model gives as a data set of the sensor, once."""
    if (folder / "card.toml").exists():
        return
    model = simmat.load(
        foundation=config.foundation,
        modality=config.modality,
        modality_options=config.modality_options,
        channels=config.channels,
        image_size=config.image_size,
    )
    smallest = config.min_region or SMALLEST_PX
    dataset = simmat.open_dataset(
        config.data, config.modality, **config.card_overrides()
    )
    for split, most in IMAGES.items():
        records = []
        for sample in dataset.split(split)[:most]:
            file = next(iter(sample.files.values())).absolute()
            place = folder / "images" / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(file)
            size_hw, found = objects_in(model, file, smallest)
            objects = [
                {
                    "class": None,
                    "score": one.score,
                    "box_xyxy": list(one.instance.box_xyxy),
                    "area": one.instance.area,
                    "segmentation": run_lengths(one.instance, size_hw),
                }
                for one in found
            ]
            records.append((file.name, size_hw, objects))
        document = coco_document(records, {})
        # here the masks of a model are the ground truth, and validate
        for annotation in document["annotations"]:
            del annotation["score"]
        atomic_write_json(folder / "annotations" / f"{split}.json", document)
    own = {
        "regions": "instances",
        "min_region": smallest,
        "zero_means": "unlabelled",
        "class_names": {},
        "ignore": None,
    }
    write_card(folder, dataset.card.model_copy(update={**own, "class_attribute": None}))


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path)
    parser.add_argument(
        "--config", type=Path, default=Path(__file__).with_name("sensors.toml")
    )
    parser.add_argument("--sensors", nargs="+")
    parser.add_argument("--seed", default=0)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--lr", default=1e-4)
    parser.add_argument("--split", choices=["val", "test"], default="val")
    given = parser.parse_args()
    sensors = load_configs(given.config, {"out": given.dir})
    print(
        "| sensor | untuned | trained on its own masks | agreement at each step |\n|---|---|---|---|"
    )
    for name in given.sensors or sensors:
        config, root = sensors[name], given.dir.absolute() / name
        write_masks(config, root / "masks")
        run = root / f"run-{given.steps}-{given.lr}-{given.seed}"
        if not (run / "bundle.safetensors").exists():
            words = [
                "--modality",
                config.modality,
                "--data",
                root / "masks",
                "--out",
                run,
                "--seed",
                given.seed,
            ]
            words += [
                "--foundation",
                config.foundation,
                "--image-size",
                config.image_size,
                "--batch-size",
                6,
            ]
            words += [
                "--mat",
                "mat-residual",
                "--tune",
                "lora",
                "--tune-option",
                "where=backbone",
                "--heads",
                "prompt",
            ]
            words += [
                "--steps",
                given.steps,
                "--val-every",
                max(given.steps // 2, 1),
                "--lr",
                given.lr,
                "--no-pictures",
            ]
            words += ["--box-fraction", 0, "--correction-clicks", 0]
            words += (
                ["--channels", ",".join(map(str, config.channels))]
                if config.channels
                else []
            )
            subprocess.run(["simmat", "train", *map(str, words)], check=True)
        score = [
            "simmat",
            "eval",
            run,
            "--data",
            config.data,
            "--split",
            given.split,
            "--json",
        ]
        card = {"--regions": config.regions, "--min-region": config.min_region}
        score += [word for pair in card.items() if pair[1] is not None for word in pair]
        found = json.loads(
            subprocess.run(
                list(map(str, score)), check=True, stdout=subprocess.PIPE
            ).stdout
        )
        agreement = [
            f"{one['miou_object']:.3f}"
            for one in read_log(run / "metrics.jsonl")
            if one["kind"] == "val"
        ]
        untuned, tuned = (
            f"{found[key]['miou_object']:.3f}" for key in ("zero_shot", "tuned")
        )
        print(
            "|",
            " | ".join([name, untuned, tuned, ", ".join(agreement)]),
            "|",
            flush=True,
        )


if __name__ == "__main__":
    main()
