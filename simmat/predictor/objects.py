"""Find every object of an image without prompts.

Places to click are the peaks of a dense head's distance map, and a place in each connected part of its class map
without a peak; or a grid of points if the network has no such head, as in SAM's automatic masks (Kirillov et al.
2023, arXiv 2304.02643). The prompt decoder answers them in batches, and of answers that cover the same object only the
best is kept. A part of the class map that no answer covers is an object, too.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from simmat.data.instances import FoundObject, Instance
from simmat.data.pipeline import regions_from_logits, restore_logits
from simmat.errors import ConfigError
from simmat.foundation import MAX_PROMPTS
from simmat.measurement import WHOLE_NUMBERS, Measurements, measurer
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import DenseAnswer, classes_of
from simmat.nn.device import threads_for_load
from simmat.predictor.encoded import EncodedImage
from simmat.predictor.open import picture_of
from simmat.types import BoolArray, FloatArray, ImageReader, Letterbox, Window

if TYPE_CHECKING:
    import pandas as pd
    import PIL.Image

MIN_OBJECTNESS = 0.5
"""Smallest probability of being an object of a pixel over which masks grow, and of connected parts of a class map."""
PART_SCORE = 0.5
"""Predicted IoU of an object that is a part of the class map, which no mask of a click covers."""
MIN_COVERED = 0.1
"""Share of a part of the class map: one that the masks of clicks cover by less is an object by itself."""


@dataclass(frozen=True)
class EverythingSettings:
    """How objects are found.

    Attributes:
        peak: smallest distance, 0 to 1, at a peak of the distance map.
        peak_window: side of the window, in pixels of the map, in which one peak stands; a part of the class map without
            a peak needs as many pixels as this window.
        grid: clicks along each side of the input if there is no dense head; None sets one every 16 pixels, at most
            SAM's 32.
        skip_covered: leave out clicks of the grid that lie in the mask of an earlier one; the first ones are far apart.
        alternatives: take all masks of a click of the grid, not its single mask alone: it may mean a part or the whole.
        grid_score: smallest predicted IoU of an object found by a click of the grid; a mask of less, but of `min_score`
            or more, only says where not to click again.
        overlap: IoU of two masks above which the one with the lower score is dropped.
        min_score: smallest predicted IoU of a mask, before calibration.
        objectness: smallest probability of being an object, by the class map.
        min_area: smallest area of a mask in pixels of the original image.
        max_growth_px: pixels of the network's input by which masks grow over pixels that the class map calls an object
            and no mask covers.
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


