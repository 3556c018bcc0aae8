"""Draw masks of several bundles side by side, for the same clicks on the same test images.

    python benchmarks/compare_bundles.py --data DIR --out PNG [--rows 4] NAME=BUNDLE ...

Before them stands the zero-shot model of the first bundle that has one. The images are spread evenly over the sorted
ids of the split, so none is chosen by how well it went; of each, the largest region is clicked on at its deepest place.
Light blue is right, orange missed, pink too much.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps
from simmat_plugin_report.pictures import draw_comparison
from simmat_plugin_report.preview import GAP, GROUND, LINE, MARGIN, TEXT

from simmat.bundle import load_bundle
from simmat.data.dataset import Dataset, Sample, open_dataset
from simmat.data.instances import center_click
from simmat.data.pipeline import Pipeline
from simmat.drawing.display import display_rgb
from simmat.drawing.overlay import draw_overlay, font
from simmat.evaluation import why_no_zero_shot
from simmat.io.files import atomic_path
from simmat.model import SimMAT, assemble, zero_shot_of
from simmat.plugins.loader import load_plugins
from simmat.predictor import Predictor
from simmat.types import BoolArray, Prompt

CELL = 200


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Take samples evenly over the sorted ids."""
    ranked = sorted(samples, key=lambda sample: sample.id)
    return [
        ranked[round(i * (len(ranked) - 1) / max(count - 1, 1))]
        for i in range(min(count, len(ranked)))
    ]


def iou(mask: BoolArray, truth: BoolArray) -> float:
    """Intersection over union of two (H, W) masks."""
    return float((mask & truth).sum() / max((mask | truth).sum(), 1))


def row_of(
    dataset: Dataset, sample: Sample, models: Sequence[tuple[SimMAT, Pipeline]]
) -> list[tuple[Image.Image, str]]:
    """Return the pictures of one row, each with what is written below it; a sample without a region has none."""
    image = dataset.image(sample)
    label = dataset.label(sample, image)
    if not label.regions:
        return []
    truth = max(
        (region.mask(label.size_hw) for region in label.regions),
        key=lambda mask: int(mask.sum()),
    )
    prompt = Prompt.points([center_click(truth)])
    picture = display_rgb(image)
    pictures = [(draw_overlay(picture, None, prompt), sample.id)]
    for model, pipeline in models:
        predictor = Predictor(model, pipeline)
        predictor.set_image(image)
        mask = predictor.predict_prompts([prompt])[0].mask
        pictures.append(
            (
                draw_comparison(picture, truth, mask, prompt),
                f"IoU {iou(mask, truth):.2f}",
            )
        )
    return pictures


def sheet(
    titles: Sequence[str], rows: Sequence[Sequence[tuple[Image.Image, str]]]
) -> Image.Image:
    """Lay the pictures out as a table with titles."""
    fitted = [
        [(ImageOps.contain(picture, (CELL, CELL)), words) for picture, words in row]
        for row in rows
    ]
    heights = [max(picture.height for picture, _ in row) + LINE for row in fitted]
    width = 2 * MARGIN + len(titles) * (CELL + GAP) - GAP
    canvas = Image.new("RGB", (width, 2 * MARGIN + LINE + sum(heights)), GROUND)
    draw = ImageDraw.Draw(canvas)
    lefts = [MARGIN + column * (CELL + GAP) for column in range(len(titles))]
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left, MARGIN), title, font=font(13, bold=True), fill=TEXT)
    top = MARGIN + LINE
    for row, height in zip(fitted, heights, strict=True):
        for left, (picture, words) in zip(lefts, row, strict=True):
            canvas.paste(picture, (left, top))
            draw.text((left, top + picture.height + 3), words, font=font(12), fill=TEXT)
        top += height
    return canvas


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the data set"
    )
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--rows", type=int, default=4, help="number of images")
    parser.add_argument("bundles", nargs="+", metavar="NAME=BUNDLE")
    options = parser.parse_args()
    registry = load_plugins()
    named = [text.split("=", 1) for text in options.bundles]
    bundles = {name: load_bundle(Path(path), registry) for name, path in named}
    first = next(iter(bundles.values()))
    tuned = next(
        (bundle for bundle in bundles.values() if not why_no_zero_shot(bundle.parts)),
        None,
    )
    models: dict[str, tuple[SimMAT, Pipeline]] = {}
    if tuned is not None:
        untuned = assemble(*zero_shot_of(tuned.spec, registry, tuned.parts.weights))
        models["zero-shot"] = untuned.eval(), tuned.pipeline
    models |= {
        name: (bundle.model, bundle.pipeline) for name, bundle in bundles.items()
    }
    dataset = open_dataset(
        options.data, first.adapter, first.spec.card.model_dump(exclude_unset=True)
    )
    samples = spread(dataset.split("test"), options.rows)
    rows = [
        row
        for sample in samples
        if (row := row_of(dataset, sample, list(models.values())))
    ]
    with atomic_path(options.out) as path:
        sheet(["sensor and click", *models], rows).save(path)


if __name__ == "__main__":
    main()
