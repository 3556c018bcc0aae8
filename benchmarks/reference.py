"""What one labelled image finds in others without training, beside one click on each object.

    python benchmarks/reference.py benchmarks/transfer.toml [--foundation lite] [--image-size 256]
        [--on nir-crops sar-ships] [--images 5] [--references 2] [--shots 3] [--tile 256]

An untuned model looks at images of the training split, as a whole or in windows. Each of the first ones, or of the
first groups of `--shots` in a row, is the reference for all others. Prints, by class and averaged over references: mIoU
of the true objects, each with at most one found object (0 without one), IoU of all pixels, F1 of objects at an IoU of
0.5; and mIoU of one click on the middle of each object.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from measuring import parser_of
from scipy.optimize import linear_sum_assignment
from untuned import add_model_options, data_sets

from simmat.data.instances import Annotation, Instance, center_click, class_map
from simmat.evaluation.unprompted import ious
from simmat.predictor import TiledImage, ZeroShotPredictor
from simmat.types import Prompt


def scores(
    found: list[Instance], true: list[Instance], label: Annotation
) -> tuple[float, float, float]:
    """Return mIoU of the true objects, IoU of all pixels, and F1 at an IoU of 0.5."""
    table = ious(found, true, label.ignore)
    matched = table[linear_sum_assignment(table, maximize=True)]
    empty = np.zeros(label.size_hw, np.bool_)
    pixels = [
        np.any([empty, *(one.mask(label.size_hw) for one in group)], axis=0)
        for group in (found, true)
    ]
    union = (pixels[0] & pixels[1]).sum() / (pixels[0] | pixels[1]).sum()
    return (
        matched.sum() / len(true),
        union,
        2 * (matched >= 0.5).sum() / (len(found) + len(true)),
    )


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__)
    parser.add_argument(
        "file", type=Path, help="file of `simmat bench`, whose data sets are measured"
    )
    add_model_options(parser)
    parser.add_argument(
        "--images",
        type=int,
        default=5,
        help="images of each set, evenly from its training split",
    )
    parser.add_argument(
        "--references",
        type=int,
        default=2,
        help="references that are tried, one after the other",
    )
    parser.add_argument("--shots", type=int, default=1, help="images of a reference")
    parser.add_argument(
        "--tile",
        type=int,
        default=10_000,
        help="side of windows in pixels; by default whole images",
    )
    given = parser.parse_args()
    print(f"{'set':<20} {'one click':>9} {'found':>6} {'pixels':>6} {'F1':>6}")
    for name, dataset, predictor in data_sets(given, ZeroShotPredictor):
        samples = dataset.split("train")
        images: list[tuple[TiledImage, Annotation]] = []
        clicked: list[float] = []
        for sample in samples[:: max(len(samples) // given.images, 1)][: given.images]:
            image = dataset.image(sample)
            label = dataset.label(sample, image)
            images.append((predictor.open_reader(image, tile=given.tile), label))
            answers = images[-1][0].predict_prompts(
                [Prompt.points([center_click(one)]) for one in label.regions]
            )
            found = [answer.found_object((0, 0)) for answer in answers]
            for one, true in zip(found, label.regions, strict=True):
                clicked.append(
                    0.0
                    if one is None
                    else float(ious([one.instance], [true], label.ignore)[0, 0])
                )
        rows = []
        for start in range(given.references):
            group = images[start : start + given.shots]
            values = sorted(
                {
                    one.class_id
                    for _, label in group
                    for one in label.regions
                    if one.class_id is not None
                }
            )
            shown = [(image.reader.image, class_map(label)) for image, label in group]  # type: ignore[attr-defined]
            reference = predictor.reference(shown, classes=values, tile=given.tile)
            for other, truth in images[:start] + images[start + given.shots :]:
                objects = [
                    one.instance
                    for one in other.segment_everything(reference=reference)
                ]
                for value in values or [None]:
                    true = [one for one in truth.regions if one.class_id == value]
                    if true:
                        rows.append(
                            scores(
                                [one for one in objects if one.class_id == value],
                                true,
                                truth,
                            )
                        )
        figures = " ".join(f"{value:>6.3f}" for value in np.mean(rows, axis=0))
        print(f"{name:<20} {np.mean(clicked):>9.3f} {figures}", flush=True)


if __name__ == "__main__":
    main()
