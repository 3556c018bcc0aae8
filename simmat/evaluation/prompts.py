"""Prompt a model for every object of an image, as a protocol says, and score its masks."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from simmat.data.instances import (
    Annotation,
    Instance,
    center_click,
    corrective_click,
    jitter_box,
    pixels_under_centres,
    random_click,
    region_from_mask,
    tight_box,
    visible_part,
)
from simmat.data.pipeline import regions_from_logits
from simmat.errors import ConfigError, PluginError, SimMATError, unknown_name
from simmat.evaluation.scores import ObjectScore, area_ratio, mask_iou
from simmat.foundation import MAX_PROMPTS, MaskPrediction
from simmat.nn.device import wait_for
from simmat.plugin_specs import MetricSpec
from simmat.plugins.registry import import_from_string
from simmat.predictor import EncodedImage, prompt_of
from simmat.types import BoolArray, Letterbox, Prompt

MAX_ELEMENTS = 2**26
"""Most grid pixels of all masks that are compared together; each takes a byte."""
_ALTERNATIVES = 4
"""Masks per prompt where alternatives are scored, as SAM has them."""
_QUARTER = 4
"""Pixels of the input per pixel of the grid "quarter", along one side."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """A protocol, as data.

    Attributes:
        name: what `--protocol` takes.
        first_click: "center", the maximum of the region's distance transform, see `simmat.data.instances.center_click`,
            or "middle", pixel ⌊n / 2⌋ of the n of the region in raster order, in the network's input.
        grid: where masks are compared: "original", at the size of the image, or "quarter", at a quarter of the
            network's input, into which the image is stretched.
        alternatives: also score the best-predicted and the best of a decoder's alternative masks.
        clicks: clicks per object; each one after the first is placed on the largest error.
        repeats: random clicks and jittered boxes per object; 0 leaves out tight boxes too, unless `boxes`.
        seed: seed of the random clicks and boxes.
        boxes: prompt with the tight box of each object, too.
    """

    name: str
    first_click: Literal["center", "middle"] = "center"
    grid: Literal["original", "quarter"] = "original"
    alternatives: bool = True
    clicks: int = 1
    repeats: int = 0
    seed: int = 0
    boxes: bool = False


ONE_CLICK = Protocol("one-click")
"""One click per object at its centre, masks compared at the original size."""
FULL = Protocol("full", clicks=20, repeats=5)
"""One click, then clicks on errors (mIoU by clicks, NoC), boxes tight and jittered, and random clicks.

NoC stops at 20 clicks, as the interactive benchmarks do (Sofiiuk et al. 2021, arXiv 2102.06583).
"""
COMPAT = Protocol(
    "simmat-compat", first_click="middle", grid="quarter", alternatives=False
)
"""The protocol of the paper's released code: middle pixel, squashed image, masks compared at a quarter of the input."""

PROTOCOLS: Mapping[str, Protocol] = {
    ONE_CLICK.name: ONE_CLICK,
    FULL.name: FULL,
    COMPAT.name: COMPAT,
}
"""By name; the first is the default."""


def find_protocol(
    name: str = ONE_CLICK.name,
    *,
    clicks: int | None = None,
    repeats: int | None = None,
    seed: int | None = None,
) -> Protocol:
    """Return a protocol by name, with its numbers replaced by those that are given."""
    if name not in PROTOCOLS:
        raise unknown_name("protocol", name, PROTOCOLS)
    numbers = {"clicks": clicks, "repeats": repeats, "seed": seed}
    given: dict[str, Any] = {
        key: value for key, value in numbers.items() if value is not None
    }
    if given and name != FULL.name:
        options = ", ".join(f"--{key}" for key in given)
        raise ConfigError(
            f"protocol {name!r} takes no {options}; leave it out, or use --protocol {FULL.name}"
        )
    return replace(PROTOCOLS[name], **given)


@dataclass(frozen=True)
class Target:
    """One object to be scored.

    Attributes:
        index: index of the region within its image.
        seen: the pixels of the region that are not ignored, where clicks are placed.
        truth: the region on the grid.
        click_xy: the first click, in pixels of the original image.
    """

    index: int
    region: Instance
    seen: Instance
    truth: Instance
    click_xy: tuple[float, float]


