"""Score one click of an untuned model on the data sets of a file of `simmat bench`.

    python benchmarks/untuned.py benchmarks/mobilesam.toml --foundation mobilesam --image-size 1024 [--split test]

Other benchmarks of untuned models import its options and data sets.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import TypeVar

import torch
from measuring import parser_of

import simmat
from simmat.assemble import Parts
from simmat.data.dataset import Dataset, open_dataset
from simmat.io.weights import find_weights
from simmat.plugins.loader import installed
from simmat.predictor import ZeroShotPredictor
from simmat.sensors.channel_selection import parse_channels

Kind = TypeVar("Kind", bound=ZeroShotPredictor)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Take the model, its size, and the data sets to measure it on."""
    parser.add_argument("--foundation", default="lite")
    parser.add_argument(
        "--image-size", type=int, help="side of the input; by default the model's own"
    )
    parser.add_argument("--on", nargs="+", help="names of data sets; by default all")


def data_sets(
    given: argparse.Namespace, kind: type[Kind]
) -> Iterator[tuple[str, Dataset, Kind]]:
    """Yield the name of each data set of `given.file` that is asked for, the set, and an untuned model for it."""
    torch.set_num_threads(1)
    known = installed()
    model = known.foundation(given.foundation, fetch=True)
    parts = Parts(
        model,
        known.transfer_layer("zeroshot"),
        known.tuner("frozen"),
        find_weights(model, None),
    )
    for data in tomllib.loads(given.file.read_text())["data"]:
        if given.on and data["name"] not in given.on:
            continue
        channels = data.get("channels")
        adapter = known.modality(
            data["modality"],
            channels=None if channels is None else parse_channels(channels),
        )
        card = {
            key: data[key] for key in ("regions", "min_region", "nodata") if key in data
        }
        dataset = open_dataset(given.file.parent / data["data"], adapter, card)
        predictor = kind(
            parts,
            dataset.adapter,
            given.image_size or model.image_size,
            torch.device("cpu"),
        )
        yield data["name"], dataset, predictor


def main() -> None:
    """Print mIoU over the objects of each set, and the mean of the sets."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "file", type=Path, help="file of `simmat bench`, for its data sets"
    )
    parser.add_argument(
        "--split",
        default="val",
        help="val by default; the test split is for the last look",
    )
    add_model_options(parser)
    given = parser.parse_args()
    scores = []
    for name, dataset, predictor in data_sets(given, ZeroShotPredictor):
        report = simmat.evaluate(predictor, dataset, split=given.split)
        scores.append(report["zero_shot"]["miou_object"])
        print(
            f"{name} {scores[-1]:.3f} ({report['zero_shot']['objects']} objects)",
            flush=True,
        )
    print(f"mean {fmean(scores):.3f}")


if __name__ == "__main__":
    main()