class FoundObjects(list[FoundObject]):
    """The objects of an image, best first.

    Attributes:
        reader: the image.
        class_names: label value -> name.
    """

    def __init__(
        self,
        objects: Iterable[FoundObject],
        reader: ImageReader,
        class_names: Mapping[int, str],
    ) -> None:
        super().__init__(objects)
        self.reader = reader
        self.class_names = class_names

    def plot(self, objects: Sequence[FoundObject] | None = None) -> PIL.Image.Image:
        """Return a picture of the image with objects over it, all or those given; a notebook shows it."""
        from simmat.drawing.found import draw_objects

        chosen = self if objects is None else objects
        instances = [one.instance for one in chosen]
        return draw_objects(
            picture_of(self.reader), instances, self.reader.size_hw, self.class_names
        )

    def measure(self, *, pixel_size_um: float | None = None) -> Measurements:
        """Measure the objects: values of each channel in its unit, contrast to the surroundings, area and shape.

        Args:
            pixel_size_um: side of a pixel, for areas in µm²; None takes what the file states.
        """
        areas, contradiction = measurer().pixel_areas(self.reader, pixel_size_um)
        if contradiction:
            warnings.warn(contradiction, stacklevel=2)
        return measurer().measure(self.reader, [one.instance for one in self], areas)

    def table(self, *, pixel_size_um: float | None = None) -> pd.DataFrame:
        """Return a row for each object, with its class, score and what `measure` returns, as a pandas table.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ConfigError(
                "table() needs pandas (pip install pandas); measure() returns the numbers without it"
            ) from error
        measured = self.measure(pixel_size_um=pixel_size_um)
        classes = [one.instance.class_id for one in self]
        names = []
        for value in classes:
            names.append(
                None if value is None else self.class_names.get(value, str(value))
            )
        head = {
            "label": range(1, len(self) + 1),
            "class": classes,
            "class_name": names,
            "score": [one.score for one in self],
        }
        table = pd.DataFrame(measured.values, columns=list(measured.columns))
        whole = dict.fromkeys(sorted(WHOLE_NUMBERS), np.int64)
        return pd.concat([pd.DataFrame(head), table.astype(whole)], axis=1)


def grid_note(images: int) -> str:
    """Return what a user should know before so many images are searched without a dense head."""
    count = "1 image" if images == 1 else f"{images} images"
    return (
        f"every object of {count} with a grid of clicks takes seconds per image: about one for each window into which "
        "it is cut, and longer with a large model"
    )


@threads_for_load()
@torch.inference_mode()
def find_objects(
    image: EncodedImage, settings: EverythingSettings
) -> list[FoundObject]:
    """Find every object of an image, best first, in pixels of the original image.

    Args:
        image: its dense head gives the clicks; without one, they are on a grid.
        settings: how objects are found.
    """
    if image.dense_answer is None or image.dense_spec is None:
        return _objects_on_grid(image, settings)
    return _objects_of_dense_head(image, image.dense_answer, image.dense_spec, settings)


def _objects_on_grid(
    image: EncodedImage, settings: EverythingSettings
) -> list[FoundObject]:
    """Find objects by clicks on a grid, best first."""
    letterbox = image.prepared.letterbox
    waiting = coarse_first(grid_points(letterbox, settings.grid))  # (N, 2)
    found: list[FoundObject] = []
    masks: BoolArray = np.zeros((0, 1, 1), np.bool_)  # (F, h, w)
    while len(waiting):
        clicks, waiting = waiting[:MAX_PROMPTS], waiting[MAX_PROMPTS:]
        answers = masks_of_clicks(
            image, clicks, settings, alternatives=settings.alternatives
        )
        found, masks = _without_repeats(
            [*found, *answers.found], [*masks, *answers.masks], settings
        )
        if settings.skip_covered and answers.single_masks:
            covered = np.any(answers.single_masks, axis=0)
            waiting = waiting[~is_inside(waiting, covered, letterbox.size)]
    return [one for one in found if one.score >= settings.grid_score]


def _objects_of_dense_head(
    image: EncodedImage,
    dense: DenseAnswer,
    spec: DenseSpec,
    settings: EverythingSettings,
) -> list[FoundObject]:
    """Find objects by clicks on the peaks of the distance map and in parts of the class map, best first."""
    letterbox = image.prepared.letterbox
    distance = dense.distance[0, 0].sigmoid()  # (h, w)
    probabilities = dense.class_logits[0].float().softmax(0)  # (K, h, w)
    stride = letterbox.size / distance.shape[-1]
    # the rest is padding
    height, width = (round(side / stride) for side in letterbox.scaled_hw)
    # (C, h, w) of the classes of objects
    if spec.background:
        of_objects = probabilities[1:].clone()
    else:
        # every pixel has the class of an object, so that connected parts of the map are no objects
        of_objects = torch.zeros_like(probabilities)
    of_objects[:, height:] = 0
    of_objects[:, :, width:] = 0
    parts, classes = object_parts(of_objects, settings.peak_window**2)
    points, _ = click_places(
        distance[:height, :width],
        parts[:, :height, :width],
        min_peak=settings.peak,
        window=settings.peak_window,
    )
    # from pixels of the map to those of the input, both counted from the centre of the first one
    clicks = (points[: settings.max_clicks] + 0.5) * stride - 0.5

    # the masks of the clicks
    answers = masks_of_clicks(image, clicks, settings, alternatives=False)
    found, masks = _without_repeats(answers.found, answers.masks, settings)
    if found:
        found, masks = with_classes(
            found, masks, probabilities, spec, settings.objectness
        )

    # the parts that they do not cover; indices of classes are those of the parts
    mask_classes = [spec.classes.index(one.instance.class_id) for one in found]
    missed_parts = parts[uncovered(parts, classes, masks, mask_classes)]
    if len(missed_parts):
        missed, missed_parts = _parts_as_objects(
            missed_parts, of_objects.sum(0), distance, letterbox, settings
        )
        missed, _ = with_classes(missed, missed_parts, probabilities, spec, 0.0)
        found += missed
    found.sort(key=lambda one: -one.score)

    # over the rest of what the class map calls an object, as a click's mask often ends inside of it
    if found and spec.background and settings.max_growth_px:
        objectness = restore_logits(1 - probabilities[None, :1], letterbox)[0, 0]
        inside = (objectness > MIN_OBJECTNESS).cpu().numpy()
        # in pixels of the original image
        max_growth_px = math.ceil(
            settings.max_growth_px
            * max(letterbox.original_hw)
            / max(letterbox.scaled_hw)
        )
        regions = grown([one.instance for one in found], inside, max_growth_px)
        found = [
            replace(one, instance=region)
            for one, region in zip(found, regions, strict=True)
        ]
    return found


def _parts_as_objects(
    parts: BoolArray,
    objectness: Tensor,
    distance: Tensor,
    letterbox: Letterbox,
    settings: EverythingSettings,
) -> tuple[list[FoundObject], BoolArray]:
    """Return parts of a class map that are large enough as objects.

    Args:
        parts: (P, h, w) bool.
        objectness: (h, w) probabilities of being an object.
        distance: (h, w) in 0..1; an object's click is on the highest pixel of its part.
        letterbox: position of the image in the input, which is square as the maps are.
        settings: their smallest area.

    Returns:
        The objects, of `PART_SCORE`, and their parts.
    """
    inside = torch.from_numpy(parts).to(objectness.device)
    values = torch.where(inside, objectness - MIN_OBJECTNESS, -MIN_OBJECTNESS)[
        :, None
    ]  # (P, 1, h, w)
    highest = torch.where(inside, distance, -1.0).flatten(1).argmax(1).cpu().numpy()
    rows, columns = np.unravel_index(highest, distance.shape)
    places = np.stack([columns, rows], axis=1)  # (P, 2) xy
    stride = letterbox.size / len(distance)
    clicks = letterbox.points_to_original(
        ((places + 0.5) * stride - 0.5).astype(np.float32)
    )
    found = []
    kept = []
    for row, (region,) in enumerate(regions_from_logits(values, letterbox)):
        if region is not None and region.area >= settings.min_area:
            x, y = clicks[row].tolist()
            found.append(FoundObject(region, PART_SCORE, (x, y)))
            kept.append(row)
    return found, parts[kept]


def with_classes(
    found: Sequence[FoundObject],
    masks: BoolArray,
    probabilities: Tensor,
    spec: DenseSpec,
    min_objectness: float,
) -> tuple[list[FoundObject], BoolArray]:
    """Give objects their class, if there are classes, and a score that combines both.

    Args:
        found: F objects.
        masks: (F, h, w) over the whole input.
        probabilities: (K, h', w') class probabilities over the same input.
        spec: what the K classes are.
        min_objectness: smallest mean probability of being an object.

    Returns:
        Those that are objects, and their masks.
    """
    found_classes, objectness = classes_of(masks, probabilities, spec.background)
    objects = []
    rows = []
    for row, one in enumerate(found):
        if objectness[row] < min_objectness:
            continue
        score = one.score * float(objectness[row])
        value = None
        known = spec.by_class(found_classes[row].tolist())
        if known is not None:
            value = max(known, key=known.__getitem__)
            score *= known[value]
        instance = replace(one.instance, class_id=value)
        objects.append(
            replace(one, instance=instance, score=score, class_probabilities=known)
        )
        rows.append(row)
    return objects, masks[rows]


def object_parts(
    objects: Tensor, min_pixels: int
) -> tuple[BoolArray, npt.NDArray[np.int64]]:
    """Return the connected parts, of `min_pixels` pixels or more, of each class of a class map.

    Args:
        objects: (C, h, w) probabilities of the classes of objects; without the background, so their sum is at most 1.
        min_pixels: smallest number of pixels; pixels are connected by their sides.

    Returns:
        (P, h, w) parts, and the (P,) indices of their classes.
    """
    from scipy import ndimage  # slow to import, and clicks need none

    # (h, w)
    nearest = (
        torch.where(objects.sum(0) > MIN_OBJECTNESS, objects.argmax(0), -1)
        .cpu()
        .numpy()
    )
    parts = [np.zeros((0, *nearest.shape), np.bool_)]
    classes = []
    for index in np.unique(nearest[nearest >= 0]).tolist():
        labels, count = ndimage.label(nearest == index)
        areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
        large = np.flatnonzero(areas >= min_pixels) + 1
        parts.append(labels == large[:, None, None])
        classes += [index] * len(large)
    return np.concatenate(parts), np.asarray(classes, np.int64)


def click_places(
    distance: Tensor, parts: BoolArray, *, min_peak: float, window: int
) -> tuple[FloatArray, FloatArray]:
    """Find where to click: the local maxima of a distance map, and the maximum of each part of objects without one.

    Args:
        distance: (h, w) in 0..1.
        parts: (P, h, w) of `object_parts`.
        min_peak: smallest value of a local maximum.
        window: odd side of the window in which a local maximum is the largest value.

    Returns:
        (N, 2) xy in pixels of the map and (N,) values, highest first.
    """
    # a plateau gets one highest pixel
    smooth = F.avg_pool2d(distance[None, None], 3, 1, 1, count_include_pad=False)
    largest = F.max_pool2d(smooth, window, 1, window // 2)
    peaks = ((smooth == largest) & (distance[None, None] >= min_peak))[0, 0]
    known = peaks.cpu().numpy()
    heights = smooth[0, 0].cpu().numpy()
    for part in parts:
        if not (part & known).any():
            peaks.view(-1)[int(np.where(part, heights, -np.inf).argmax())] = True
    rows, columns = torch.nonzero(peaks, as_tuple=True)
    values = distance[rows, columns]
    order = values.argsort(descending=True, stable=True)
    points = torch.stack([columns, rows], dim=1)[order].cpu().numpy().astype(np.float32)
    return points, values[order].cpu().numpy().astype(np.float32)


def uncovered(
    parts: BoolArray,
    classes: npt.NDArray[np.int64],
    masks: npt.NDArray[np.bool_],
    mask_classes: Sequence[int],
) -> list[int]:
    """Return which parts the masks of their class cover by less than `MIN_COVERED`.

    Args:
        parts: (P, h, w) of `object_parts`.
        classes: (P,) indices of their classes.
        masks: (N, h', w') over the same input.
        mask_classes: N indices of their classes.
    """
    found = []
    for index in np.unique(classes).tolist():
        of_class = np.asarray(mask_classes, np.int64) == index
        # (1, 1, h', w')
        union = torch.from_numpy(masks[of_class].any(0))[None, None].float()
        # (h, w)
        covered = F.interpolate(union, parts.shape[1:], mode="area")[0, 0].numpy()
        for row in np.flatnonzero(classes == index).tolist():
            if float(covered[parts[row]].mean()) < MIN_COVERED:
                found.append(row)
    return found


def grid_points(letterbox: Letterbox, count: int | None = None) -> FloatArray:
    """Return the (rows, columns, 2) xy centres of a grid over the content of the input.

    It has `count` cells along the longer side; None as `EverythingSettings.grid` says.
    """
    height, width = letterbox.scaled_hw
    count = count or max(min(letterbox.size // 16, 32), 1)
    step = max(height, width) / count
    across = max(round(width / step), 1)
    down = max(round(height / step), 1)
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
    order = level.ravel().argsort(kind="stable")
    return points.reshape(-1, 2)[order]


def is_inside(points: FloatArray, mask: BoolArray, size: int) -> BoolArray:
    """Return (N,) bool: which points (N, 2) xy in an input of side `size` lie in a mask (h, w) of the same input."""
    height, width = mask.shape
    columns = ((points[:, 0] + 0.5) * width / size).astype(np.int64)
    rows = ((points[:, 1] + 0.5) * height / size).astype(np.int64)
    inside: BoolArray = mask[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return inside


class ClickAnswers(NamedTuple):
    """Masks of clicks.

    Attributes:
        found: F objects.
        masks: their F masks (h, w), at the decoder's own size.
        single_masks: those of them that are the single mask of a click, not an alternative.
    """

    found: list[FoundObject]
    masks: list[BoolArray]
    single_masks: list[BoolArray]


def masks_of_clicks(
    image: EncodedImage,
    points: FloatArray,
    settings: EverythingSettings,
    *,
    alternatives: bool,
) -> ClickAnswers:
    """Decode clicks in batches; drop masks that are empty, too small or unsure.

    Args:
        image: the image.
        points: (N, 2) xy in the input.
        settings: which masks are kept.
        alternatives: take all masks of a click, not its single mask alone.
    """
    letterbox = image.prepared.letterbox
    places = letterbox.points_to_original(points).tolist()
    answers = ClickAnswers([], [], [])
    for start in range(0, len(points), MAX_PROMPTS):
        answer = image.decode_clicks(points[start : start + MAX_PROMPTS])
        count = answer.logits.shape[1] if alternatives else 1
        logits = answer.logits[:, :count].float()  # (N, M, h, w)
        scores = answer.iou[:, :count].float().clamp(0, 1)
        rows, numbers = torch.nonzero(scores >= settings.min_score, as_tuple=True)
        chosen = logits[rows, numbers]  # (F, h, w)
        masks = (chosen > 0).cpu().numpy()
        regions = regions_from_logits(chosen[:, None], letterbox)
        for row, number, mask, (region,) in zip(
            rows.tolist(), numbers.tolist(), masks, regions, strict=True
        ):
            if region is None or region.area < settings.min_area:
                continue
            x, y = places[start + row]
            answers.found.append(
                FoundObject(region, float(scores[row, number]), (x, y))
            )
            answers.masks.append(mask)
            if number == 0:
                answers.single_masks.append(mask)
    return answers


def _without_repeats(
    found: Sequence[FoundObject],
    masks: Sequence[BoolArray],
    settings: EverythingSettings,
) -> tuple[list[FoundObject], BoolArray]:
    """Return those of F objects that `suppress` keeps, by falling score, and their masks (h, w) as one array."""
    if not found:
        return [], np.zeros((0, 1, 1), np.bool_)
    stacked = np.stack(masks)
    kept = suppress(stacked, [one.score for one in found], settings.overlap)
    return [found[row] for row in kept], stacked[kept]


def suppress(
    masks: npt.NDArray[np.bool_], scores: Sequence[float] | FloatArray, overlap: float
) -> list[int]:
    """Return which of N masks are kept, by falling score; of two that overlap, the one with the lower score is dropped.

    Args:
        masks: (N, h, w).
        scores: (N,).
        overlap: largest IoU of two masks that are kept; a mask of which more than 80 % lies within another is dropped,
            too.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    flat = torch.from_numpy(masks[order]).flatten(1).float()  # (N, h·w), best first
    areas = flat.sum(1).numpy()
    shared = (flat @ flat.T).numpy()  # whole numbers, so exact
    kept: list[int] = []
    for index in range(len(flat)):
        common = shared[index, kept]
        union = areas[kept] + areas[index] - common
        repeats = (common / np.maximum(union, 1) > overlap).any()
        lies_within = (common > 0.8 * areas[index]).any()
        if not (repeats or lies_within):
            kept.append(index)
    return [int(order[index]) for index in kept]


