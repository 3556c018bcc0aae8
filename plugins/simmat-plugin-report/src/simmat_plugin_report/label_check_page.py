"""The page of suspected label errors: a picture of each, with the label and what the model sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from simmat.data.dataset import Dataset
from simmat.drawing.display import display_rgb
from simmat.drawing.overlay import Canvas, Colour
from simmat_plugin_report.label_check import (
    KIND_TEXTS,
    CheckedLabels,
    LabelSuspicion,
)
from simmat_plugin_report.page import Block, Figure, FigureGrid, write_sections
from simmat_plugin_report.pictures import (
    HIT,
    MISS,
    close_up,
    jpeg,
    picture_wh,
)
from simmat_plugin_report.planted_errors import Ranked

MAX_PICTURES = 60
"""Suspicions that the page shows."""
LABEL: Colour = MISS
SEEN: Colour = HIT
_ALL_LABELS: Colour = (255, 255, 255)

_ABOUT = (
    "A model that did not learn from an image was asked what it sees there. The number is the share of errors to "
    "expect among suspicions like this one, if one label in twenty is wrong. Look before you change a label: the "
    "model may be wrong, too."
)


def write_label_check(out: Path, dataset: Dataset, checked: CheckedLabels) -> Path:
    """Write the page of the most suspected labels; OutputError if that fails, DataError if an image cannot be read."""
    figures = []
    suspicions = checked.report.suspicions
    for one, ranked in list(zip(suspicions, checked.ranked, strict=True))[
        :MAX_PICTURES
    ]:
        picture = _picture(dataset, checked, ranked)
        caption = f"{one.score:.2f} {one.sample}: {_caption(one)}"
        figures.append(Figure(jpeg(picture), caption, caption))
    legend = [
        (LABEL, "the label"),
        (SEEN, "what the model sees"),
        (_ALL_LABELS, "other labels"),
    ]
    blocks: list[Block] = [_ABOUT]
    if figures:
        blocks.append(FigureGrid(figures, legend))
    report = checked.report
    summary = f"{len(suspicions)} suspicions in {report.regions} labels of {report.images} images."
    if report.not_checked:
        summary += f" {len(report.not_checked)} images were not checked, as every run was trained on them."
    return write_sections(
        out,
        f"Suspected label errors: {dataset.root.name}",
        summary,
        [("Most suspected first", blocks)],
    )


def _caption(one: LabelSuspicion) -> str:
    if one.kind == "class":
        return f"{one.label}, the model sees {one.suggested}"
    return KIND_TEXTS[one.kind]


def _picture(dataset: Dataset, checked: CheckedLabels, ranked: Ranked) -> Image.Image:
    """Draw the surroundings of a suspicion with outlines."""
    sample = checked.samples[ranked.image]
    image = dataset.image(sample)
    label = dataset.label(sample, image)
    one = ranked.suspicion
    window = close_up(one.place.window, image.size_hw)
    height, width = window.size_hw
    canvas = Canvas(display_rgb(image)[window.slices], picture_wh(width, height))
    for number, region in enumerate(label.regions):
        inside = region.within(window)
        if number != one.region and inside.any():
            canvas.outline(canvas.scaled(inside), _ALL_LABELS)
    if one.region is not None:
        canvas.outline(canvas.scaled(one.place.within(window)), LABEL)
    for found in one.suggested:
        inside = found.within(window)
        if np.any(inside):
            canvas.outline(canvas.scaled(inside), SEEN)
    return canvas.image