def grid_hw(letterbox: Letterbox, protocol: Protocol) -> tuple[int, int]:
    """Return (height, width) of the grid where masks are compared."""
    if protocol.grid == "original":
        return letterbox.original_hw
    if letterbox.size % _QUARTER:
        raise ConfigError(
            f"protocol {protocol.name!r} compares masks at a quarter of the input, but its side of {letterbox.size} px "
            f"is not a multiple of {_QUARTER}; use another protocol"
        )
    return letterbox.size // _QUARTER, letterbox.size // _QUARTER


def scored_pixels(
    label: Annotation, letterbox: Letterbox, protocol: Protocol
) -> BoolArray:
    """Return (h, w) bool: the pixels of the grid that are scored, since they are not ignored."""
    return ~resize_nearest(label.ignore, grid_hw(letterbox, protocol))


def find_targets(
    label: Annotation, letterbox: Letterbox, protocol: Protocol
) -> tuple[list[Target], list[int]]:
    """Bring the regions of an image to the grid; a region that is ignored as a whole is not a target.

    Returns:
        The objects to be scored, and the indices of regions with a scored pixel in the image but none on the grid.
    """
    size_hw = grid_hw(letterbox, protocol)
    ignore = ~scored_pixels(label, letterbox, protocol)
    found = []
    left_out = []
    for index, region in enumerate(label.regions):
        seen = visible_part(region, label.ignore)
        if seen is None:
            continue
        click_xy = _first_click(seen, letterbox, protocol)
        truth = resize_region_nearest(region, label.size_hw, size_hw)
        if click_xy is None or truth is None or visible_part(truth, ignore) is None:
            left_out.append(index)
        else:
            found.append(Target(index, region, seen, truth, click_xy))
    return found, left_out


def drawn_targets(
    targets: Sequence[Target], sample: str, share: float, seed: int
) -> list[Target]:
    """Draw a share of the objects of an image, the same ones each time."""
    if share >= 1:
        return list(targets)
    drawn = []
    for target in targets:
        rng = _generator(seed, sample, target.index, "object")
        if rng.random() < share:
            drawn.append(target)
    return drawn


