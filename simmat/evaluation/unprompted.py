"""Scores of masks without prompts: found objects beside the true ones, and the class of every pixel.

True objects below the data card's smallest size, and ignored pixels, are treated as COCO treats objects outside of an
area range and crowds: whether found or not, they are neither hits nor misses.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.calibration import RIGHT_IOU, Kind, binned
from simmat.data.instances import Annotation, FoundObject, Instance
from simmat.types import BoolArray, FloatArray

THRESHOLDS = tuple(float(value) for value in np.linspace(0.5, 0.95, 10))
"""IoU thresholds of COCO's average precision."""

Ious = npt.NDArray[np.float64]
"""(F, T) IoU of found and true objects."""


def ious(
    found: Sequence[Instance], true: Sequence[Instance], scored: BoolArray
) -> Ious:
    """Return (F, T) IoU of found and true objects of one image over the scored (H, W) pixels; 0 where both are empty.

    It is computed in 64 bits: in 32 bits 9 pixels of 10 are less than 0.9, which NoC@90 would miss.
    """
    table = np.zeros((len(found), len(true)), np.float64)
    areas = [scored_area(region, scored) for region in true]
    for row, region in enumerate(found):
        own = scored_area(region, scored)
        for column, other in enumerate(true):
            box = region.window.intersection(other.window)
            if box is None:
                continue
            both = region.within(box) & other.within(box) & scored[box.slices]
            shared = int(np.count_nonzero(both))
            table[row, column] = shared / max(own + areas[column] - shared, 1)
    return table


def scored_area(region: Instance, scored: BoolArray) -> int:
    """Return how many pixels of a region are among the scored (H, W) pixels."""
    return int(np.count_nonzero(region.crop & scored[region.window.slices]))


