"""The blocks of a run that show its scores."""

from __future__ import annotations

from collections.abc import Iterator

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
    if chosen:
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
