"""Scores of objects, their differences, those by size and by class, and their calibration, as parts of a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from simmat.calibration import (
    KINDS,
    Kind,
    ScoredPredictions,
    calibrated_pairs,
    calibration_error,
    held_out,
    pairs_of,
    reliability,
    risk_area,
    risk_coverage,
)
from simmat.data.card import class_title
from simmat.evaluation import SIZES, ObjectScore, Scores, mean_interval
from simmat.plugins.loader import installed
from simmat_plugin_report.documents import Analysis, RunView
from simmat_plugin_report.page import Block, Figure, Table
from simmat_plugin_report.plots import (
    COLOURS,
    PALETTE,
    curves_figure,
    figure_bytes,
    new_figure,
    style_axes,
)

Objects = Sequence[ObjectScore]
Change = tuple[float, tuple[float, float] | None]
"""A mean difference of IoU, and its 95 % interval over images; None for a single image."""
Group = tuple[str, str, list[list[ObjectScore]]]
"""What divides objects ("size", "class"), the name of a part, and the objects of each model in it."""

NONE = "–"
MAX_CLASSES = 40
"""Classes in a table, the most frequent ones."""
_TITLES = {
    "miou_object": "mean IoU over objects",
    "miou_object_interval": "95 % interval",
    "miou_image": "mean over images",
    "miou_class": "mean over classes",
}
_ALTERNATIVES = {
    "miou_best_predicted": "best alternative, by predicted IoU",
    "miou_oracle": "best alternative, by true IoU",
}
UNPROMPTED = {
    ("everything", "ap"): "every object: AP",
    ("everything", "ap50"): "every object: AP50",
    ("everything", "pq"): "every object: PQ",
    ("semantic", "miou"): "class map: mIoU",
}
"""Keys of a metric without prompts in `Scores.summary`, and its title."""


def miou(objects: Objects) -> float:
    """Return the mean IoU; 0 without objects."""
    return fmean(score.iou for score in objects) if objects else 0.0


def common(objects: Objects, others: Objects) -> list[ObjectScore]:
    """Return the scores of the objects that another model scored as well."""
    known = {(score.sample, score.region) for score in others}
    return [score for score in objects if (score.sample, score.region) in known]


def difference(objects: Objects, base: Objects) -> Change | None:
    """Return the difference in IoU over common objects; None if there are none."""
    before = {(score.sample, score.region): score.iou for score in base}
    images: dict[str, list[float]] = {}
    for score in common(objects, base):
        images.setdefault(score.sample, []).append(
            score.iou - before[score.sample, score.region]
        )
    if not images:
        return None
    return fmean(value for image in images.values() for value in image), mean_interval(
        images.values()
    )


def signed(change: Change | float | None, separator: str = " ") -> str:
    """Return a difference as text, with its interval if it has one: "+0.012 [+0.001, +0.023]"."""
    if change is None:
        return NONE
    value, interval = change if isinstance(change, tuple) else (change, None)
    return f"{value:+.3f}" + (
        "" if interval is None else separator + "[{:+.3f}, {:+.3f}]".format(*interval)
    )


def metric_texts(objects: Objects) -> dict[str, str]:
    """Return title -> metric of objects; "–" for a metric that their protocol does not have."""
    if not objects:
        return {}
    summary = Scores(tuple(objects)).summary()
    metrics = {
        spec.name: spec.description
        for spec in installed().all("metric")
        if spec.name in objects[0].metrics
    }
    titles = {**_TITLES, **metrics, **_ALTERNATIVES}
    found = {title: shown(summary[key]) for key, title in titles.items()}
    for least in (0.5, 0.75, 0.9):
        found[f"objects with IoU {least:g} or more"] = (
            f"{np.mean([score.iou >= least for score in objects]):.0%}"
        )
    return found


def shown(value: Any) -> str:
    """Return a metric or an interval as text."""
    if value is None:
        return NONE
    return (
        "{:.3f} to {:.3f}".format(*value)
        if isinstance(value, tuple)
        else f"{value:.3f}"
    )


def unprompted_metrics(blocks: Mapping[str, Any]) -> dict[str, str]:
    """Return title -> value of each metric without prompts that a model has."""
    values = {
        title: dict(blocks.get(block) or {}).get(key)
        for (block, key), title in UNPROMPTED.items()
    }
    return {
        title: shown(value)
        for title, value in values.items()
        if isinstance(value, float)
    }


def groups_of(models: Sequence[Objects], names: Mapping[int, str]) -> Iterator[Group]:
    """Yield the objects of each model by size, then by class where there are several, the most frequent classes."""
    for name, (low, high) in SIZES.items():
        limit = (
            f"from {math.isqrt(low)}² px"
            if high == math.inf
            else f"below {math.isqrt(int(high))}² px"
        )
        parts = [
            [score for score in objects if low <= score.area < high]
            for objects in models
        ]
        if any(parts):
            yield "size", f"{name} ({limit})", parts
    counts = class_counts(models)
    for value in (
        sorted(dict(counts.most_common(MAX_CLASSES))) if len(counts) > 1 else ()
    ):
        parts = [
            [score for score in objects if score.class_id == value]
            for objects in models
        ]
        yield "class", class_title(value, names), parts


def class_counts(models: Iterable[Objects]) -> Counter[int]:
    """Return the number of objects of each class over all models."""
    return Counter(
        score.class_id
        for objects in models
        for score in objects
        if score.class_id is not None
    )


def curves(runs: Mapping[str, RunView]) -> Figure:
    """Draw the curves of runs, with the zero-shot scores of their validation splits."""
    zero = [
        miou(found.zero_shot)
        for run in runs.values()
        for found in (run.trained, run.analysis)
        if found
        and found.zero_shot
        and run.is_own(found)
        and len(found.zero_shot) == len(found.scores)
    ]
    plot = figure_bytes(
        curves_figure({name: run.records for name, run in runs.items()}, zero_shot=zero)
    )
    return Figure(plot, "Training loss and validation mIoU by step")


def scored_images(found: Analysis) -> str:
    """Describe the scored images: "40 images of the val split of set"."""
    some = (
        ""
        if found.images == found.available
        else f" of {found.available}, spread evenly,"
    )
    return f"{plural(found.images, 'image')}{some} of the {found.split} split of {Path(found.data).name}"


def setting(value: Any) -> str:
    """Return the value of a setting as text."""
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return (
            ", ".join(f"{key} = {setting(item)}" for key, item in value.items())
            or "none"
        )
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def plural(number: int, what: str) -> str:
    """Return a number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Return a duration as text, in a suitable unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def confidence_blocks(run: RunView, found: Analysis) -> Iterator[Block]:
    """Yield curves and a table of the calibration of each kind of score."""
    confidence = {**Scores(found.scores).confidence(), **pairs_of(found.confidence)}
    calibration = run.spec.calibration
    pairs: dict[Kind, tuple[ScoredPredictions, ScoredPredictions]] = {}
    for kind, raw in confidence.items():
        after = calibrated_pairs(calibration, kind, raw)
        pairs[kind] = (
            raw,
            held_out(raw) if run.is_own(found) and after is not raw else after,
        )
    head = (
        "score of",
        "number",
        "ECE before",
        *(["ECE after"] if calibration else []),
        "area of the risk",
    )
    yield Table(
        head,
        [
            (
                KINDS[kind],
                f"{raw.weights.sum():,.0f}",
                f"{calibration_error(raw):.3f}",
                *(
                    [NONE if after is raw else f"{calibration_error(after):.3f}"]
                    if calibration
                    else []
                ),
                f"{risk_area(raw):.3f}",
            )
            for kind, (raw, after) in pairs.items()
        ],
        1,
    )
    yield Figure(
        _calibration_curves(pairs),
        "Reliability, and risk by coverage, of each kind of score",
    )
    if calibration is None:
        yield "This bundle has no calibration: its scores are the network's own."
    elif run.is_own(found):
        yield (
            "The bundle's scores were calibrated on these images. "
            "After calibration means here: each fifth of the images is calibrated on the other four fifths."
        )


