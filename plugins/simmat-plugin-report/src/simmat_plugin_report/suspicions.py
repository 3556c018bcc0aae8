"""Find labels that contradict what a model sees which did not learn from their images.

Four things are suspected: an object that nobody labelled ("missed"), a label of another class ("class"), a label whose
border is beside that of the object ("border"), and two objects in one label ("merged"). Each suspicion comes with its
evidence, a few numbers that `planted_errors` weighs. The functions take labels and opinions, and run no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from simmat.data.instances import Annotation, FoundObject, Instance, number_map
from simmat.types import BoolArray, FloatArray
from simmat_plugin_report.second_opinion import Opinion

Kind = Literal["missed", "class", "border", "merged"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FREE = 0.5
"""Largest share of a found object that labels may cover where it is suspected to be missed."""
INSIDE = 0.6
"""Least share of a found object inside a label of which it is suspected to be a part."""
NEAR = 0.2
"""Least IoU of a label and the found object beside which its border may be."""
_TINY = 1e-3


@dataclass(frozen=True, eq=False)
class Suspicion:
    """A label that a model contradicts.

    Attributes:
        kind: what may be wrong.
        evidence: numbers that say how much the model contradicts, as many for each suspicion of a kind.
        region: number of the region in the label; None of a missed object.
        place: the pixels: the region, or the object that may be missed.
        suggested: what the model sees there instead; nothing for "class".
        suggested_class: label value of the class that the model sees; None without classes.
    """

    kind: Kind
    evidence: tuple[float, ...]
    region: int | None
    place: Instance
    suggested: tuple[Instance, ...] = ()
    suggested_class: int | None = None


ClassMeans = Mapping[int, float]
"""Class -> mean probability that the model gives it where it is the label's."""


def class_means(
    pairs: Iterable[tuple[int | None, Mapping[int, float]]],
) -> ClassMeans:
    """Return how sure the model is of each class where it is labelled, as in confident learning (arXiv 1911.00068).

    Args:
        pairs: (labelled class, probability of each class) of every region.
    """
    values: dict[int, list[float]] = {}
    for value, classes in pairs:
        if value is not None:
            values.setdefault(value, []).append(classes.get(value, 0.0))
    return {value: float(np.mean(own)) for value, own in values.items()}


def suspicions_in(label: Annotation, opinion: Opinion) -> Iterator[Suspicion]:
    """Yield what is suspected in one image but for classes; a region may be suspected of several things."""
    taken = labelled_pixels(label)
    for one in opinion.objects:
        shared = np.count_nonzero(taken[one.instance.window.slices] & one.instance.crop)
        yield from missed_object(one, int(shared), label, opinion)
    for number, region in enumerate(label.regions):
        near = overlapping(region, opinion.objects)
        yield from shifted_border(number, region, near, opinion.objectness)
        yield from merged_objects(number, region, near)


def labelled_pixels(label: Annotation) -> BoolArray:
    """Return (H, W) True where something is labelled, or there is no ground truth."""
    every = (*label.regions, *label.small)
    return (number_map(every, label.size_hw) > 0) | label.ignore


def overlapping(
    region: Instance, objects: Sequence[FoundObject]
) -> list[tuple[FoundObject, int]]:
    """Return the found objects that share pixels with a region, and how many."""
    found = []
    for one in objects:
        shared = shared_pixels(region, one.instance)
        if shared:
            found.append((one, shared))
    return found


def shared_pixels(one: Instance, other: Instance) -> int:
    """Return the number of pixels that two instances share."""
    box = one.window.intersection(other.window)
    if box is None:
        return 0
    return int(np.count_nonzero(one.within(box) & other.within(box)))


