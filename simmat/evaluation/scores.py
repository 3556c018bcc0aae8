"""Scores: IoU and boundary IoU of one mask, means over many objects with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy import ndimage

from simmat.calibration import (
    Calibration,
    Kind,
    ScoredPredictions,
    confidence_summary,
    pairs_of,
)
from simmat.data.instances import Instance
from simmat.evaluation.unprompted import AutomaticScores, ious, scored_area
from simmat.types import BoolArray


def mean_interval(images: Iterable[Sequence[float]]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean over objects, by drawing images with replacement 2000 times.

    `images` are the values of each one's objects; None with fewer than two images.
    """
    kept = list(images)
    if len(kept) < 2:
        return None
    sums = np.array([sum(values) for values in kept], np.float64)
    counts = np.array([len(values) for values in kept], np.float64)
    rng = np.random.default_rng(0)
    means = np.empty(2000)
    for draw in range(len(means)):
        drawn = rng.integers(len(kept), size=len(kept))
        means[draw] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


BOUNDARY_RATIO = 0.02
"""Width of the boundary relative to the image's diagonal (Cheng et al. 2021, arXiv 2103.16562)."""


def mask_iou(mask: Instance | None, truth: Instance, scored: BoolArray) -> float:
    """Return the IoU of mask and truth over the scored (H, W) pixels, see `ious`; 0 of an empty mask (None)."""
    if mask is None:
        return 0.0
    return float(ious([mask], [truth], scored)[0, 0])


def area_ratio(mask: Instance | None, truth: Instance, scored: BoolArray) -> float:
    """Return the scored pixels of a mask per scored pixel of the truth; 0 of an empty mask (None)."""
    if mask is None:
        return 0.0
    return scored_area(mask, scored) / max(scored_area(truth, scored), 1)


def boundary_width(size_hw: tuple[int, int]) -> int:
    """Return d = round(0.02 · √(H² + W²)) pixels, at least 1."""
    return max(round(BOUNDARY_RATIO * float(np.hypot(*size_hw))), 1)


def boundary(region: Instance, width: int) -> Instance:
    """Return the pixels of a region within chessboard distance `width` of its outside, in the same box.

    That is the region less its erosion by `width` steps of a 3×3 square; pixels beyond the image are outside.
    """
    inside = ndimage.minimum_filter(
        region.crop, 2 * width + 1, mode="constant", cval=False
    )
    return Instance(region.class_id, region.window, region.crop & ~inside)


def boundary_iou(
    prediction: Instance | None,
    truth: Instance,
    scored: BoolArray,
    width: int | None = None,
) -> float | None:
    """Return the boundary IoU of Cheng et al. 2021: |G_d ∩ P_d| / |G_d ∪ P_d|.

    G_d and P_d are the pixels of truth and prediction within d = `width` of their own contour, see `boundary`; pixels
    that are not scored are left out afterwards. The result is None if no pixel of the truth's boundary is scored.

    Args:
        prediction: the mask; None if it is empty.
        truth: the true object.
        scored: (H, W) bool, the pixels that count.
        width: d; by default `boundary_width` of (H, W).
    """
    if width is None:
        width = boundary_width((scored.shape[0], scored.shape[1]))
    true_band = boundary(truth, width)
    if not scored_area(true_band, scored):
        return None
    if prediction is None:
        return 0.0
    return mask_iou(boundary(prediction, width), true_band, scored)


SIZES: Mapping[str, tuple[int, float]] = MappingProxyType(
    {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, float("inf"))}
)
"""COCO's size bins: name -> (low, high) with low <= pixels of the original image < high."""

NOC_TARGETS = (0.85, 0.9)
"""The IoUs for which the number of clicks (NoC) is counted."""


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """The score of one object; figures that the protocol leaves out are None or empty.

    Attributes:
        sample: id of the sample.
        region: index of the region within the sample.
        class_id: class of the region, if the data set has classes.
        area: pixels of the region in the original image.
        click_xy: the first click, in pixels of the original image.
        iou: IoU of the single mask after that click.
        iou_best_predicted: IoU of the alternative mask with the highest predicted IoU.
        iou_oracle: IoU of the best alternative mask.
        predicted_iou: the model's prediction of `iou`, before calibration.
        metrics: name -> figure of the single mask after the first click, of each registered metric of masks.
        clicks: IoU of the single mask after 1, 2, 3 … clicks.
        box: IoU of the single mask from the tight box.
        jittered_boxes: the same from jittered boxes, one per draw.
        random_clicks: IoU of the single mask from one click anywhere on the object, one per draw.
        area_ratio: scored pixels of the single mask after the first click, per scored pixel of the region.
        predicted_box: the model's prediction of `box`, before calibration.
    """

    sample: str
    region: int
    class_id: int | None
    area: int
    click_xy: tuple[float, float]
    iou: float
    iou_best_predicted: float | None
    iou_oracle: float | None
    predicted_iou: float
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    clicks: tuple[float, ...] = ()
    box: float | None = None
    jittered_boxes: tuple[float, ...] = ()
    random_clicks: tuple[float, ...] = ()
    area_ratio: float | None = None
    predicted_box: float | None = None


