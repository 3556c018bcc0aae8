"""Scores of masks that were found without prompts: matches of objects, and the class of every pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from simmat.data.instances import Instance
from simmat.types import BoolArray, FloatArray

THRESHOLDS = tuple(float(value) for value in np.linspace(0.5, 0.95, 10))
"""IoU thresholds of COCO's average precision."""

Ious = npt.NDArray[np.float64]
"""(F, T) IoU of found and true objects, in double precision: an IoU of 3/5 then reaches a threshold of 0.6."""


def ious(found: Sequence[Instance], true: Sequence[Instance], ignore: BoolArray) -> Ious:
    """Return (F, T) IoU of found and true objects of one image over the pixels that are not ignored."""
    table = np.zeros((len(found), len(true)), np.float64)
    areas = [_counted(region, ignore) for region in true]
    for row, region in enumerate(found):
        own = _counted(region, ignore)
        y0, x0, y1, x1 = region.box
        for column, other in enumerate(true):
            a0, b0, a1, b1 = other.box
            box = max(y0, a0), max(x0, b0), min(y1, a1), min(x1, b1)
            if box[0] >= box[2] or box[1] >= box[3]:
                continue
            both = region.within(box) & other.within(box) & ~ignore[box[0] : box[2], box[1] : box[3]]
            shared = int(np.count_nonzero(both))
            table[row, column] = shared / max(own + areas[column] - shared, 1)
    return table


def _counted(region: Instance, ignore: BoolArray) -> int:
    y0, x0, y1, x1 = region.box
    return int(np.count_nonzero(region.crop & ~ignore[y0:y1, x0:x1]))


@dataclass(frozen=True)
class ImageMatches:
    """The objects found in one image beside the true ones.

    Attributes:
        scores: (F,) of the found ones.
        found_classes: (F,) classes; all 0 where classes do not count.
        true_classes: (T,).
        iou: (F, T).
    """

    scores: FloatArray
    found_classes: npt.NDArray[np.int64]
    true_classes: npt.NDArray[np.int64]
    iou: Ious


def greedy_matches(iou: Ious, scores: FloatArray, threshold: float) -> npt.NDArray[np.int64]:
    """Match found objects by falling score, each with the free true one of largest IoU: (F,), -1 without a match."""
    matched = np.full(len(scores), -1, np.int64)
    free = np.ones(iou.shape[1], np.bool_)
    for row in np.argsort(-scores, kind="stable"):
        if not free.any():
            break
        best = int(np.argmax(np.where(free, iou[row], -1.0)))
        if iou[row, best] >= threshold:
            matched[row], free[best] = best, False
    return matched


def average_precision(images: Sequence[ImageMatches], threshold: float) -> float | None:
    """Return COCO's average precision at one IoU threshold, the mean over classes; None where no object is true.

    101 recall points, as in pycocotools.
    """
    classes = sorted({int(value) for image in images for value in image.true_classes})
    values = [_precision_of(images, threshold, value) for value in classes]
    return float(np.mean(values)) if values else None


def _precision_of(images: Sequence[ImageMatches], threshold: float, value: int) -> float:
    scores, hits, total = [], [], 0
    for image in images:
        rows, columns = image.found_classes == value, image.true_classes == value
        total += int(columns.sum())
        part = image.scores[rows]
        scores.append(part)
        hits.append(greedy_matches(image.iou[rows][:, columns], part, threshold) >= 0)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    hit = np.concatenate(hits)[order]
    recall = np.cumsum(hit) / total
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
    return float(np.mean([precision[place] if place < len(precision) else 0.0 for place in places]))


def panoptic_quality(images: Sequence[ImageMatches]) -> dict[str, float | None]:
    """Return PQ (Kirillov et al. 2019, arXiv 1801.00868), the mean over classes, and F1 at IoU 0.5."""
    classes = sorted({int(v) for image in images for v in (*image.true_classes, *image.found_classes)})
    quality, hits, count = [], 0, 0
    for value in classes:
        total, iou_sum, true_positives = 0, 0.0, 0
        for image in images:
            rows, columns = image.found_classes == value, image.true_classes == value
            table = image.iou[rows][:, columns]
            matched = greedy_matches(table, image.scores[rows], 0.5)
            total += int(rows.sum()) + int(columns.sum())
            true_positives += int((matched >= 0).sum())
            iou_sum += float(sum(table[row, column] for row, column in enumerate(matched) if column >= 0))
        quality.append(2 * iou_sum / total)
        hits, count = hits + true_positives, count + total
    return {
        "pq": float(np.mean(quality)) if quality else None,
        "f1": 2 * hits / count if count else None,
    }


def object_scores(images: Sequence[ImageMatches]) -> dict[str, float | None]:
    """Return AP, AP50, PQ and F1 at 0.5 of a data set."""
    every = [average_precision(images, threshold) for threshold in THRESHOLDS]
    known = [value for value in every if value is not None]
    return {"ap": float(np.mean(known)) if known else None, "ap50": every[0], **panoptic_quality(images)}


def class_scores(confusion: npt.NDArray[np.int64], values: Sequence[int]) -> dict[str, object]:
    """Return mIoU, IoU by class and pixel accuracy.

    Args:
        confusion: (K, K) pixels, true class by row, found class by column.
        values: label value of each class.
    """
    hit = np.diag(confusion).astype(np.float64)
    union = confusion.sum(0) + confusion.sum(1) - hit
    by_class: Mapping[int, float] = {
        value: float(hit[index] / union[index]) for index, value in enumerate(values) if union[index]
    }
    total = confusion.sum()
    return {
        "miou": float(np.mean(list(by_class.values()))) if by_class else None,
        "pixel_accuracy": float(hit.sum() / total) if total else None,
        "iou_by_class": by_class,
    }
