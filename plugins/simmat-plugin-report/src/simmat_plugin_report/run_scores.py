"""Blocks of a page: scores of objects, their differences, and those by size and by class."""

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
from simmat_plugin_report.page import Block, Figure, Table, Text
from simmat_plugin_report.plots import BINS, calibration_figure, curves_figure, figure_bytes

MAX_IMAGES = 200
"""Images in a table, the worst ones."""
_WRONG = 0.75
"""IoU below which the mask of a click is called wrong."""


def score_blocks(found: Analysis, *, chosen: bool) -> Iterator[Block]:
    """Yield the mean scores, with those of the untuned model beside them."""
    zero = found.zero_shot or ()
    objects = common(found.scores, zero) if zero else found.scores
    tuned, untuned = figures(objects), figures(zero)
    head = ("one click per object", *(["zero-shot"] if zero else []), "tuned")
    rows = [
        (title, *([untuned[title]] if zero else []), value)
        for title, value in tuned.items()
        if {value, untuned.get(title, NONE)} != {NONE}
    ]
    yield Table(head, rows, 1, {(0, len(head) - 1)} if not zero or miou(objects) >= miou(zero) else {(0, 1)})
    if len(objects) == len(found.scores):
        said = f"{counted(len(objects), 'object')} in {place_of(found)}."
    else:
        images = counted(len({score.sample for score in objects}), "image")
        said = f"{counted(len(objects), 'object')} in {images}, on which the untuned model was scored; on all "
        said += (
            f"{counted(len(found.scores), 'object')} in {place_of(found)} the tuned one has {miou(found.scores):.3f}."
        )
    if zero:
        said += f" Tuned minus zero-shot, object by object: {signed(difference(objects, zero))} (95 % interval)."
    if found.no_zero_shot:
        said += f" There is no zero-shot score: {found.no_zero_shot}."
    yield Text(said + " Intervals: whole images are drawn with replacement.", faint=True)
    if found.seen:
        yield Text(found.seen)
    elif chosen:
        yield Text(
            "These images also chose the step, so the score is a little optimistic. A split that was not used says "
            "more: simmat report RUN --data DIR.",
            faint=True,
        )
    yield from _scores_without_clicks(found)


def _scores_without_clicks(found: Analysis) -> Iterator[Block]:
    tuned = {title: value for title, _, value in unprompted_figures(found.unprompted)}
    if tuned:
        yield Table(("without clicks", "tuned"), list(tuned.items()), 1)


def image_blocks(found: Analysis) -> Iterator[Block]:
    """Yield a table of all images, worst first, with what is wrong in each."""
    scores: dict[str, list[ObjectScore]] = {}
    for score in found.scores:
        scores.setdefault(score.sample, []).append(score)
    names = sorted({**scores, **found.mistakes}, key=lambda name: _quality(scores.get(name), found.mistakes.get(name)))
    without = ("without clicks",) if found.mistakes else ()
    rows = [
        (
            name,
            _after_click(scores.get(name, ())),
            *((mistakes_text(found.mistakes.get(name)),) if without else ()),
            str(len(scores.get(name, ()))),
            f"{miou(scores[name]):.3f}" if name in scores else NONE,
        )
        for name in names[:MAX_IMAGES]
    ]
    yield Table(("image", "after one click", *without, "objects", "mean IoU"), rows, 2 + len(without), tall=True)
    said = f"The worst {MAX_IMAGES} of {len(names):,} images. " if len(names) > MAX_IMAGES else ""
    said += f"A mask with an IoU below {_WRONG:g} is too large or too small if its area differs by a quarter or more"
    said += "; without clicks an object counts as found from an IoU of 0.5 on." if without else "."
    yield Text(said, faint=True)


def _quality(scores: Sequence[ObjectScore] | None, mistakes: Mapping[str, int] | None) -> float:
    """Return the mean of the mean IoU and of the F1 with classes of an image, as far as it has them; else 1."""
    found = [miou(scores)] if scores else []
    if mistakes is not None and (mistakes["objects"] or mistakes["extra"]):
        hits = mistakes["objects"] - mistakes["missed"]
        found.append(2 * (hits - mistakes["wrong_class"]) / (2 * hits + mistakes["missed"] + mistakes["extra"]))
    return fmean(found) if found else 1.0