def as_row(score: ObjectScore) -> dict[str, Any]:
    """Return a score as a row of a table, in which each metric is a column."""
    row: dict[str, Any] = {}
    for column in fields(score):
        value = getattr(score, column.name)
        if column.name == "metrics":
            row.update(value)
        else:
            row[column.name] = value
    return row


@dataclass(frozen=True, slots=True)
class SeenImages:
    """The images of a split that a bundle was trained on, or that chose its step, by id.

    Attributes:
        trained: scored although the bundle was trained on them, because the train split was asked for.
        validated: scored although they chose the bundle's step.
        left_out: not scored, because the bundle knows them.
        total: number of images of the split.
    """

    trained: tuple[str, ...]
    validated: tuple[str, ...]
    left_out: tuple[str, ...]
    total: int


def seen_note(seen: SeenImages | None) -> str:
    """Return a note for the scores; "" if the bundle saw none of the images."""
    if seen is None:
        return "The bundle does not say which images it was trained on, so these may be among them."
    notes = {
        "are left out: the bundle was trained on them, or they chose its step.": seen.left_out,
        "were used to train the bundle: no score of new images.": seen.trained,
        "chose the step of the bundle: the score is a little too good.": seen.validated,
    }
    sentences = []
    for text, ids in notes.items():
        if ids:
            sentences.append(f"{len(ids)} of {seen.total} images {text}")
    return " ".join(sentences)


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one split.

    Attributes:
        objects: one score per object, in the order of the data set.
        without_region: ids of samples without a region, which are not scored.
        left_out: (sample, region) of objects too small to have a pixel where masks are compared.
        seconds: "encode" -> those of each image; "decode" -> those per prompt of each decoding; "everything" and
            "semantic" -> those of each image to find objects and classes, without encoding it.
        unprompted: scores of masks without prompts; None if they were not asked for.
        seen: which of the images the bundle knows; None if it does not state this.
        calibration: that of the bundle; only "confidence" in `summary` uses it.
    """

    objects: tuple[ObjectScore, ...]
    without_region: tuple[str, ...] = ()
    left_out: tuple[tuple[str, int], ...] = ()
    seconds: Mapping[str, tuple[float, ...]] = field(
        default_factory=dict, compare=False
    )
    class_names: Mapping[int, str] = field(default_factory=dict, compare=False)
    unprompted: AutomaticScores | None = field(default=None, compare=False)
    seen: SeenImages | None = field(default=None, compare=False)
    calibration: Calibration | None = field(default=None, compare=False)

    def by_sample(self) -> dict[str, list[float]]:
        """Return the IoU of each object's single mask, by sample."""
        return _grouped(self.objects, lambda score: score.sample)

    def confidence(self) -> dict[Kind, ScoredPredictions]:
        """Return the network's scores with the truth, for each kind of score that was measured."""
        clicks: list[tuple[Any, ...]] = []
        boxes: list[tuple[Any, ...]] = []
        for score in self.objects:
            clicks.append((score.sample, score.predicted_iou, score.iou))
            if score.predicted_box is not None and score.box is not None:
                boxes.append((score.sample, score.predicted_box, score.box))
        rows: dict[Kind, list[tuple[Any, ...]]] = {"click": clicks, "box": boxes}
        if self.unprompted is not None:
            rows |= self.unprompted.confidence()
        return pairs_of(rows)

    def summary(self) -> dict[str, Any]:
        """Return the means over objects, over images and over classes (of the means of their objects), and by size.

        What the protocol leaves out is missing or None. `miou_object_interval` is the `mean_interval` of the mean over
        objects. Masks without prompts have blocks of their own, see `AutomaticScores.summary`; "confidence" has one for
        each kind of score, see `confidence_summary`.
        """
        by_class = _grouped(self.objects, lambda score: score.class_id)
        known = {key: fmean(ious) for key, ious in by_class.items() if key is not None}
        by_size: dict[str, dict[str, Any]] = {}
        for name, (low, high) in SIZES.items():
            objects = [score for score in self.objects if low <= score.area < high]
            by_size[name] = {"objects": len(objects)}
            if objects:
                by_size[name] |= _figures(objects)
        unprompted = {} if self.unprompted is None else self.unprompted.summary()
        return {
            "objects": len(self.objects),
            "images": len({score.sample for score in self.objects}),
            "left_out": len(self.left_out),
            **_figures(self.objects),
            "miou_object_interval": mean_interval(self.by_sample().values()),
            "miou_image": fmean(fmean(ious) for ious in self.by_sample().values()),
            "miou_class": fmean(known.values()) if known else None,
            "iou_by_class": {str(key): value for key, value in sorted(known.items())},
            "by_size": by_size,
            **unprompted,
            "confidence": confidence_summary(self.confidence(), self.calibration),
        }