@dataclass(frozen=True, eq=False)
class ImageMatches:
    """The objects found in one image, and the true ones.

    Attributes:
        found_classes: (F,) classes; all 0 if classes do not count.
        hidden: (F,) share of a found object's pixels that are ignored; 1 for an object too small to count. Without a
            match, it is no false alarm if this reaches the threshold.
        uncounted: (T,) bool, true objects that are too small to count.
        class_probabilities: class -> probability, of each found object; None without classes.
    """

    scores: FloatArray
    found_classes: npt.NDArray[np.int64]
    true_classes: npt.NDArray[np.int64]
    iou: Ious
    hidden: npt.NDArray[np.float64]
    uncounted: BoolArray
    class_probabilities: Sequence[Mapping[int, float] | None] = ()

    @classmethod
    def of(cls, objects: Sequence[FoundObject], label: Annotation) -> ImageMatches:
        """Compare found objects with the truth; an object without a class is of class 1."""
        found = [one.instance for one in objects]
        true = [*label.regions, *label.small]
        scored = ~label.ignore
        hidden = []
        for region in found:
            visible = scored_area(region, scored)
            if visible < label.smallest:
                hidden.append(1.0)
            else:
                hidden.append(1 - visible / max(region.area, 1))
        uncounted = [scored_area(region, scored) == 0 for region in label.regions]
        uncounted += [True] * len(label.small)
        return cls(
            np.asarray([one.score for one in objects], np.float32),
            _classes(found),
            _classes(true),
            ious(found, true, scored),
            np.asarray(hidden, np.float64),
            np.asarray(uncounted, np.bool_),
            [one.class_probabilities for one in objects],
        )

    def of_class(self, value: int) -> ImageMatches:
        """Return the objects of one class alone."""
        rows = self.found_classes == value
        columns = self.true_classes == value
        return ImageMatches(
            self.scores[rows],
            self.found_classes[rows],
            self.true_classes[columns],
            self.iou[rows][:, columns],
            self.hidden[rows],
            self.uncounted[columns],
        )

    def without_classes(self) -> ImageMatches:
        """Return the same objects, all of class 1."""
        return replace(
            self,
            found_classes=np.ones_like(self.found_classes),
            true_classes=np.ones_like(self.true_classes),
        )

    def counted(self, threshold: float) -> tuple[npt.NDArray[np.int64], BoolArray]:
        """Match found objects by falling score, each with the free true one of largest IoU.

        An object that is not counted is matched only if no other one reaches the threshold.

        Returns:
            (F,) index of the true object, -1 without a match; and (F,) which found objects count.
        """
        matched = np.full(len(self.scores), -1, np.int64)
        free = np.ones(len(self.uncounted), np.bool_)
        for row in np.argsort(-self.scores, kind="stable"):
            for group in (free & ~self.uncounted, free & self.uncounted):
                if not group.any():
                    continue
                best = int(np.argmax(np.where(group, self.iou[row], -1.0)))
                if self.iou[row, best] >= threshold:
                    matched[row] = best
                    free[best] = False
                    break
        excused = self.hidden >= threshold
        if len(self.uncounted):
            excused = np.where(matched >= 0, self.uncounted[matched], excused)
        return matched, ~excused

    def confidence(self) -> tuple[list[tuple[float, float]], list[tuple[float, ...]]]:
        """Return rows of the found objects that count: (score, IoU), and (index of the true class, *probabilities).

        The IoU is the largest one with a true object of any class; a class counts if that is 0.5 or more. The index is
        that in the class probabilities; -1 for a class that the model does not know.
        """
        if not self.iou.size:
            return [
                (float(score), 0.0) for score in self.scores[self.hidden < RIGHT_IOU]
            ], []
        best = self.iou.max(1)
        column = self.iou.argmax(1)
        counts = np.where(
            best >= RIGHT_IOU, ~self.uncounted[column], self.hidden < RIGHT_IOU
        )
        objects = list(
            zip(self.scores[counts].tolist(), best[counts].tolist(), strict=True)
        )
        classes: list[tuple[float, ...]] = []
        for row, known in enumerate(self.class_probabilities):
            if known and counts[row] and best[row] >= RIGHT_IOU:
                true = int(self.true_classes[column[row]])
                index = list(known).index(true) if true in known else -1
                classes.append((index, *known.values()))
        return objects, classes

    def mistakes(self) -> dict[str, int]:
        """Count true objects, those missed, found ones that are none (extra), and found ones of a wrong class.

        The IoU is 0.5; an object of another class is neither missed nor extra.
        """
        matched, counts = self.without_classes().counted(0.5)
        hits = np.flatnonzero(counts & (matched >= 0))
        objects = int(np.count_nonzero(~self.uncounted))
        wrong = np.count_nonzero(
            self.found_classes[hits] != self.true_classes[matched[hits]]
        )
        extra = int(np.count_nonzero(counts)) - len(hits)
        return {
            "objects": objects,
            "missed": objects - len(hits),
            "extra": extra,
            "wrong_class": int(wrong),
        }


def _classes(regions: Sequence[Instance]) -> npt.NDArray[np.int64]:
    return np.asarray(
        [1 if region.class_id is None else region.class_id for region in regions],
        np.int64,
    )


def true_classes(images: Sequence[ImageMatches]) -> list[int]:
    """Return the classes of the true objects that count, in rising order."""
    classes: set[int] = set()
    for image in images:
        classes.update(image.true_classes[~image.uncounted].tolist())
    return sorted(classes)


def average_precision(images: Sequence[ImageMatches], threshold: float) -> float:
    """Return COCO's average precision of objects of one class, some of them true, at one IoU threshold.

    101 recall points, as in pycocotools, and no limit on the number of found objects.
    """
    scores = []
    hits = []
    total = 0
    for image in images:
        total += int(np.count_nonzero(~image.uncounted))
        matched, counts = image.counted(threshold)
        scores.append(image.scores[counts])
        hits.append(matched[counts] >= 0)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hit = np.concatenate(hits)[order]
    recall = np.cumsum(hit) / total
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    reached = places[places < len(precision)]
    at_recall = np.zeros(101)
    at_recall[: len(reached)] = precision[reached]
    return float(np.mean(at_recall))