def _after_click(scores: Sequence[ObjectScore]) -> str:
    """Return how many masks are wrong, and how: "2 too large, 1 too small"; "" if none is."""
    counts: Counter[str] = Counter()
    for score in scores:
        ratio = 1.0 if score.area_ratio is None else score.area_ratio
        if score.iou < _WRONG:
            counts["too large" if ratio >= 1.25 else "too small" if ratio <= 0.75 else "inexact"] += 1
    return ", ".join(f"{count} {what}" if len(scores) > 1 else what for what, count in counts.most_common())


def mistakes_text(one: Mapping[str, int] | None) -> str:
    """Return what is wrong with the objects found without clicks: "1 missed, 2 extra"; "" if nothing is."""
    if one is None:
        return NONE
    counts = {"missed": one["missed"], "extra": one["extra"], "of a wrong class": one["wrong_class"]}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def group_blocks(found: Analysis) -> Iterator[Block]:
    """Yield the scores by size and class."""
    zero = found.zero_shot or ()
    objects = common(found.scores, zero) if zero else found.scores
    tables: dict[str, list[tuple[str, ...]]] = {}
    for what, name, (own, base) in groups_of([objects, zero], found.class_names):
        if own:
            both_of = [f"{miou(base):.3f}"] if zero else []
            change = [signed(difference(own, base)).replace(" [", "\n[")] if zero else []
            tables.setdefault(what, []).append((name, str(len(own)), *both_of, f"{miou(own):.3f}", *change))
    middle = ("zero-shot", "tuned", "difference") if zero else ("tuned",)
    for what, rows in tables.items():
        yield Table((what, "objects", *middle), rows, 1)
    counts = class_counts([objects])
    if len(counts) > (shown_count := len(most_frequent(counts))):
        yield Text(f"The {shown_count} most frequent of {len(counts)} classes.", faint=True)


Objects = Sequence[ObjectScore]
Change = tuple[float, tuple[float, float] | None]
"""A mean difference of IoU, and its 95 % interval over images; None for a single image."""
Group = tuple[str, str, list[list[ObjectScore]]]
"""What divides objects ("size", "class"), the name of a part, and the objects of each model in it."""

NONE = "–"
MAX_CLASSES = 40
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
    """Return the `MAX_CLASSES` most frequent classes."""
    return sorted(counts, key=lambda value: -counts[value])[:MAX_CLASSES]


def curves(runs: Mapping[str, RunView]) -> Figure:
    """Draw the curves of runs, with the zero-shot scores of their validation splits."""
    zero = [
        miou(found.zero_shot)
        for run in runs.values()
        for found in (run.trained, *run.analyses)
        if found
        and found.zero_shot
        and run.is_own(found)
        and len(common(found.scores, found.zero_shot)) == len(found.scores)
    ]
    logs = {name: run.records for name, run in runs.items()}
    plot = figure_bytes(curves_figure(logs, zero_shot=zero), "png")
    return Figure(plot, "Training loss and validation mIoU by step")


def calibration(models: Mapping[str, Objects]) -> Iterator[Block]:
    """Yield the calibration plot, true IoU by predicted IoU, and its summary."""
    points = {
        name: (np.asarray([s.predicted_iou for s in scores]), np.asarray([s.iou for s in scores]))
        for name, scores in models.items()
        if scores
    }
    if not points:
        return
    yield Figure(
        figure_bytes(calibration_figure(points), "png"),
        f"True IoU by predicted IoU, in {BINS} bins",
        "On the dashed line the predicted IoU is correct; above it, masks are better than predicted. Larger dots are "
        "more objects.",
    )
    for name, (predicted, true) in points.items():
        bias = float(np.mean(predicted - true))
        way = "too high" if bias > 0 else "too low"
        start = f"{name}: the" if len(points) > 1 else "The"
        yield Text(f"{start} predicted IoU is {abs(bias):.3f} {way} on average.", faint=True)


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