def _first_click(
    seen: Instance, letterbox: Letterbox, protocol: Protocol
) -> tuple[float, float] | None:
    if protocol.first_click == "center":
        return center_click(seen)
    stretched = resize_region_nearest(
        seen, letterbox.original_hw, (letterbox.size, letterbox.size)
    )
    if stretched is None:
        return None
    middle = stretched.pixel_xy(stretched.area // 2)
    x, y = letterbox.points_to_original(np.asarray(middle, dtype=np.float32)).tolist()
    return x, y


def resize_nearest(mask: BoolArray, size_hw: tuple[int, int]) -> BoolArray:
    """Resize an (H, W) mask: each new pixel takes the value of the old pixel that its centre falls into."""
    if mask.shape == tuple(size_hw):
        return mask
    rows, columns = map(pixels_under_centres, mask.shape, size_hw)
    return np.ascontiguousarray(mask[np.ix_(rows, columns)])


def resize_region_nearest(
    region: Instance, old_hw: tuple[int, int], new_hw: tuple[int, int]
) -> Instance | None:
    """Resize a region with its image as `resize_nearest` does; None if no pixel is left."""
    if old_hw == new_hw:
        return region
    left = region.picked(*map(pixels_under_centres, old_hw, new_hw))
    return region_from_mask(left.crop, region.class_id, left.window[:2])


class ScoredPrompts(ABC):
    """One image with its objects, decoded for any number of prompts.

    Attributes:
        targets: its objects.
        scored: (h, w) bool, the pixels of the grid that are scored.
        protocol: says what is asked.
        letterbox: its size, and that of the network's input.
        batch_size: how many prompts to decode at once; fewer on a large grid, to bound memory.
        decode_s: seconds per prompt of each decoding.
    """

    def __init__(
        self,
        letterbox: Letterbox,
        targets: Sequence[Target],
        scored: BoolArray,
        protocol: Protocol,
    ) -> None:
        self.letterbox = letterbox
        self.targets = targets
        self.scored = scored
        self.protocol = protocol
        masks = _ALTERNATIVES if protocol.alternatives else 1
        self.batch_size = max(
            min(MAX_ELEMENTS // (masks * scored.size), MAX_PROMPTS), 1
        )
        self.decode_s: list[float] = []

    @abstractmethod
    def decode(
        self,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        *,
        mask_input: Tensor | None = None,
        alternatives: bool = False,
    ) -> tuple[MaskPrediction, list[Instance | None], npt.NDArray[np.float64]]:
        """Decode prompts and compare the masks with the truth.

        Args:
            prompts: K prompts in pixels of the original image, all of one kind.
            targets: K targets, the object of each prompt.
            mask_input: (K, 1, h', w') logits of earlier answers.
            alternatives: score the decoder's alternative masks too, not mask 0 alone.

        Returns:
            The answer, of the scored masks alone; K single masks (mask 0 of each) on the grid, None if one is empty;
            and the (K, M) IoUs with the truth.
        """

    def single_ious(
        self, prompts: Sequence[Prompt], targets: Sequence[Target]
    ) -> npt.NDArray[np.float64]:
        """Return (K, 2) IoU, true and predicted, of the single mask of any number of prompts, see `decode`."""
        found = [np.zeros((0, 2))]
        for start in range(0, len(prompts), self.batch_size):
            part = slice(start, start + self.batch_size)
            answer, _, ious = self.decode(prompts[part], targets[part])
            found.append(
                np.stack([ious[:, 0], answer.iou[:, 0].double().cpu().numpy()], axis=1)
            )
        return np.concatenate(found)


class ScoredImage(ScoredPrompts):
    """An image that is encoded as a whole."""

    def __init__(
        self,
        encoded: EncodedImage,
        targets: Sequence[Target],
        scored: BoolArray,
        protocol: Protocol,
    ) -> None:
        super().__init__(encoded.prepared.letterbox, targets, scored, protocol)
        self._encoded = encoded

    def decode(
        self,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        *,
        mask_input: Tensor | None = None,
        alternatives: bool = False,
    ) -> tuple[MaskPrediction, list[Instance | None], npt.NDArray[np.float64]]:
        """Decode prompts and compare the masks with the truth."""
        start = perf_counter()
        answer = self._encoded.decode(prompts, mask_input=mask_input)
        wait_for(answer.logits.device)
        self.decode_s.append((perf_counter() - start) / len(prompts))
        kept = slice(None) if alternatives else slice(1)
        logits = answer.logits[:, kept].float()
        on_grid = (
            None
            if self.protocol.grid == "original"
            else grid_hw(self.letterbox, self.protocol)
        )
        masks = regions_from_logits(logits, self.letterbox, on_grid)
        ious = []
        for of_prompt, target in zip(masks, targets, strict=True):
            ious.append(
                [mask_iou(mask, target.truth, self.scored) for mask in of_prompt]
            )
        singles = [of_prompt[0] for of_prompt in masks]
        return (
            MaskPrediction(logits, answer.iou[:, kept].float()),
            singles,
            np.asarray(ious),
        )


def score_objects(
    image: ScoredPrompts, sample: str, metrics: Sequence[MetricSpec]
) -> list[ObjectScore]:
    """Score every object of an image; `metrics` are those of masks."""
    protocol = image.protocol
    scores: list[ObjectScore] = []
    for start in range(0, len(image.targets), image.batch_size):
        scores += _score_clicks(
            image, image.targets[start : start + image.batch_size], sample, metrics
        )
    if protocol.boxes or protocol.repeats:
        boxes = [prompt_of(box=tight_box(target.region)) for target in image.targets]
        found = image.single_ious(boxes, image.targets).tolist()
        scores = [
            replace(score, box=iou, predicted_box=own)
            for score, (iou, own) in zip(scores, found, strict=True)
        ]
    if protocol.repeats:
        return _with_draws(scores, image, sample)
    return scores


def _score_clicks(
    image: ScoredPrompts,
    targets: Sequence[Target],
    sample: str,
    metrics: Sequence[MetricSpec],
) -> list[ObjectScore]:
    """Score K objects that are decoded together, by a first click and, if the protocol says so, by corrections."""
    protocol = image.protocol
    prompts = [Prompt.points([target.click_xy]) for target in targets]
    answer, masks, ious = image.decode(
        prompts, targets, alternatives=protocol.alternatives
    )
    curves: list[tuple[float, ...]] = [()] * len(targets)
    if protocol.clicks > 1:
        curves = _click_curves(image, prompts, targets, answer, masks, ious)
    scores = []
    for k, target in enumerate(targets):
        figures: dict[str, float | None] = {}
        for metric in metrics:
            figures[metric.name] = None
            if protocol.grid == "original":
                figures[metric.name] = metric_value(
                    metric, masks[k], target.truth, image.scored
                )
        best_predicted = None
        oracle = None
        if protocol.alternatives:
            others = slice(1, None) if ious.shape[1] > 1 else slice(None)
            best_predicted = float(ious[k, others][int(answer.iou[k, others].argmax())])
            oracle = float(ious[k, others].max())
        score = ObjectScore(
            sample=sample,
            region=target.index,
            class_id=target.region.class_id,
            area=target.region.area,
            click_xy=(float(target.click_xy[0]), float(target.click_xy[1])),
            iou=float(ious[k, 0]),
            iou_best_predicted=best_predicted,
            iou_oracle=oracle,
            predicted_iou=float(answer.iou[k, 0]),
            metrics=figures,
            clicks=curves[k],
            area_ratio=area_ratio(masks[k], target.truth, image.scored),
        )
        scores.append(score)
    return scores


def metric_value(spec: MetricSpec, *given: Any) -> float | None:
    """Compute a metric of what `MetricSpec.compute` takes.

    Raises:
        PluginError: its function fails, or returns no number.
    """
    function = import_from_string(spec.compute)
    try:
        value = function(*given)
    except SimMATError:
        raise
    except Exception as error:  # a plugin's function may fail in any way
        raise PluginError(
            f"metric {spec.name!r} failed ({type(error).__name__}: {error})"
        ) from error
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise PluginError(
            f"metric {spec.name!r} must return a finite number or None, got {value!r}"
        )
    return float(value)


def _click_curves(
    image: ScoredPrompts,
    first: Sequence[Prompt],
    targets: Sequence[Target],
    answer: MaskPrediction,
    masks: Sequence[Instance | None],
    ious: npt.NDArray[np.float64],
) -> list[tuple[float, ...]]:
    """Correct K answers click by click, each at the centre of the largest error, with the last answer as mask input.

    Return K times the IoU after 1, 2, … clicks. If no error is left, the last IoU is repeated.
    """
    clicks = image.protocol.clicks
    prompts = list(first)
    curves = [[iou] for iou in ious[:, 0].tolist()]
    # those that are not right yet, in the order of `answer`
    left = list(range(len(targets)))
    for _ in range(clicks - 1):
        places = []  # of those that are still wrong, in the answer
        wrong = []
        for place, (k, mask) in enumerate(zip(left, masks, strict=True)):
            error = corrective_click(targets[k].truth, mask, ~image.scored)
            if error is None:
                continue
            click_xy, on_object = error
            coords = np.concatenate(
                [prompts[k].point_coords, np.asarray([click_xy], np.float32)]
            )
            prompts[k] = Prompt(
                coords, np.append(prompts[k].point_labels, np.int64(on_object))
            )
            places.append(place)
            wrong.append(k)
        if not wrong:
            break
        left = wrong
        answer, masks, ious = image.decode(
            [prompts[k] for k in left],
            [targets[k] for k in left],
            mask_input=answer.logits[places, :1],
        )
        for k, iou in zip(left, ious[:, 0].tolist(), strict=True):
            curves[k].append(iou)
    return [tuple(curve + curve[-1:] * (clicks - len(curve))) for curve in curves]


def _with_draws(
    scores: Sequence[ObjectScore], image: ScoredPrompts, sample: str
) -> list[ObjectScore]:
    """Score jittered boxes and random clicks; each draw depends only on seed, sample and region."""
    repeats = image.protocol.repeats
    seed = image.protocol.seed
    jittered = []
    clicks = []
    for target in image.targets:
        box = tight_box(target.region)
        for draw in range(repeats):
            rng = _generator(seed, sample, target.index, "box", draw)
            jittered.append(
                prompt_of(box=jitter_box(box, image.letterbox.original_hw, rng))
            )
            rng = _generator(seed, sample, target.index, "click", draw)
            clicks.append(Prompt.points([random_click(target.seen, rng)]))
    repeated = [target for target in image.targets for _ in range(repeats)]
    of_boxes = image.single_ious(jittered, repeated)[:, 0].reshape(-1, repeats).tolist()
    of_clicks = image.single_ious(clicks, repeated)[:, 0].reshape(-1, repeats).tolist()
    drawn = []
    for score, box_ious, click_ious in zip(scores, of_boxes, of_clicks, strict=True):
        drawn.append(
            replace(
                score, jittered_boxes=tuple(box_ious), random_clicks=tuple(click_ious)
            )
        )
    return drawn


def _generator(seed: int, *what: object) -> np.random.Generator:
    name = hashlib.sha256(repr(what).encode()).digest()[:8]
    return np.random.default_rng([seed, int.from_bytes(name, "big")])
