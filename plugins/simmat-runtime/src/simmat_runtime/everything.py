"""Find every object of an image without prompts, as `simmat.predictor.objects` does, in numpy.

Clicks are the peaks of the dense head's distance map and a place in each part of its class map without a peak; or a
grid without a dense head. Of masks that cover the same object the best one is kept. A part of the class map that no
mask covers is an object, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from simmat_runtime.letterbox import (
    BoolArray,
    FloatArray,
    Letterbox,
    resized,
    sigmoid,
    softmax,
)
from simmat_runtime.manifest import Dense
from simmat_runtime.network import EncodedImage
from simmat_runtime.objects import FoundObject, Window

MAX_PROMPTS = 16
"""As in SimMAT: more take more memory and no less time, see docs/deploy.md."""
OBJECT = 0.5
"""Least probability of being an object for a pixel over which masks grow, and of connected parts of a class map."""
PART_SCORE = 0.5
"""Predicted IoU of an object that is a part of the class map, which no mask of a click covers."""
COVERED = 0.1
"""Share of a part of the class map: one that the masks of clicks cover by less is an object by itself."""


@dataclass(frozen=True)
class Settings:
    """Settings of the search for objects.

    Attributes:
        peak: smallest distance, 0..1, of a peak in the distance map.
        peak_window: side of the window, in pixels of the map, that can have one peak.
        grid: clicks along the longer side without a dense head; None sets one every 16 pixels of the input, at most 32.
        skip_covered: leave out clicks of the grid that lie in the mask of an earlier one; the first ones are far apart.
        alternatives: take all masks of a click of the grid, not its single mask alone: it may mean a part or the whole.
        grid_score: smallest predicted IoU of an object found by a click of the grid; a mask of less, but of `min_score`
            or more, only says where not to click again.
        overlap: IoU of two masks above which the one with the lower score is removed.
        min_score: smallest predicted IoU of a mask, before calibration.
        objectness: smallest probability of being an object, by the class map.
        min_area: smallest area of a mask in pixels of the image.
        max_growth_px: pixels of the input by which masks grow over uncovered pixels that are objects by the class map.
        max_clicks: largest number of clicks of a dense head, the highest peaks; None for no limit.
    """

    peak: float = 0.3
    peak_window: int = 5
    grid: int | None = None
    skip_covered: bool = True
    alternatives: bool = True
    grid_score: float = 0.6
    overlap: float = 0.5
    min_score: float = 0.5
    objectness: float = 0.5
    min_area: int = 1
    max_growth_px: int = 8
    max_clicks: int | None = None


def find_objects(image: EncodedImage, settings: Settings) -> list[FoundObject]:
    """Find every object of an image, best first."""
    spec, dense = image.network.manifest.dense, image.dense
    if dense is None or spec is None:
        found = _objects_on_grid(image, settings)
    else:
        found = _find_by_classes(
            image, sigmoid(dense[1]), softmax(dense[0]), spec, settings
        )
    calibrated = image.network.manifest.calibrated
    found = [replace(one, score=calibrated("object", one.score)) for one in found]
    return sorted(found, key=lambda one: -one.score)


def _objects_on_grid(image: EncodedImage, settings: Settings) -> list[FoundObject]:
    size = image.letterbox.size
    waiting = coarse_first(grid_points(image.letterbox, settings.grid))  # (N, 2)
    found: list[FoundObject] = []
    low = np.zeros((0, 1, 1), np.bool_)
    while len(waiting):
        clicks, waiting = waiting[:MAX_PROMPTS], waiting[MAX_PROMPTS:]
        masks, numbers, more = _answers(
            image, clicks, settings, alternatives=settings.alternatives
        )
        if not more:
            continue
        found += more
        low = np.concatenate([low, masks]) if len(low) else masks
        kept = suppress(low, [one.score for one in found], settings.overlap)
        found, low = [found[row] for row in kept], low[kept]
        if settings.skip_covered:
            covered = masks[numbers == 0].any(0)
            waiting = waiting[~is_inside(waiting, covered, size)]
    return [one for one in found if one.score >= settings.grid_score]


def _find_by_classes(
    image: EncodedImage,
    distance: FloatArray,
    probabilities: FloatArray,
    spec: Dense,
    settings: Settings,
) -> list[FoundObject]:
    """Find objects by a distance map (h, w) and class probabilities (K, h, w)."""
    letterbox = image.letterbox
    stride = letterbox.size / distance.shape[-1]
    # the rest is padding
    height, width = (round(side / stride) for side in letterbox.scaled_hw)
    objects = (
        probabilities[1:].copy() if spec.background else np.zeros_like(probabilities)
    )
    objects[:, height:] = 0
    objects[:, :, width:] = 0
    parts, classes = object_parts(objects, settings.peak_window**2)
    points = click_places(
        distance[:height, :width],
        parts[:, :height, :width],
        min_peak=settings.peak,
        window=settings.peak_window,
    )
    clicks = ((points[: settings.max_clicks] + 0.5) * stride - 0.5).astype(np.float32)
    low, _, found = _answers(image, clicks, settings, alternatives=False)
    kept = suppress(low, [one.score for one in found], settings.overlap)
    found, low = _classified(
        [found[row] for row in kept],
        low[kept],
        probabilities,
        spec,
        settings.objectness,
    )
    found_classes = [spec.classes.index(one.class_id) for one in found]
    missed = parts[uncovered(parts, classes, low, found_classes)]
    more, missed = _objects_of(image, missed, objects.sum(0), distance, settings)
    found += _classified(more, missed, probabilities, spec, 0.0)[0]
    if found and spec.background and settings.max_growth_px:
        inside = image.restore(1 - probabilities[:1])[0] > OBJECT
        max_growth_px = math.ceil(
            settings.max_growth_px
            * max(letterbox.original_hw)
            / max(letterbox.scaled_hw)
        )
        found = grown(sorted(found, key=lambda one: -one.score), inside, max_growth_px)
    return found


def object_parts(
    objects: FloatArray, min_pixels: int
) -> tuple[BoolArray, npt.NDArray[np.int64]]:
    """Return the connected parts (P, h, w) of at least `min_pixels` of each class of objects, and their classes.

    `objects` are the probabilities (C, h, w) of the classes of objects; the classes are returned as (P,) indices.
    """
    nearest = np.where(objects.sum(0) > OBJECT, objects.argmax(0), -1)  # (h, w)
    parts, classes = [np.zeros((0, *nearest.shape), np.bool_)], []
    for index in np.unique(nearest[nearest >= 0]).tolist():
        labels = _connected(nearest == index)
        numbers, sizes = np.unique(labels[labels > 0], return_counts=True)
        parts.append(labels == numbers[sizes >= min_pixels][:, None, None])
        classes += [index] * int((sizes >= min_pixels).sum())
    return np.concatenate(parts), np.asarray(classes, np.int64)


def _connected(inside: BoolArray) -> npt.NDArray[np.int64]:
    """Return (h, w) labels, ascending by first pixel, of the parts that four neighbours connect; 0 outside."""
    last = inside.size + 1
    labels = np.where(inside, np.arange(1, last).reshape(inside.shape), last)
    while True:
        around = np.pad(labels, 1, constant_values=last)
        least = np.minimum.reduce(
            [
                around[:-2, 1:-1],
                around[2:, 1:-1],
                around[1:-1, :-2],
                around[1:-1, 2:],
                labels,
            ]
        )
        least[~inside] = last
        if np.array_equal(least, labels):
            return np.where(inside, labels, 0)
        labels = least


def click_places(
    distance: FloatArray, parts: BoolArray, *, min_peak: float, window: int
) -> FloatArray:
    """Return the (N, 2) xy of where to click, highest first.

    They are the local maxima of a distance map (h, w) of at least `min_peak`, and the maximum of each part (P, h, w)
    without one.
    """
    around = np.lib.stride_tricks.sliding_window_view
    counts = around(np.pad(np.ones_like(distance), 1), (3, 3)).sum((2, 3))
    # a plateau gets one peak
    smooth = around(np.pad(distance, 1), (3, 3)).sum((2, 3), dtype=np.float32) / counts
    largest = around(
        np.pad(smooth, window // 2, constant_values=-np.inf), (window, window)
    ).max((2, 3))
    peaks = (smooth == largest) & (distance >= min_peak)
    known = peaks.copy()
    for part in parts:
        if not (part & known).any():
            peaks.flat[np.where(part, smooth, -np.inf).argmax()] = True
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-distance[rows, columns], kind="stable")
    return np.stack([columns, rows], axis=1)[order].astype(np.float32)


def uncovered(
    parts: BoolArray,
    classes: npt.NDArray[np.int64],
    masks: BoolArray,
    mask_classes: Sequence[int],
) -> list[int]:
    """Return which parts (P, h, w) the masks (N, h', w') of their class cover by less than `COVERED`."""
    found: list[int] = []
    (height, width), own = parts.shape[1:], np.asarray(mask_classes, np.int64)
    for index in np.unique(classes).tolist():
        rows = np.flatnonzero(classes == index).tolist()
        union = masks[own == index].any(0).astype(np.float32)
        if not (own == index).any():
            shown = np.zeros((height, width), np.float32)
        elif union.shape[0] >= height:
            shown = union.reshape(
                height, union.shape[0] // height, width, union.shape[1] // width
            ).mean((1, 3))
        else:
            shown = union.repeat(height // union.shape[0], 0).repeat(
                width // union.shape[1], 1
            )
        found += [row for row in rows if float(shown[parts[row]].mean()) < COVERED]
    return found


def _objects_of(
    image: EncodedImage,
    parts: BoolArray,
    objectness: FloatArray,
    distance: FloatArray,
    settings: Settings,
) -> tuple[list[FoundObject], BoolArray]:
    """Return (P, h, w) parts of the class map that are large enough, as objects of `PART_SCORE`, and as parts."""
    found, kept = [], []
    for row, part in enumerate(parts):
        mask = (
            image.restore(
                np.where(part, objectness - OBJECT, np.float32(-OBJECT))[None]
            )[0]
            > 0
        )
        y, x = np.unravel_index(np.where(part, distance, -1.0).argmax(), part.shape)
        place = (np.asarray([[x, y]]) + 0.5) * (
            image.letterbox.size / len(distance)
        ) - 0.5
        ((click_x, click_y),) = image.letterbox.points_to_original(
            place.astype(np.float32)
        ).tolist()
        if (box := _box_of(mask)) is not None:
            crop = mask[box[0] : box[2], box[1] : box[3]].copy()
            if crop.sum() >= settings.min_area:
                found.append(
                    FoundObject(
                        box,
                        crop,
                        image.letterbox.original_hw,
                        PART_SCORE,
                        (click_x, click_y),
                    )
                )
                kept.append(row)
    return found, parts[kept]


def grid_points(letterbox: Letterbox, count: int | None = None) -> FloatArray:
    """Return the (rows, columns, 2) xy centres of a grid of cells over the content of the input."""
    height, width = letterbox.scaled_hw
    count = count or max(min(letterbox.size // 16, 32), 1)
    step = max(height, width) / count
    across, down = (max(round(side / step), 1) for side in (width, height))
    xs = (np.arange(across) + 0.5) * width / across - 0.5
    ys = (np.arange(down) + 0.5) * height / down - 0.5
    return np.stack(np.meshgrid(xs, ys), axis=-1).astype(np.float32)


def coarse_first(points: FloatArray) -> FloatArray:
    """Return the points of a (rows, columns, 2) grid as (N, 2), from a coarse grid to the finest.

    They are every fourth along each side, then the rest of every second, then the others.
    """
    level = np.full(points.shape[:2], 2)
    level[1::2, 1::2] = 1
    level[1::4, 1::4] = 0
    return points.reshape(-1, 2)[level.ravel().argsort(kind="stable")]


def is_inside(points: FloatArray, mask: BoolArray, size: int) -> BoolArray:
    """Return (N,) bool: which points (N, 2) xy in an input of side `size` lie in a mask (h, w) of the same input."""
    height, width = mask.shape
    columns = ((points[:, 0] + 0.5) * width / size).astype(np.int64)
    rows = ((points[:, 1] + 0.5) * height / size).astype(np.int64)
    inside: BoolArray = mask[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return inside


def _answers(
    image: EncodedImage, points: FloatArray, settings: Settings, *, alternatives: bool
) -> tuple[BoolArray, npt.NDArray[np.int64], list[FoundObject]]:
    """Return what clicks found, and with `alternatives` all masks of each.

    Returns:
        (F, h, w) masks at the size of the decoder; their (F,) numbers among the masks of a click, 0 for the single one;
        and the F objects.
    """
    low: list[BoolArray] = []
    numbers: list[int] = []
    found: list[FoundObject] = []
    for start in range(0, len(points), MAX_PROMPTS):
        part = points[start : start + MAX_PROMPTS]
        logits, scores = image.decode(part[:, None], np.ones((len(part), 1), np.int64))
        count = logits.shape[1] if alternatives else 1
        scores = scores[:, :count].clip(0, 1)
        rows, which = np.nonzero(scores >= settings.min_score)
        chosen = logits[rows, which]  # (F, h, w)
        masks = image.restore(chosen) > 0
        clicks = image.letterbox.points_to_original(part[rows])
        for mask, small, click, number, score in zip(
            masks, chosen > 0, clicks.tolist(), which, scores[rows, which], strict=True
        ):
            if (box := _box_of(mask)) is None:
                continue
            y0, x0, y1, x1 = box
            crop = mask[y0:y1, x0:x1].copy()
            if crop.sum() >= settings.min_area:
                low.append(small)
                numbers.append(int(number))
                found.append(
                    FoundObject(
                        box,
                        crop,
                        image.letterbox.original_hw,
                        float(score),
                        (click[0], click[1]),
                    )
                )
    stacked = np.stack(low) if low else np.zeros((0, 1, 1), np.bool_)
    return stacked, np.asarray(numbers, np.int64), found


def _box_of(mask: BoolArray) -> Window | None:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def suppress(masks: BoolArray, scores: Sequence[float], overlap: float) -> list[int]:
    """Return the indices of the masks (N, h, w) to keep, by falling score; of two that overlap the worse is removed.

    A mask of which more than 80 % is inside a kept one is also removed.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    flat = (
        masks[order].reshape(len(masks), math.prod(masks.shape[1:])).astype(np.float32)
    )
    areas = flat.sum(1)
    kept: list[int] = []
    for index in range(len(flat)):
        common = flat[kept] @ flat[index]
        union = areas[kept] + areas[index] - common
        if not (
            (common / np.maximum(union, 1) > overlap).any()
            or (common > 0.8 * areas[index]).any()
        ):
            kept.append(index)
    return [int(order[index]) for index in kept]


