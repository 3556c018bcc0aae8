"""Weigh the evidence of label errors by errors that are planted in copies of the same labels.

How much a found object, a class or a border says depends on the model and on the images. So some labels are damaged on
purpose, in memory, and a logistic regression of each kind learns how their evidence differs from that of the labels as
they are. Its odds are the share of errors among suspicions with such evidence, if one label in twenty is wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from simmat.data.instances import Annotation, Instance, region_from_mask
from simmat.types import Window
from simmat_plugin_report.second_opinion import Opinion
from simmat_plugin_report.suspicions import (
    KINDS,
    Kind,
    Suspicion,
    class_means,
    labelled_pixels,
    merged_objects,
    missed_object,
    overlapping,
    shifted_border,
    suspicions_in,
    wrong_class,
)

Floats = npt.NDArray[np.float64]

RATE = 0.05
"""Share of the labels that is taken to be wrong in each way."""
PLANTED_IN_IMAGE = 20
"""Most labels of an image in which an error of each kind is planted."""
SHIFT = (0.2, 0.5)
"""Least and most shift of a planted border, as a share of the square root of the area."""
LEAST = 0.1
"""Lowest score of a suspicion that is listed: twice the share that is taken to be wrong."""
GAP = 1.0
"""Largest gap between two objects that are joined, as a share of the square root of the larger area."""
_RIDGE = 1.0
_NEWTON_STEPS = 30


@dataclass(frozen=True, eq=False)
class Ranked:
    """A suspicion with its score.

    Attributes:
        image: number of the image.
        score: share of errors among suspicions with such evidence, if one label in twenty is wrong; 0 to 1.
    """

    image: int
    suspicion: Suspicion
    score: float


@dataclass(eq=False)
class LabelCheck:
    """Collects what is suspected image by image, and ranks it. Of an image it keeps no more than the objects.

    Attributes:
        rng: chooses the labels in which errors are planted.
    """

    rng: np.random.Generator
    _found: list[tuple[int, Suspicion]] = field(default_factory=list)
    _planted: dict[Kind, list[tuple[float, ...]]] = field(default_factory=dict)
    _tries: Counter[Kind] = field(default_factory=Counter)
    _classes: list[tuple[int, int, Instance, Mapping[int, float]]] = field(
        default_factory=list
    )
    _images: int = 0
    _regions: int = 0

    def add(self, label: Annotation, opinion: Opinion) -> None:
        """Compare the labels of the next image with what a model sees that did not learn from it."""
        image = self._images
        self._images += 1
        self._regions += len(label.regions)
        for one in suspicions_in(label, opinion):
            self._found.append((image, one))
        for number, region in enumerate(label.regions):
            classes = opinion.classes[number]
            if classes is not None and region.class_id is not None:
                self._classes.append((image, number, region, classes))
        taken = labelled_pixels(label)
        drawn = self.rng.permutation(len(label.regions))[:PLANTED_IN_IMAGE]
        for number in drawn.tolist():
            self._plant("missed", as_missed(number, label, opinion, taken))
            self._plant("border", as_shifted(number, label, opinion, self.rng))
            self._plant("merged", as_merged(number, label, opinion))

    def ranked(self) -> list[Ranked]:
        """Return the suspicions of all images of at least `LEAST`, most suspected first, at most one of each region."""
        found = [*self._found, *self._of_classes()]
        scored: list[tuple[float, int, Suspicion]] = []
        for kind in KINDS:
            own = [(image, one) for image, one in found if one.kind == kind]
            planted = self._planted.get(kind, [])
            if not own or not planted:
                continue
            # what is planted counts as so many errors as there are labels to find them in
            weight = RATE * self._regions / self._tries[kind]
            logits = weigh([one.evidence for _, one in own], planted, weight)
            for (image, one), logit in zip(own, logits.tolist(), strict=True):
                scored.append((logit, image, one))
        scored.sort(key=lambda row: -row[0])
        seen: set[tuple[int, int]] = set()
        ranked = []
        for logit, image, one in scored:
            score = float(np.exp(min(logit, 0.0)))
            if score < LEAST:
                break
            if one.region is not None:
                if (image, one.region) in seen:
                    continue
                seen.add((image, one.region))
            ranked.append(Ranked(image, one, score))
        return ranked

    def _of_classes(self) -> Iterator[tuple[int, Suspicion]]:
        """Yield regions suspected of a wrong class; plant a wrong class in each."""
        pairs = [(region.class_id, classes) for _, _, region, classes in self._classes]
        means = class_means(pairs)
        for image, number, region, classes in self._classes:
            for one in wrong_class(number, region, classes, means):
                yield image, one
            others = [value for value in means if value != region.class_id]
            if others:
                other = replace(region, class_id=int(self.rng.choice(others)))
                self._plant("class", wrong_class(number, other, classes, means))

    def _plant(self, kind: Kind, suspected: Suspected) -> None:
        """Keep the evidence of a planted error."""
        if suspected is None:
            return
        self._tries[kind] += 1
        evidence = self._planted.setdefault(kind, [])
        evidence += [one.evidence for one in suspected]


Suspected = Iterator[Suspicion] | None
"""What is suspected of a planted error; None if it cannot be planted."""


def as_missed(
    number: int, label: Annotation, opinion: Opinion, taken: npt.NDArray[np.bool_]
) -> Suspected:
    """Take the label of a region away, and suspect the object that the model finds there."""
    region = label.regions[number]
    near = overlapping(region, opinion.objects)
    if not near:
        return iter(())
    one, shared = max(near, key=lambda pair: pair[1])
    instance = one.instance
    every = np.count_nonzero(taken[instance.window.slices] & instance.crop)
    return missed_object(one, int(every) - shared, label, opinion)


def as_shifted(
    number: int, label: Annotation, opinion: Opinion, rng: np.random.Generator
) -> Suspected:
    """Shift a region into a random direction."""
    region = label.regions[number]
    distance = rng.uniform(*SHIFT) * region.area**0.5
    angle = rng.uniform(0, 2 * np.pi)
    dy, dx = round(distance * np.sin(angle)), round(distance * np.cos(angle))
    moved = _moved(region, dy, dx, label.size_hw)
    if moved is None or (dy, dx) == (0, 0):
        return None
    near = overlapping(moved, opinion.objects)
    return shifted_border(number, moved, near, opinion.objectness)


def as_merged(number: int, label: Annotation, opinion: Opinion) -> Suspected:
    """Join a region with its nearest neighbour."""
    region = label.regions[number]
    nearest = None
    least = np.inf
    for place, one in enumerate(label.regions):
        gap = _gap(region.window, one.window)
        largest = max(region.area, one.area) ** 0.5
        if place != number and gap <= GAP * largest and gap < least:
            nearest, least = one, gap
    if nearest is None:
        return None
    other = nearest
    box = region.window.enclosing(other.window)
    both = region.within(box) | other.within(box)
    joined = region_from_mask(both, region.class_id, box[:2])
    assert joined is not None
    return merged_objects(number, joined, overlapping(joined, opinion.objects))


def _moved(
    region: Instance, dy: int, dx: int, size_hw: tuple[int, int]
) -> Instance | None:
    """Return a shifted region, as far as it stays in the image; None if less than 80 % does."""
    window = region.window.moved(dy, dx)
    inside = window.intersection(Window(0, 0, *size_hw))
    if inside is None:
        return None
    crop = region.crop[inside.relative_to(window).slices]
    if np.count_nonzero(crop) < 0.8 * region.area:
        return None
    return Instance(region.class_id, inside, crop)


def _gap(one: Window, other: Window) -> float:
    """Return the distance of two windows in pixels; 0 if they touch."""
    dy = max(one.y0 - other.y1, other.y0 - one.y1, 0)
    dx = max(one.x0 - other.x1, other.x0 - one.x1, 0)
    return float(np.hypot(dy, dx))


def weigh(
    own: Sequence[tuple[float, ...]],
    planted: Sequence[tuple[float, ...]],
    weight: float,
) -> Floats:
    """Return the logit of each suspicion from a ridge logistic regression that tells planted errors from labels as are.

    Args:
        own: evidence of the N suspicions of labels as they are.
        planted: evidence of planted errors.
        weight: of each planted error beside a suspicion.
    """
    given = np.array(own, np.float64)
    features = np.concatenate([given, np.array(planted, np.float64)])
    center = features.mean(0)
    scale = np.maximum(features.std(0), 1e-6)
    features = (features - center) / scale
    features = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    truth = np.repeat([0.0, 1.0], [len(own), len(planted)])
    weights = np.repeat([1.0, weight], [len(own), len(planted)])
    ridge = np.full(features.shape[1], _RIDGE)
    ridge[-1] = 1e-3
    factors = np.zeros(features.shape[1])
    for _ in range(_NEWTON_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(features @ factors, -30, 30)))
        gradient = features.T @ (weights * (probability - truth)) + ridge * factors
        curvature = weights * probability * (1 - probability)
        hessian = (features.T * curvature) @ features + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        factors -= step
        if np.abs(step).max() < 1e-6:
            break
    logits: Floats = features[: len(own)] @ factors
    return logits