def object_scores(images: Sequence[ImageMatches]) -> dict[str, float | None]:
    """Return AP, AP50, PQ (Kirillov et al. 2019, arXiv 1801.00868), and F1 at IoU 0.5; None without objects.

    AP, AP50 and PQ are means over classes, AP and AP50 over those of true objects.
    """
    known = true_classes(images)
    classes: set[int] = set()
    for image in images:
        classes.update(image.true_classes.tolist())
        classes.update(image.found_classes.tolist())
    precisions = []
    qualities = []
    hits = 0
    count = 0
    for value in sorted(classes):
        own = [image.of_class(value) for image in images]
        if value in known:
            precisions.append(
                [average_precision(own, threshold) for threshold in THRESHOLDS]
            )
        total = 0
        iou_sum = 0.0
        for image in own:
            matched, counts = image.counted(0.5)
            total += int(np.count_nonzero(counts)) + int(
                np.count_nonzero(~image.uncounted)
            )
            rows = np.flatnonzero(counts & (matched >= 0))
            hits += len(rows)
            iou_sum += float(image.iou[rows, matched[rows]].sum())
        if total:
            qualities.append(2 * iou_sum / total)
        count += total
    # by threshold
    ap = [float(np.mean(values)) for values in zip(*precisions, strict=True)]
    return {
        "ap": float(np.mean(ap)) if ap else None,
        "ap50": ap[0] if ap else None,
        "pq": float(np.mean(qualities)) if qualities else None,
        "f1": 2 * hits / count if count else None,
    }


PIXEL_BINS = 64
"""Bins of the probabilities of pixels, of which only counts are kept."""


def pixel_confidence(
    probability: FloatArray, right: BoolArray
) -> npt.NDArray[np.float64]:
    """Return (n, 3) mean probability, share of right pixels and their number, by bins of probability; NaN is 0."""
    # of weights that a training has ruined
    seen = np.nan_to_num(probability).astype(np.float64)
    return np.stack(
        binned(PIXEL_BINS, seen, right.astype(np.float64), np.ones(len(seen))), axis=1
    )


Confusion = Counter[tuple[int, int]]
"""(true, found) label value -> pixels."""


def class_scores(confusion: Confusion) -> dict[str, Any]:
    """Return mIoU, pixel accuracy and IoU by class; a class that is neither true nor found has none."""
    hits = Counter[int]()
    union = Counter[int]()
    total = confusion.total()
    for (true, found), pixels in confusion.items():
        hits[true] += pixels * (true == found)
        for value in {true, found}:
            union[value] += pixels
    by_class = {str(value): hits[value] / union[value] for value in sorted(union)}
    return {
        "miou": float(np.mean(list(by_class.values()))) if by_class else None,
        "pixel_accuracy": hits.total() / total if total else None,
        "iou_by_class": by_class,
    }


def count_confusion(
    true: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
    scored: BoolArray,
    *,
    classed: bool,
) -> Confusion:
    """Count pairs of label values over the scored pixels of (H, W) maps; without classes an object is 1."""
    true = true[scored]
    found = found[scored]
    if not classed:
        true = (true != 0).astype(np.int64)
        found = (found != 0).astype(np.int64)
    rows, row = np.unique(true, return_inverse=True)
    columns, column = np.unique(found, return_inverse=True)
    counts = np.bincount(
        row * len(columns) + column, minlength=len(rows) * len(columns)
    )
    confusion = Confusion()
    for pair, pixels in zip(
        itertools.product(rows.tolist(), columns.tolist()), counts.tolist(), strict=True
    ):
        if pixels:
            confusion[pair] = pixels
    return confusion