def _classified(
    found: Sequence[FoundObject],
    masks: BoolArray,
    probabilities: FloatArray,
    spec: Dense,
    least: float,
) -> tuple[list[FoundObject], BoolArray]:
    """Return the found objects that are objects by the class map, with their class, and their masks (N, h, w)."""
    if not found:
        return [], masks
    first = int(spec.background)
    grid = resized(probabilities, (masks.shape[1], masks.shape[2])).reshape(
        len(probabilities), -1
    )
    inside = masks.reshape(len(masks), -1).astype(np.float32)
    mean = inside @ grid.T / inside.sum(1, keepdims=True)  # (N, K)
    objectness = mean[:, first:].sum(1).clip(1e-6, 1)
    chances = mean[:, first:] / objectness[:, None]  # (N, C)
    calibrated = spec.calibrated(chances).max(1)
    result, kept = [], []
    for row, (one, place, chance, certain) in enumerate(
        zip(found, chances.argmax(1), chances.max(1), objectness, strict=True)
    ):
        value = spec.classes[place]
        score = one.score * float(certain) * (1.0 if value is None else float(chance))
        if certain >= least:
            probability = None if value is None else float(calibrated[row])
            result.append(
                replace(one, score=score, class_id=value, class_probability=probability)
            )
            kept.append(row)
    return result, masks[kept]