def missed_object(
    one: FoundObject, shared: int, label: Annotation, opinion: Opinion
) -> Iterator[Suspicion]:
    """Suspect a found object of which at most a part, `shared` pixels, is labelled."""
    area = one.instance.area
    covered = shared / max(area, 1)
    if covered > FREE or area < label.smallest:
        return
    inside = opinion.objectness[one.instance.window.slices][one.instance.crop]
    evidence = (
        one.score,
        covered,
        float(inside.mean()),
        float(np.log(area)),
        one.class_probability or 0.0,
    )
    yield Suspicion(
        "missed",
        evidence,
        None,
        one.instance,
        (one.instance,),
        one.instance.class_id,
    )


def wrong_class(
    number: int,
    region: Instance,
    classes: Mapping[int, float],
    means: ClassMeans,
) -> Iterator[Suspicion]:
    """Suspect a region where the model sees another class rather than the given one."""
    given = region.class_id
    if given is None:
        return
    relative = {}
    for value, probability in classes.items():
        relative[value] = (probability + _TINY) / (means.get(value, 1.0) + _TINY)
    best = max(relative, key=lambda value: relative[value])
    if best == given:
        return
    own = classes.get(given, 0.0)
    evidence = (
        float(np.log(own + _TINY)),
        float(np.log(classes[best] + _TINY)),
        float(np.log(relative[best] / relative.get(given, _TINY))),
    )
    yield Suspicion("class", evidence, number, region, (), best)


def shifted_border(
    number: int,
    region: Instance,
    near: Sequence[tuple[FoundObject, int]],
    objectness: FloatArray,
) -> Iterator[Suspicion]:
    """Suspect a region that is beside the object which the model finds there without prompts."""
    area = region.area
    best = None
    overlap = NEAR
    for one, shared in near:
        iou = shared / (area + one.instance.area - shared)
        if iou >= overlap:
            best, overlap = one, iou
    if best is None:
        return
    found = best.instance
    box = region.window.enclosing(found.window)
    mine, theirs = region.within(box), found.within(box)
    seen = objectness[box.slices]
    only_found = theirs & ~mine
    only_region = mine & ~theirs
    # what the label and the found object would have in common with an object as the class map sees it
    near_by = float(seen.sum())
    fit = float(seen[mine].sum()) / max(near_by + float((1 - seen[mine]).sum()), 1)
    evidence = (
        overlap,
        best.score,
        _mean(seen[only_found]) - _mean(seen[only_region]),
        fit,
        min(np.count_nonzero(only_found), np.count_nonzero(only_region)) / area,
        float(np.log(area)),
    )
    yield Suspicion("border", evidence, number, region, (found,))


def merged_objects(
    number: int, region: Instance, near: Sequence[tuple[FoundObject, int]]
) -> Iterator[Suspicion]:
    """Suspect a region that holds two or more found objects."""
    parts = []
    for one, shared in near:
        if shared >= INSIDE * one.instance.area:
            parts.append(one)
    kept = _apart(parts)
    if len(kept) < 2:
        return
    area = region.area
    covers = []
    for one in kept:
        covers.append(shared_pixels(region, one.instance) / area)
    whole = 0.0
    for one, shared in near:
        whole = max(whole, shared / (area + one.instance.area - shared))
    second = sorted(covers)[-2]
    evidence = (
        sorted(one.score for one in kept)[-2],
        min(sum(covers), 1.0),
        second,
        whole,
        float(np.log(area)),
    )
    yield Suspicion(
        "merged", evidence, number, region, tuple(one.instance for one in kept)
    )


def _apart(found: Sequence[FoundObject]) -> list[FoundObject]:
    """Return objects, best first, without those of which a better one has half of the pixels."""
    kept: list[FoundObject] = []
    for one in sorted(found, key=lambda one: -one.score):
        shared = [shared_pixels(one.instance, other.instance) for other in kept]
        if 2 * max(shared, default=0) < one.instance.area:
            kept.append(one)
    return kept


def _mean(values: FloatArray) -> float:
    """Return the mean probability of some pixels; half of none."""
    if not values.size:
        return 0.5
    return float(values.mean())