@dataclass(frozen=True, eq=False)
class AutomaticScores:
    """The scores of masks without prompts on one split, by sample in the order of the data set.

    Attributes:
        dense: True if the clicks that find objects are peaks of the dense head, False if they are a grid.
        classed: whether objects are matched by class.
        unknown: whether the data set has classes and the model knows none.
        matches: the objects found in each sample, and the true ones.
        confusions: pixels by true and found class, without ignored ones.
        pixels: `pixel_confidence` of the class map.
        metrics: block of the summary -> name -> figure of a registered metric, of all samples together.
    """

    dense: bool
    classed: bool
    unknown: bool
    matches: Mapping[str, ImageMatches] = field(default_factory=dict)
    confusions: Mapping[str, Confusion] = field(default_factory=dict)
    pixels: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @classmethod
    def merge(cls, parts: Sequence[AutomaticScores]) -> AutomaticScores:
        """Join the scores of parts of a split, at least one, in the order of the parts."""
        matches: dict[str, ImageMatches] = {}
        confusions: dict[str, Confusion] = {}
        pixels: dict[str, npt.NDArray[np.float64]] = {}
        for part in parts:
            matches.update(part.matches)
            confusions.update(part.confusions)
            pixels.update(part.pixels)
        return replace(parts[0], matches=matches, confusions=confusions, pixels=pixels)

    def confidence(self) -> dict[Kind, list[tuple[Any, ...]]]:
        """Return the scores of objects, their classes and pixels with the truth, as `pairs_of` takes them."""
        objects: list[tuple[Any, ...]] = []
        classes: list[tuple[Any, ...]] = []
        pixels: list[tuple[Any, ...]] = []
        for name, image in self.matches.items():
            of_objects, of_classes = image.confidence()
            objects += [(name, *row) for row in of_objects]
            if self.classed:
                classes += [(name, *row) for row in of_classes]
        for name, bins in self.pixels.items():
            pixels += [(name, *row) for row in bins.tolist()]
        return {"object": objects, "class_probability": classes, "pixel": pixels}

    def everything(self) -> dict[str, Any]:
        """Return AP, AP50, PQ and F1 of every object, also by class and without classes.

        If the data set has several classes and the model none, only `any_class` has figures.
        """
        images = list(self.matches.values())
        classes = true_classes(images)
        several = len(classes) > 1
        plain: dict[str, float | None] = {}
        if several or not self.classed:
            plain = object_scores([image.without_classes() for image in images])
        main = object_scores(images) if self.classed else plain
        if several and self.unknown:
            main = dict.fromkeys(main)
        block: dict[str, Any] = {
            "images": len(images),
            "objects": int(sum(np.count_nonzero(~image.uncounted) for image in images)),
            "left_out": int(sum(np.count_nonzero(image.uncounted) for image in images)),
            "found": sum(len(image.scores) for image in images),
            "missed": sum(image.mistakes()["missed"] for image in images),
            "clicks": "peaks of the dense head" if self.dense else "grid",
            **main,
        }
        if several:
            by_class = {}
            if self.classed:
                for value in classes:
                    by_class[str(value)] = object_scores(
                        [image.of_class(value) for image in images]
                    )
            block["any_class"] = plain
            block["by_class"] = by_class
        return block

    def mistakes(self) -> dict[str, dict[str, int]]:
        """Return the `ImageMatches.mistakes` of each image whose objects are scored, by sample."""
        mistakes = {}
        for name, matches in self.matches.items():
            if not self.classed:
                matches = matches.without_classes()
            mistakes[name] = matches.mistakes()
        return mistakes

    def summary(self) -> dict[str, Any]:
        """Return the blocks of what was scored; that of class maps comes from one confusion matrix."""
        blocks: dict[str, Any] = {}
        if self.matches:
            blocks["everything"] = {
                **self.everything(),
                **self.metrics.get("everything", {}),
            }
        if self.confusions:
            confusion = self.confusion()
            counts = {"images": len(self.confusions), "pixels": confusion.total()}
            blocks["semantic"] = {
                **counts,
                **class_scores(confusion),
                **self.metrics.get("semantic", {}),
            }
        return blocks

    def confusion(self) -> Confusion:
        """Return the pixels by true and found class of all samples."""
        return sum(self.confusions.values(), Confusion())
