"""What an untuned model finds without clicks, and how long it takes.

    python benchmarks/everything.py [--foundation lite] [--images 20] [--on rgb-regions] [--set skip_covered=false]

For each set of everything.toml, on images of its validation split, evenly spaced:

* AR100: recall of the true objects by the 100 best masks, mean over IoU thresholds from 0.5 to 0.95;
* objects found in an image, and how many of them are useless: their IoU with every true object is below 0.5;
* the processor time of an image in seconds, on one thread, with reading and encoding.

`--set` changes a field of `EverythingSettings`; repeat it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import untuned
from measuring import parser_of

from simmat.data.dataset import Dataset
from simmat.data.samples import Sample
from simmat.evaluation.unprompted import THRESHOLDS, ImageMatches
from simmat.predictor import EverythingSettings, ZeroShotPredictor

MOST_MASKS = 100
RIGHT = 0.5


def recall(matches: ImageMatches) -> float | None:
    """Return the share of true objects that are found, mean over the thresholds; None of an image without any."""
    counted = ~matches.uncounted
    total = int(counted.sum())
    if not total:
        return None
    shares = []
    for threshold in THRESHOLDS:
        partners, _ = matches.counted(threshold)
        hits = partners[partners >= 0]
        shares.append(int(counted[hits].sum()) / total)
    return fmean(shares)


def evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return at most `count` samples, evenly spaced."""
    chosen = np.linspace(0, len(samples) - 1, min(count, len(samples))).round()
    return [samples[int(index)] for index in chosen]


def measure(
    dataset: Dataset,
    samples: Sequence[Sample],
    predictor: ZeroShotPredictor,
    settings: EverythingSettings,
) -> dict[str, float]:
    """Return the figures of one set."""
    recalls = []
    found = []
    useless = []
    seconds = []
    for sample in samples:
        start = time.process_time()
        image = dataset.image(sample)
        predictor.set_image(image)
        objects = list(predictor.segment_everything(settings))[:MOST_MASKS]
        seconds.append(time.process_time() - start)
        matches = ImageMatches.of(objects, dataset.label(sample, image))
        share = recall(matches.without_classes())
        if share is not None:
            recalls.append(share)
        best = matches.iou.max(1, initial=0)
        found.append(len(objects))
        useless.append(int((best < RIGHT).sum()))
    return {
        "AR100": fmean(recalls),
        "found": fmean(found),
        "useless": fmean(useless),
        "CPU s": fmean(seconds),
    }


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument("--images", type=int, default=20, help="of each set, at most")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="repeat it"
    )
    untuned.add_model_options(parser)
    given = parser.parse_args()
    given.file = Path(__file__).with_name("everything.toml")
    settings = EverythingSettings(
        **{
            name: json.loads(value)
            for name, _, value in (one.partition("=") for one in given.set)
        }
    )
    print(
        f"{'set':<20} {'images':>6} {'AR100':>6} {'found':>6} {'useless':>7} {'CPU s':>6}"
    )
    for name, dataset, predictor in untuned.data_sets(given, ZeroShotPredictor):
        samples = evenly(dataset.split("val"), given.images)
        row = measure(dataset, samples, predictor, settings)
        print(
            f"{name:<20} {len(samples):>6} {row['AR100']:>6.3f} {row['found']:>6.1f} {row['useless']:>7.1f} "
            f"{row['CPU s']:>6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