def merge_scores(parts: Sequence[Scores]) -> Scores:
    """Join the scores of parts of a split in the order of the parts."""
    objects: list[ObjectScore] = []
    without_region: list[str] = []
    left_out: list[tuple[str, int]] = []
    seconds: dict[str, list[float]] = {
        "encode": [],
        "decode": [],
        "everything": [],
        "semantic": [],
    }
    unprompted: list[AutomaticScores] = []
    for part in parts:
        objects += part.objects
        without_region += part.without_region
        left_out += part.left_out
        for name, times in part.seconds.items():
            seconds[name] += times
        if part.unprompted is not None:
            unprompted.append(part.unprompted)
    return Scores(
        tuple(objects),
        tuple(without_region),
        tuple(left_out),
        {name: tuple(times) for name, times in seconds.items()},
        unprompted=AutomaticScores.merge(unprompted) if unprompted else None,
    )


def _figures(objects: Sequence[ObjectScore]) -> dict[str, Any]:
    """Return the means over some objects, at least one."""
    figures: dict[str, Any] = {
        "miou_object": fmean(score.iou for score in objects),
        "miou_best_predicted": _mean(score.iou_best_predicted for score in objects),
        "miou_oracle": _mean(score.iou_oracle for score in objects),
    }
    for name in objects[0].metrics:
        figures[name] = _mean(score.metrics.get(name) for score in objects)
    if objects[0].clicks:
        curves = [score.clicks for score in objects]
        clicks: dict[str, Any] = {
            "miou": [fmean(ious) for ious in zip(*curves, strict=True)]
        }
        for target in NOC_TARGETS:
            clicks[f"noc{target * 100:.0f}"] = _noc(curves, target)
        figures["clicks"] = clicks
    if objects[0].jittered_boxes:
        draws = _over_draws([score.jittered_boxes for score in objects])
        figures["box"] = {
            "tight": _mean(score.box for score in objects),
            "jittered": draws,
        }
    if objects[0].random_clicks:
        figures["random_click"] = _over_draws(
            [score.random_clicks for score in objects]
        )
    return figures


def _noc(curves: Sequence[Sequence[float]], target: float) -> dict[str, Any]:
    """Return the mean number of clicks to reach a target; an object that fails counts with the largest number."""
    most = len(curves[0])
    counts = []
    failures = 0
    for curve in curves:
        reached = [number for number, iou in enumerate(curve, start=1) if iou >= target]
        if reached:
            counts.append(reached[0])
        else:
            counts.append(most)
            failures += 1
    return {"mean": fmean(counts), "failures": failures, "most_clicks": most}


def _over_draws(ious: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return the mean over objects and draws, and two standard deviations (n - 1); None of one draw.

    `std` is that of the mIoU over draws: how much the score of the data set varies. `object_std` is the mean over
    objects of the deviation over draws: how much the position of the prompt matters.
    """
    by_draw = [fmean(draw) for draw in zip(*ious, strict=True)]
    several = len(by_draw) > 1
    return {
        "mean": fmean(by_draw),
        "std": stdev(by_draw) if several else None,
        "object_std": fmean(stdev(draws) for draws in ious) if several else None,
        "repeats": len(by_draw),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if known:
        return fmean(known)
    return None


def _grouped(
    objects: Iterable[ObjectScore], key: Callable[[ObjectScore], Any]
) -> dict[Any, list[float]]:
    groups: dict[Any, list[float]] = {}
    for score in objects:
        groups.setdefault(key(score), []).append(score.iou)
    return groups
