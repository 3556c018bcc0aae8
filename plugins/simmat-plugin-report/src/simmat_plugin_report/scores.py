"""Scores of objects, their differences, and those by size and by class, as tables of a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from simmat.data.card import class_title
from simmat.evaluation import SIZES, ObjectScore, Scores, mean_interval
from simmat_plugin_report.documents import Analysis, RunView
from simmat_plugin_report.page import Figure
from simmat_plugin_report.plots import curves_figure, figure_bytes

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
    "boundary_iou": "boundary IoU",
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
        images.setdefault(score.sample, []).append(score.iou - before[score.sample, score.region])
    if not images:
        return None
    return fmean(value for image in images.values() for value in image), mean_interval(images.values())


def signed(change: Change | None, separator: str = " ") -> str:
    """Return a difference as text: "+0.012 [+0.001, +0.023]"."""
    if change is None:
        return NONE
    interval = "" if change[1] is None else separator + "[{:+.3f}, {:+.3f}]".format(*change[1])
    return f"{change[0]:+.3f}{interval}"


def figures(objects: Objects) -> dict[str, str]:
    """Return title -> metric of objects; "–" for a metric that their protocol does not have."""
    if not objects:
        return {}
    summary = Scores(tuple(objects)).summary()
    found = {title: shown(summary[key]) for key, title in _TITLES.items()}
    for least in (0.5, 0.75, 0.9):
        found[f"objects with IoU {least:g} or more"] = f"{np.mean([score.iou >= least for score in objects]):.0%}"
    return found


def shown(value: Any) -> str:
    """Return a metric or an interval as text."""
    if value is None:
        return NONE
    return "{:.3f} to {:.3f}".format(*value) if isinstance(value, tuple) else f"{value:.3f}"


def unprompted_figures(blocks: Mapping[str, Any]) -> dict[str, str]:
    """Return title -> value of each metric without prompts that a model has."""
    values = {title: dict(blocks.get(block) or {}).get(key) for (block, key), title in UNPROMPTED.items()}
    return {title: shown(value) for title, value in values.items() if isinstance(value, float)}


def groups_of(models: Sequence[Objects], names: Mapping[int, str]) -> Iterator[Group]:
    """Yield the objects of each model by size, then by class where there are several, the most frequent classes."""
    for name, (low, high) in SIZES.items():
        limit = f"from {math.isqrt(low)}² px" if high == math.inf else f"below {math.isqrt(int(high))}² px"
        parts = [[score for score in objects if low <= score.area < high] for objects in models]
        if any(parts):
            yield "size", f"{name} ({limit})", parts
    counts = class_counts(models)
    for value in sorted(dict(counts.most_common(MAX_CLASSES))) if len(counts) > 1 else ():
        parts = [[score for score in objects if score.class_id == value] for objects in models]
        yield "class", class_title(value, names), parts


def class_counts(models: Iterable[Objects]) -> Counter[int]:
    """Return the number of objects of each class over all models."""
    return Counter(score.class_id for objects in models for score in objects if score.class_id is not None)


def curves(runs: Mapping[str, RunView]) -> Figure:
    """Draw the curves of runs, with the zero-shot scores of their validation splits."""
    zero = [
        miou(found.zero_shot)
        for run in runs.values()
        for found in (run.trained, run.analysis)
        if found and found.zero_shot and run.is_own(found) and len(found.zero_shot) == len(found.scores)
    ]
    plot = figure_bytes(curves_figure({name: run.records for name, run in runs.items()}, zero_shot=zero))
    return Figure(plot, "Training loss and validation mIoU by step")


def place_of(found: Analysis) -> str:
    """Describe the scored images: "40 images of the val split of set"."""
    some = "" if found.images == found.available else f" of {found.available}, spread evenly,"
    return f"{counted(found.images, 'image')}{some} of the {found.split} split of {Path(found.data).name}"


def setting(value: Any) -> str:
    """Return the value of a setting as text."""
    if value is None:
        return "not set"
    if isinstance(value, dict):
        return ", ".join(f"{key} = {setting(item)}" for key, item in value.items()) or "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def counted(number: int, what: str) -> str:
    """Return a number with its noun: "1 image", "1,200 images"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Return a duration as text, in a suitable unit."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
