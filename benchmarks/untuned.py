"""What the benchmarks of untuned models share: which model, and the data sets of a file of `simmat bench`."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator
from typing import TypeVar

import torch

from simmat.data.dataset import Dataset, open_dataset
from simmat.io.weights import find_weights
from simmat.model import Parts
from simmat.plugins.loader import installed
from simmat.predictor import ZeroShotPredictor
from simmat.sensors.channel_selection import parse_channels

Kind = TypeVar("Kind", bound=ZeroShotPredictor)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Take the model, its size, and the data sets to measure it on."""
    parser.add_argument("--foundation", default="lite")
    parser.add_argument("--image-size", type=int, help="side of the input; by default the model's own")
    parser.add_argument("--on", nargs="+", help="names of data sets; by default all")


def data_sets(given: argparse.Namespace, kind: type[Kind]) -> Iterator[tuple[str, Dataset, Kind]]:
    """Yield the name of each data set of `given.file` that is asked for, the set, and an untuned model for it."""
    torch.set_num_threads(1)
    known = installed()
    model = known.foundation(given.foundation, fetch=True)
    parts = Parts(model, known.transfer_layer("zeroshot"), known.tuner("frozen"), find_weights(model, None))
    for data in tomllib.loads(given.file.read_text())["data"]:
        if given.on and data["name"] not in given.on:
            continue
        channels = data.get("channels")
        adapter = known.modality(data["modality"], channels=None if channels is None else parse_channels(channels))
        card = {key: data[key] for key in ("regions", "min_region", "nodata") if key in data}
        dataset = open_dataset(given.file.parent / data["data"], adapter, card)
        predictor = kind(parts, dataset.adapter, given.image_size or model.image_size, torch.device("cpu"))
        yield data["name"], dataset, predictor
