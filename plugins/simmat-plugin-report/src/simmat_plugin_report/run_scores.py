"""The blocks of a run that show its scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean

from simmat.evaluation import Mistakes, ObjectScore
from simmat_plugin_report.blocks import counted, place_of
from simmat_plugin_report.documents import Analysis
from simmat_plugin_report.object_scores import (
    NONE,
    class_counts,
    common,
    difference,
    figures,
    groups_of,
    miou,
    most_frequent,
    signed,
    unprompted_figures,
)
from simmat_plugin_report.page import Block, Table, Text

MOST_IMAGES = 200
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
        for name in names[:MOST_IMAGES]
    ]
    yield Table(("image", "after one click", *without, "objects", "mean IoU"), rows, 2 + len(without), tall=True)
    said = f"The worst {MOST_IMAGES} of {len(names):,} images. " if len(names) > MOST_IMAGES else ""
    said += f"A mask with an IoU below {_WRONG:g} is too large or too small if its area differs by a quarter or more"
    said += "; without clicks an object counts as found from an IoU of 0.5 on." if without else "."
    yield Text(said, faint=True)


def _quality(scores: Sequence[ObjectScore] | None, mistakes: Mistakes | None) -> float:
    """Return the mean of the mean IoU and of the F1 with classes of an image, as far as it has them; else 1."""
    found = [miou(scores)] if scores else []
    if mistakes is not None and (mistakes.objects or mistakes.extra):
        hits = mistakes.objects - mistakes.missed
        found.append(2 * (hits - mistakes.wrong_class) / (2 * hits + mistakes.missed + mistakes.extra))
    return fmean(found) if found else 1.0


def _after_click(scores: Sequence[ObjectScore]) -> str:
    """Return how many masks are wrong, and how: "2 too large, 1 too small"; "" if none is."""
    counts: Counter[str] = Counter()
    for score in scores:
        ratio = 1.0 if score.area_ratio is None else score.area_ratio
        if score.iou < _WRONG:
            counts["too large" if ratio >= 1.25 else "too small" if ratio <= 0.75 else "inexact"] += 1
    return ", ".join(f"{count} {what}" if len(scores) > 1 else what for what, count in counts.most_common())


def mistakes_text(one: Mistakes | None) -> str:
    """Return what is wrong with the objects found without clicks: "1 missed, 2 extra"; "" if nothing is."""
    if one is None:
        return NONE
    counts = {"missed": one.missed, "extra": one.extra, "of a wrong class": one.wrong_class}
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