def grown(
    found: Sequence[FoundObject], inside: BoolArray, max_growth_px: int
) -> list[FoundObject]:
    """Grow masks over uncovered pixels step by step; the best of several masks takes a pixel.

    Args:
        found: objects, best first.
        inside: (H, W) bool, True where masks may grow.
        max_growth_px: steps of one pixel, including diagonal ones.
    """
    # the best mask has the largest number; a border of one pixel, over which nothing grows
    labels = np.zeros([side + 2 for side in inside.shape], np.int64)
    content = labels[1:-1, 1:-1]
    for number, one in enumerate(reversed(found), start=1):
        y0, x0, y1, x1 = one.window
        content[y0:y1, x0:x1][one.crop] = number
    free = np.pad(inside, 1) & (labels == 0)
    known = labels.copy()
    _grow(labels, free, max_growth_px)
    ys, xs = np.nonzero((labels != known)[1:-1, 1:-1])
    owners = len(found) - content[ys, xs]
    result = list(found)
    for owner in np.unique(owners).tolist():
        mine = owners == owner
        result[owner] = _with_pixels(found[owner], ys[mine], xs[mine])
    return result


def _grow(labels: npt.NDArray[np.int64], free: BoolArray, steps: int) -> None:
    """Let labels grow into free pixels, by one pixel a step, also diagonally; the largest number takes a pixel.

    Only what a step has filled has neighbours that the next step can fill.

    Args:
        labels: (H, W) numbers, 0 where there is none; the outermost pixels are neither labelled nor free.
        free: (H, W) where they may grow; False where they have grown afterwards.
        steps: largest number of steps.
    """
    tall = free.copy()
    tall[1:] |= free[:-1]
    tall[:-1] |= free[1:]
    near = tall.copy()
    near[:, 1:] |= tall[:, :-1]
    near[:, :-1] |= tall[:, 1:]
    width = labels.shape[1]
    around = [row * width + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
    front = np.flatnonzero((labels > 0) & near)
    flat_labels = labels.reshape(-1)
    flat_free = free.reshape(-1)
    for _ in range(steps):
        reached = (front[:, None] + around).reshape(-1)  # (N, 9) -> (N·9,)
        numbers = flat_labels[front].repeat(len(around))
        is_free = flat_free[reached]
        np.maximum.at(flat_labels, reached[is_free], numbers[is_free])
        front = np.unique(reached[is_free])
        flat_free[front] = False


def _with_pixels(
    one: FoundObject, rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]
) -> FoundObject:
    y0, x0, y1, x1 = one.window
    top, left = min(y0, int(rows.min())), min(x0, int(columns.min()))
    bottom, right = max(y1, int(rows.max()) + 1), max(x1, int(columns.max()) + 1)
    crop = np.zeros((bottom - top, right - left), np.bool_)
    crop[y0 - top : y1 - top, x0 - left : x1 - left] = one.crop
    crop[rows - top, columns - left] = True
    return replace(one, window=(top, left, bottom, right), crop=crop)