def _calibration_curves(
    pairs: Mapping[Kind, tuple[ScoredPredictions, ScoredPredictions]],
) -> bytes:
    figure = new_figure((6.2, 1.75 * len(pairs)))
    axes = figure.subplots(len(pairs), 2, squeeze=False)
    for (left, right), (kind, (raw, after)) in zip(axes, pairs.items(), strict=True):
        left.plot([0, 1], [0, 1], color=COLOURS["faint"], lw=1, ls=(0, (5, 3)))
        shown = [
            (raw, PALETTE[1], "before"),
            *([] if after is raw else [(after, PALETTE[0], "after")]),
        ]
        for one, colour, label in shown:
            predicted, true, weights = reliability(one)
            area = 6 + 120 * weights / weights.sum()
            left.scatter(
                predicted, true, area, color=colour, alpha=0.45, lw=0, clip_on=False
            )
            left.plot(predicted, true, color=colour, lw=1.3, label=label)
        coverage, risk = risk_coverage(raw)
        right.plot(coverage, risk, color=PALETTE[0], lw=1.5)
        left.set(xlim=(0, 1), ylim=(0, 1))
        right.set(xlim=(0, 1), ylim=(0, None))
        left.set_title(KINDS[kind], loc="left", fontsize=9, color=COLOURS["text"])
        right.set_title(
            "risk of the surest", loc="left", fontsize=9, color=COLOURS["text"]
        )
        for part in (left, right):
            style_axes(part)
    axes[0, 0].legend(fontsize=8, frameon=False, loc="upper left")
    axes[-1, 0].set_xlabel(
        "score (vertical: the truth)", fontsize=9, color=COLOURS["faint"]
    )
    axes[-1, 1].set_xlabel(
        "share that is kept (vertical: 1 - truth)", fontsize=9, color=COLOURS["faint"]
    )
    return figure_bytes(figure)
