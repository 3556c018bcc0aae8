"""Prompt a model for every object of one image, and score its masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from simmat.data.instances import Instance, corrective_click, jitter_box, random_click, tight_box
from simmat.data.pipeline import regions_from_logits
from simmat.evaluation.protocol import Protocol, Target, Targets, grid_hw
from simmat.evaluation.scores import Metric, ObjectScore, area_ratio, mask_iou
from simmat.foundation import MAX_PROMPTS
from simmat.nn.device import wait_for
from simmat.predictor import EncodedImage
from simmat.types import Prompt

MAX_ELEMENTS = 2**26
"""Most grid pixels of all masks that are compared together; each takes a byte."""

_ALTERNATIVES = 4
"""Masks per prompt where alternatives are scored, as SAM has them."""


class Answer(NamedTuple):
    """The scored masks of a model for K prompts.

    Attributes:
        masks: K single masks (mask 0 of each answer) on the grid; None if one is empty.
        ious: (K, M) float64, the IoU with the truth.
        predicted: (K, M), the IoU that the model predicts.
        low: (K, 1, h', w') logits of mask 0 at the decoder's own size, to be used as mask input.
    """

    masks: tuple[Instance | None, ...]
    ious: npt.NDArray[np.float64]
    predicted: Tensor
    low: Tensor


class ScoredImage:
    """One encoded image with its objects, decoded for any number of prompts.

    Attributes:
        targets: its objects.
        letterbox: its size, and that of the network's input.
        batch_size: how many prompts to decode at once; fewer on a large grid, to bound memory.
        decode_s: seconds per prompt of each decoding.
    """

    def __init__(self, encoded: EncodedImage, targets: Targets, protocol: Protocol) -> None:
        self._encoded = encoded
        self.targets = targets
        self.letterbox = encoded.prepared.letterbox
        if protocol.grid == "original":
            self._grid_hw = None
        else:
            self._grid_hw = grid_hw(self.letterbox, protocol)
        masks = _ALTERNATIVES if protocol.alternatives else 1
        self.batch_size = max(min(MAX_ELEMENTS // (masks * targets.scored.size), MAX_PROMPTS), 1)
        self.decode_s: list[float] = []

    def decode(
        self,
        prompts: Sequence[Prompt],
        targets: Sequence[Target],
        *,
        mask_input: Tensor | None = None,
        alternatives: bool = False,
    ) -> Answer:
        """Decode prompts and compare the masks with the truth.

        Args:
            prompts: K prompts in pixels of the original image, all of one kind.
            targets: K targets, the object of each prompt.
            mask_input: (K, 1, h', w') logits of earlier answers.
            alternatives: score the decoder's alternative masks too, not mask 0 alone.
        """
        start = perf_counter()
        answer = self._encoded.decode(prompts, mask_input=mask_input)
        wait_for(answer.logits.device)
        self.decode_s.append((perf_counter() - start) / len(prompts))
        kept = slice(None) if alternatives else slice(1)
        logits = answer.logits[:, kept].float()
        masks = regions_from_logits(logits, self.letterbox, self._grid_hw)
        scored = self.targets.scored
        ious = []
        for of, target in zip(masks, targets, strict=True):
            ious.append([mask_iou(mask, target.truth, scored) for mask in of])
        singles = tuple(of_prompt[0] for of_prompt in masks)
        return Answer(singles, np.asarray(ious), answer.iou[:, kept].float(), logits[:, :1])

    def single_ious(self, prompts: Sequence[Prompt], targets: Sequence[Target]) -> npt.NDArray[np.float64]:
        """Return (K, 2) IoU, true and predicted, of the single mask of any number of prompts, see `decode`."""
        found = [np.zeros((0, 2))]
        for start in range(0, len(prompts), self.batch_size):
            part = slice(start, start + self.batch_size)
            answer = self.decode(prompts[part], targets[part])
            found.append(np.stack([answer.ious[:, 0], answer.predicted[:, 0].double().cpu().numpy()], axis=1))
        return np.concatenate(found)


def score_objects(
    image: ScoredImage, sample: str, protocol: Protocol, metrics: Mapping[str, Metric]
) -> list[ObjectScore]:
    """Score every object of an image; `metrics` are those of masks."""
    scores: list[ObjectScore] = []
    for start in range(0, len(image.targets.found), image.batch_size):
        targets = image.targets.found[start : start + image.batch_size]
        prompts = [Prompt.points([target.click_xy]) for target in targets]
        answer = image.decode(prompts, targets, alternatives=protocol.alternatives)
        firsts = []
        for k, target in enumerate(targets):
            firsts.append(_first_click_score(image, k, target, sample, answer, protocol, metrics))
        if protocol.clicks > 1:
            curves = _click_curves(image, prompts, targets, answer, protocol.clicks)
            firsts = [replace(score, clicks=curve) for score, curve in zip(firsts, curves, strict=True)]
        scores += firsts
    if protocol.boxes or protocol.repeats:
        boxes = [_box_prompt(tight_box(target.region)) for target in image.targets.found]
        found = image.single_ious(boxes, image.targets.found).tolist()
        scores = [replace(score, box=iou, predicted_box=own) for score, (iou, own) in zip(scores, found, strict=True)]
    if protocol.repeats:
        return _with_draws(scores, image, sample, protocol)
    return scores


def _first_click_score(
    image: ScoredImage,
    k: int,
    target: Target,
    sample: str,
    answer: Answer,
    protocol: Protocol,
    metrics: Mapping[str, Metric],
) -> ObjectScore:
    """Score prompt k of an answer, which is the first click on a target."""
    ious = answer.ious[k]
    predicted = answer.predicted[k]
    mask = answer.masks[k]
    scored = image.targets.scored
    figures: dict[str, float | None] = dict.fromkeys(metrics)
    if protocol.grid == "original":
        for name, metric in metrics.items():
            figures[name] = metric(mask, target.truth, scored)
    best_predicted = None
    oracle = None
    if protocol.alternatives:
        others = slice(1, None) if len(ious) > 1 else slice(None)
        best_predicted = float(ious[others][int(predicted[others].argmax())])
        oracle = float(ious[others].max())
    return ObjectScore(
        sample=sample,
        region=target.index,
        class_id=target.region.class_id,
        area=target.region.area,
        click_xy=(float(target.click_xy[0]), float(target.click_xy[1])),
        iou=float(ious[0]),
        iou_best_predicted=best_predicted,
        iou_oracle=oracle,
        predicted_iou=float(predicted[0]),
        metrics=figures,
        area_ratio=area_ratio(mask, target.truth, scored),
    )


def _click_curves(
    image: ScoredImage, first: Sequence[Prompt], targets: Sequence[Target], answer: Answer, clicks: int
) -> list[tuple[float, ...]]:
    """Correct K answers click by click, each at the centre of the largest error, with the last answer as mask input.

    Return K times the IoU after 1, 2, … `clicks` clicks. If no error is left, the last IoU is repeated.
    """
    prompts = list(first)
    ignore = ~image.targets.scored
    curves = [[iou] for iou in answer.ious[:, 0].tolist()]
    left = list(range(len(targets)))  # those that are not right yet, in the order of `answer`
    for _ in range(clicks - 1):
        places = []  # of those that are still wrong, in the answer
        wrong = []
        for place, (k, mask) in enumerate(zip(left, answer.masks, strict=True)):
            error = corrective_click(targets[k].truth, mask, ignore)
            if error is None:
                continue
            click_xy, on_object = error
            coords = np.concatenate([prompts[k].point_coords, np.asarray([click_xy], np.float32)])
            prompts[k] = Prompt(coords, np.append(prompts[k].point_labels, np.int64(on_object)))
            places.append(place)
            wrong.append(k)
        if not wrong:
            break
        left = wrong
        answer = image.decode([prompts[k] for k in left], [targets[k] for k in left], mask_input=answer.low[places])
        for k, iou in zip(left, answer.ious[:, 0].tolist(), strict=True):
            curves[k].append(iou)
    return [tuple(curve + curve[-1:] * (clicks - len(curve))) for curve in curves]


def _with_draws(
    scores: Sequence[ObjectScore], image: ScoredImage, sample: str, protocol: Protocol
) -> list[ObjectScore]:
    """Score jittered boxes and random clicks; each draw depends only on seed, sample and region."""
    targets = image.targets.found
    repeats = protocol.repeats
    jittered = []
    clicks = []
    for target in targets:
        box = tight_box(target.region)
        for draw in range(repeats):
            rng = _generator(protocol.seed, sample, target.index, "box", draw)
            jittered.append(_box_prompt(jitter_box(box, image.letterbox.original_hw, rng)))
            rng = _generator(protocol.seed, sample, target.index, "click", draw)
            clicks.append(Prompt.points([random_click(target.seen, rng)]))
    repeated = [target for target in targets for _ in range(repeats)]
    of_boxes = image.single_ious(jittered, repeated)[:, 0].reshape(-1, repeats).tolist()
    of_clicks = image.single_ious(clicks, repeated)[:, 0].reshape(-1, repeats).tolist()
    drawn = []
    for score, box_ious, click_ious in zip(scores, of_boxes, of_clicks, strict=True):
        drawn.append(replace(score, jittered_boxes=tuple(box_ious), random_clicks=tuple(click_ious)))
    return drawn


def _box_prompt(box: npt.NDArray[np.float32]) -> Prompt:
    return Prompt(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), box)


def _generator(seed: int, *what: object) -> np.random.Generator:
    name = hashlib.sha256(repr(what).encode()).digest()[:8]
    return np.random.default_rng([seed, int.from_bytes(name, "big")])
