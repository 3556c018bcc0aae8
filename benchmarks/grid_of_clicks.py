"""Compare a grid of clicks, as SAM's automatic masks, with the peaks of the dense head of a tuned model.

    python benchmarks/grid_of_clicks.py RUN [--data ../shared/data/fluorescence-nuclei] [--split test] [--grid 32]

The same weights answer both. Seconds are processor time of one thread for finding objects in an image that is encoded;
of a large image, whose windows are encoded one by one, with their encoding.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from simmat.bundle import load_bundle
from simmat.data.dataset import open_dataset
from simmat.evaluation.unprompted import ImageMatches, object_scores
from simmat.plugins.loader import load_plugins
from simmat.predictor import EverythingSettings, Predictor

DATA = Path(__file__).parents[2] / "shared" / "data" / "fluorescence-nuclei"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="a run or bundle with a dense head")
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder of the data set"
    )
    parser.add_argument("--split", default="test", help="train, val or test")
    parser.add_argument(
        "--grid", type=int, nargs="*", default=[32], help="clicks along each side"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    bundle = load_bundle(options.bundle, load_plugins())
    dataset = open_dataset(
        options.data, bundle.modality, {}, defaults=bundle.spec.card.model_dump()
    )
    samples = dataset.split(options.split)
    print(
        f"{'clicks':<16} {'found':>6} {'AP':>6} {'AP50':>6} {'PQ':>6} {'F1':>6} {'s/image':>8}"
    )
    for name, settings in [
        ("dense head", EverythingSettings()),
        *(
            (f"grid of {count}²", EverythingSettings(grid=count))
            for count in options.grid
        ),
    ]:
        if name != "dense head":
            bundle.model.dense = None
        predictor = Predictor.of_bundle(bundle)
        seconds, matches = 0.0, []
        for sample in samples:
            image = dataset.image(sample)
            predictor.set_image(image)
            start = time.process_time()
            found = predictor.segment_everything(settings)
            seconds += time.process_time() - start
            instances, scores = (
                [one.instance for one in found],
                [one.score for one in found],
            )
            matches.append(
                ImageMatches.of(
                    instances, scores, dataset.label(sample, image)
                ).without_classes()
            )
        result = object_scores(matches)
        figures = " ".join(
            f"{result[key] or 0:>6.3f}" for key in ("ap", "ap50", "pq", "f1")
        )
        count = sum(len(image.scores) for image in matches)
        print(
            f"{name:<16} {count:>6} {figures} {seconds / len(samples):>8.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