def grown(
    regions: Sequence[Instance], inside: BoolArray, max_growth_px: int
) -> list[Instance]:
    """Let masks grow over what is inside of objects and where no mask is; of two, the first one takes a pixel.

    One click's mask often ends inside of its object, where the class map knows better.

    Args:
        regions: the masks, best first.
        inside: (H, W) bool.
        max_growth_px: pixels by which they grow.
    """
    # the best mask has the largest number; a border of one pixel, over which nothing grows
    labels = np.zeros([side + 2 for side in inside.shape], np.int64)
    content = labels[1:-1, 1:-1]
    for number, region in enumerate(reversed(regions), start=1):
        content[region.window.slices][region.crop] = number
    free = np.pad(inside, 1) & (labels == 0)
    known = labels.copy()
    _grow(labels, free, max_growth_px)
    rows, columns = np.nonzero((labels != known)[1:-1, 1:-1])
    owners = len(regions) - content[rows, columns]
    result = list(regions)
    for owner in np.unique(owners).tolist():
        mine = owners == owner
        result[owner] = _with_pixels(regions[owner], rows[mine], columns[mine])
    return result


def _grow(labels: npt.NDArray[np.int64], free: BoolArray, steps: int) -> None:
    """Let labels grow into free pixels, by one pixel a step, also diagonally; the largest number takes a pixel.

    Only what a step has filled has neighbours that the next step can fill.

    Args:
        labels: (H, W) numbers, 0 where there is none; the outermost pixels are neither labelled nor free.
        free: (H, W) where they may grow; False where they have grown afterwards.
        steps: largest number of steps.
    """
    from scipy import ndimage  # slow to import, and clicks need none

    width = labels.shape[1]
    around = [row * width + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
    front = np.flatnonzero(
        (labels > 0) & ndimage.binary_dilation(free, np.ones((3, 3)))
    )
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
    region: Instance, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> Instance:
    new = Window(
        int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
    )
    window = region.window.enclosing(new)
    crop = region.within(window)
    crop[rows - window.y0, columns - window.x0] = True
    return replace(region, window=window, crop=crop)
