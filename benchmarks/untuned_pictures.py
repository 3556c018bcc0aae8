"""What the untuned model sees: its score by the contrast and the channels of the picture, without any training.

    python benchmarks/untuned_pictures.py benchmarks/transfer.toml [--foundation lite] [--image-size 256]
        [--on nir-crops sar-ships] [--images 12] [--contrasts 1 0.46 0.3]

A picture is the mean of an image's normalized channels or, as in the zero-shot map, their first three principal
components, scaled to unit variance, times a contrast. Photographs as a model sees them have a standard deviation of
about 57 / pixel_std: 1 for SAM, 0.46 for `lite`. Prints mIoU of one click on each object of images of the splits train
and val, to which nothing is fitted, and the mean IoU that the model predicts.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from untuned import add_model_options, data_sets

from simmat.evaluation import evaluate
from simmat.nn.mat import ZeroShotMap
from simmat.predictor import ZeroShotPredictor
from simmat.sensors.normalize import Moments, zero_shot_map
from simmat.types import ImageReader, Window

MAPS = ("mean", "components")


class Shown(ZeroShotPredictor):
    """An untuned model that sees an image by a map of its own, of `MAPS`, times a contrast."""

    chosen: tuple[str, float] = ("mean", 1.0)

    def normalize_by(self, reader: ImageReader) -> None:
        """Normalize by the statistics of this image, and set the map."""
        super().normalize_by(reader)
        prepared = self.pipeline(reader.read(Window(0, 0, *reader.size_hw)))
        pixels = prepared.planes[:, prepared.content].numpy()  # (C, P)
        name, contrast = self.chosen
        if name == "mean":
            rows = np.full((3, len(pixels)), 1 / len(pixels)) / max(
                float(pixels.mean(0).std()), 0.01
            )
        else:
            normalized = [
                channel.with_statistics(0, 1) for channel in self.pipeline.channels
            ]
            rows = zero_shot_map(
                normalized, Moments.of_pixels(pixels, np.isfinite(pixels)).statistics()
            )
        self.model.mat = ZeroShotMap(torch.from_numpy(rows * contrast).float())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file", type=Path, help="file of `simmat bench`, whose data sets are measured"
    )
    add_model_options(parser)
    parser.add_argument(
        "--images", type=int, default=12, help="images of each set, those of val first"
    )
    parser.add_argument("--contrasts", type=float, nargs="+", default=[1, 0.46, 0.3])
    given = parser.parse_args()
    print(
        f"{'set':<20} {'map':<10} {'contrast':>8} {'objects':>7} {'mIoU':>6} {'predicted':>9}"
    )
    for of_set, dataset, predictor in data_sets(given, Shown):
        samples = [*dataset.split("val"), *dataset.split("train")][: given.images]
        for name, contrast in product(
            MAPS if len(dataset.channels()) > 1 else MAPS[:1], given.contrasts
        ):
            predictor.chosen = name, contrast
            objects = evaluate(predictor, dataset, samples).objects
            miou, predicted = (
                fmean(one.iou for one in objects),
                fmean(one.predicted_iou for one in objects),
            )
            line = f"{of_set:<20} {name:<10} {contrast:>8g} {len(objects):>7} {miou:>6.3f} {predicted:>9.3f}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
