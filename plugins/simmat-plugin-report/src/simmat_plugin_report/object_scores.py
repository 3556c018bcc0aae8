"""Metrics of scored objects: means, differences, groups by size and by class."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from simmat.data.card import class_title
from simmat.evaluation import SIZES, ObjectScore, Scores, mean_interval

Objects = Sequence[ObjectScore]
Change = tuple[float, tuple[float, float] | None]
"""A mean difference of IoU, and its 95 % interval over images; None for a single image."""
Group = tuple[str, str, list[list[ObjectScore]]]
"""What divides objects ("size", "class"), the name of a part, and the objects of each model in it."""

NONE = "–"
MOST_CLASSES = 40
"""Classes in a table, the most frequent ones."""


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
    for score in objects:
        if (score.sample, score.region) in before:
            images.setdefault(score.sample, []).append(score.iou - before[score.sample, score.region])
    if not images:
        return None
    return fmean(value for image in images.values() for value in image), mean_interval(images.values())


def signed(change: Change | None) -> str:
    """Return a difference as text: "+0.012 [+0.001, +0.023]"."""
    if change is None:
        return NONE
    interval = "" if change[1] is None else " [{:+.3f}, {:+.3f}]".format(*change[1])
    return f"{change[0]:+.3f}{interval}"


def figures(objects: Objects) -> dict[str, str]:
    """Return title -> metric of objects; "–" for a metric that their protocol does not have."""
    if not objects:
        return {}
    summary = Scores(tuple(objects)).summary()
    titles = {
        "miou_object": "mean IoU over objects",
        "miou_object_interval": "95 % interval",
        "miou_image": "mean over images",
        "miou_class": "mean over classes",
        "boundary_iou": "boundary IoU",
        "miou_best_predicted": "best alternative, by predicted IoU",
        "miou_oracle": "best alternative, by true IoU",
    }
    found = {title: shown(summary[key]) for key, title in titles.items()}
    for least in (0.5, 0.75, 0.9):
        found[f"objects with IoU {least:g} or more"] = f"{np.mean([score.iou >= least for score in objects]):.0%}"
    return found


def shown(value: Any) -> str:
    """Return a metric or an interval as text."""
    if value is None:
        return NONE
    return "{:.3f} to {:.3f}".format(*value) if isinstance(value, tuple) else f"{value:.3f}"


UNPROMPTED = (
    (("everything", "ap"), "every object: AP, IoU 0.5 to 0.95", "AP"),
    (("everything", "ap50"), "every object: AP50", "AP50"),
    (("everything", "pq"), "every object: PQ", "PQ"),
    (("everything", "f1"), "every object: F1 at IoU 0.5", ""),
    (("everything", "any_class", "ap"), "every object, whatever its class: AP, IoU 0.5 to 0.95", ""),
    (("everything", "any_class", "pq"), "every object, whatever its class: PQ", ""),
    (("semantic", "miou"), "class map: mIoU", "class mIoU"),
    (("semantic", "pixel_accuracy"), "class map: pixel accuracy", ""),
)
"""Keys of a figure in `Scores.summary`, its title, and its short title where runs are compared."""


def unprompted_figures(blocks: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return title, short title and value of each metric without prompts."""
    found = []
    for keys, title, short in UNPROMPTED:
        value: Any = blocks
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, float):
            found.append((title, short, shown(value)))
    return found


def groups_of(models: Sequence[Objects], names: Mapping[int, str]) -> Iterator[Group]:
    """Yield the objects of each model by size, then by class where there are several, the most frequent classes."""
    for name, (low, high) in SIZES.items():
        limit = f"from {math.isqrt(low)}² px" if high == math.inf else f"below {math.isqrt(int(high))}² px"
        parts = [[score for score in objects if low <= score.area < high] for objects in models]
        if any(parts):
            yield "size", f"{name} ({limit})", parts
    counts = class_counts(models)
    for value in sorted(most_frequent(counts)) if len(counts) > 1 else ():
        parts = [[score for score in objects if score.class_id == value] for objects in models]
        yield "class", class_title(value, names), parts


def class_counts(models: Iterable[Objects]) -> Counter[int]:
    """Return the number of objects of each class over all models."""
    return Counter(score.class_id for objects in models for score in objects if score.class_id is not None)


def most_frequent(counts: Mapping[int, int]) -> list[int]:
    """Return the `MOST_CLASSES` most frequent classes."""
    return sorted(counts, key=lambda value: -counts[value])[:MOST_CLASSES]
