"""`simmat data check --against`: labels beside models that did not learn from their images, as text and as a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from simmat.bundle import Bundle
from simmat.data.dataset import Dataset
from simmat.data.samples import Sample
from simmat.documents import StrictModel
from simmat.drawing.display import display_rgb
from simmat.drawing.overlay import Canvas, Colour
from simmat.errors import DataError, few_of
from simmat.predictor import Predictor
from simmat_plugin_report.page import Block, Figure, FigureGrid, write_sections
from simmat_plugin_report.pictures import HIT, MISS, close_up, jpeg, picture_wh
from simmat_plugin_report.planted_errors import LabelCheck, Ranked
from simmat_plugin_report.second_opinion import check_judges, opinions, unseen_by
from simmat_plugin_report.suspicions import Kind

SHOWN = 20
"""Suspicions that are printed."""

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

KIND_TEXTS: Mapping[Kind, str] = {
    "missed": "an object without a label",
    "class": "another class",
    "border": "a border beside the object",
    "merged": "two objects in one label",
}
"""What is suspected of one label."""

_COUNTED: Mapping[Kind, str] = {
    "missed": "objects without a label",
    "class": "wrong classes",
    "border": "borders beside the object",
    "merged": "labels of two objects",
}


class LabelSuspicion(StrictModel):
    """A label that a model contradicts.

    Attributes:
        sample: id of the image, or of the window of it.
        kind: "missed", "class", "border" or "merged".
        score: share of errors among suspicions with such evidence, if one label in twenty is wrong; 0 to 1.
        region: number of the region in the label from 0, as in `simmat eval --out`; None of an object without a label.
        box_xyxy: where it is, in pixels of the sample.
        label: class of the label, by name; None without classes.
        suggested: class that the model sees, by name; None without classes.
    """

    sample: str
    kind: Kind
    score: float
    region: int | None
    box_xyxy: tuple[int, int, int, int]
    label: str | None
    suggested: str | None


class LabelReport(StrictModel):
    """What was compared, and what is suspected.

    Attributes:
        images: number of compared images.
        regions: number of their labels.
        not_checked: ids of the images that every run was trained on.
        suspicions: most suspected first.
    """

    root: str
    runs: list[str]
    images: int
    regions: int
    not_checked: list[str]
    suspicions: list[LabelSuspicion]

    def text(self) -> str:
        """Return the report for a terminal."""
        lines = [
            f"{self.root}: {self.regions} labels of {self.images} images beside models that did not learn from them"
        ]
        if self.not_checked:
            lines.append(
                f"not checked, as every run was trained on them: {len(self.not_checked)} images "
                f"({few_of(self.not_checked, 3)}); simmat train --folds makes runs that leave no image out"
            )
        if not self.suspicions:
            lines.append("no label is suspected")
            return "\n".join(lines)
        counts = Counter(one.kind for one in self.suspicions)
        texts = []
        for kind, text in _COUNTED.items():
            if counts[kind]:
                texts.append(f"{text}: {counts[kind]}")
        lines.append(f"suspected are {', '.join(texts)}; most suspected first:")
        for place, one in enumerate(self.suspicions[:SHOWN], start=1):
            x0, y0, x1, y1 = one.box_xyxy
            where = f"x {x0} to {x1}, y {y0} to {y1}"
            lines.append(
                f"{place:3d}  {one.score:.2f}  {one.sample}: {_what(one)} ({where})"
            )
        left = len(self.suspicions) - SHOWN
        if left > 0:
            lines.append(f"and {left} more, see --json or --out")
        return "\n".join(lines)


def _what(one: LabelSuspicion) -> str:
    """Say what is suspected."""
    if one.kind == "class":
        return f"label {one.region} is {one.label}, the model sees {one.suggested}"
    if one.kind == "missed":
        of_class = f" ({one.suggested})" if one.suggested else ""
        return f"{KIND_TEXTS['missed']}{of_class}"
    if one.kind == "merged":
        return f"label {one.region} holds two objects or more"
    return f"label {one.region} has {KIND_TEXTS[one.kind]}"


@dataclass(frozen=True, eq=False)
class CheckedLabels:
    """A report, and what its pictures need: the sample of each suspicion and its pixels."""

    report: LabelReport
    samples: Sequence[Sample]
    ranked: Sequence[Ranked]


def check_labels(
    dataset: Dataset,
    bundles: Sequence[Bundle],
    samples: Sequence[Sample],
    progress: Callable[[int], object] = lambda count: None,
) -> CheckedLabels:
    """Compare the labels of samples with the first bundle each that was not trained on the image.

    Args:
        progress: called with 1 after every image.

    Raises:
        ConfigError: a bundle cannot judge, see `check_judges`.
        DataError: every bundle was trained on all images, or an image cannot be read.
    """
    check_judges(bundles)
    specs = [bundle.spec for bundle in bundles]
    judges = unseen_by(specs, dataset, samples)
    if all(judge is None for judge in judges):
        raise DataError(
            f"{dataset.root}: all {len(samples)} images were in the training of every run, so none can judge their "
            "labels; train on folds with simmat train --folds 5, and give all its runs to --against"
        )
    predictors = [Predictor.of_bundle(bundle) for bundle in bundles]
    check = LabelCheck(np.random.default_rng(0))
    checked: list[Sample] = []
    regions = 0
    for sample, _, label, opinion in opinions(predictors, dataset, samples, judges):
        check.add(label, opinion)
        checked.append(sample)
        regions += len(label.regions)
        progress(1)
    ranked = check.ranked()
    names = dataset.class_names
    suspicions = []
    for one in ranked:
        found = one.suspicion
        suspicions.append(
            LabelSuspicion(
                sample=checked[one.image].id,
                kind=found.kind,
                score=round(one.score, 4),
                region=found.region,
                box_xyxy=found.place.box_xyxy,
                label=_name(
                    None if found.region is None else found.place.class_id, names
                ),
                suggested=_name(found.suggested_class, names),
            )
        )
    report = LabelReport(
        root=str(dataset.root),
        runs=[str(Path(bundle.path)) for bundle in bundles],
        images=len(checked),
        regions=regions,
        not_checked=[
            sample.id
            for sample, judge in zip(samples, judges, strict=True)
            if judge is None
        ],
        suspicions=suspicions,
    )
    return CheckedLabels(report, checked, ranked)


def _name(value: int | None, names: Mapping[int, str]) -> str | None:
    """Return the name of a class, by default its number; None without a class."""
    if value is None:
        return None
    return names.get(value, str(value))


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
