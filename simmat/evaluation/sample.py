"""Scoring the objects of one image: the first click, clicks on errors, and prompts drawn by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from simmat.data.clicks import corrective_click, jitter_box, random_click, tight_box
from simmat.evaluation.interaction import Answer, ScoredImage, box_prompt
from simmat.evaluation.protocol import Protocol
from simmat.evaluation.scores import ObjectScore, boundary_iou, boundary_width
from simmat.evaluation.targets import Target
from simmat.types import Prompt


def score_objects(image: ScoredImage, sample: str, protocol: Protocol) -> list[ObjectScore]:
    """Ask about every object of an image as a protocol says.

    Args:
        image: encoded, with at least one object.
        sample: id of the sample.
        protocol: what is asked.
    """
    found = image.targets.found
    scores: list[ObjectScore] = []
    for start in range(0, len(found), image.together):
        rows = range(start, min(start + image.together, len(found)))
        first = [Prompt.points([found[row].click_xy]) for row in rows]
        answer = image.ask(first, rows, alternatives=protocol.alternatives)
        part = [_first_score(found[row], sample, answer, place, protocol) for place, row in enumerate(rows)]
        if protocol.grid == "original":
            borders = (
                boundary_iou(mask, found[row].truth, image.targets.scored, boundary_width(found[row].image_hw))
                for mask, row in zip(answer.masks, rows, strict=True)
            )
            part = [replace(score, boundary_iou=iou) for score, iou in zip(part, borders, strict=True)]
        if protocol.clicks > 1:
            curves = click_curves(image, rows, answer, protocol.clicks)
            part = [replace(score, clicks=curve) for score, curve in zip(part, curves, strict=True)]
        scores += part
    return _with_draws(scores, image, sample, protocol) if protocol.draws else scores


def click_curves(image: ScoredImage, rows: Sequence[int], answer: Answer, clicks: int) -> list[tuple[float, ...]]:
    """Mend K answers click by click, each at the centre of the largest error, with the answer before as mask input.

    Args:
        image: what is asked.
        rows: K numbers of targets.
        answer: to their first clicks.
        clicks: how many there are at most, the first included.

    Returns:
        K times the IoU after 1, 2, … `clicks` clicks. Where nothing is wrong any more the last IoU stays.
    """
    found, ignore = image.targets.found, image.targets.ignore
    prompts = [Prompt.points([found[row].click_xy]) for row in rows]
    curves = [[iou] for iou in answer.ious[:, 0].tolist()]
    asked = list(range(len(rows)))
    for _ in range(clicks - 1):
        errors = [
            corrective_click(found[rows[k]].truth, mask, ignore) for k, mask in zip(asked, answer.masks, strict=True)
        ]
        wrong = [(place, error) for place, error in enumerate(errors) if error is not None]
        if not wrong:
            break
        for place, (click_xy, on_object) in wrong:
            prompts[asked[place]] = _with_click(prompts[asked[place]], click_xy, on_object)
        places = [place for place, _ in wrong]
        asked = [asked[place] for place in places]
        answer = image.ask([prompts[k] for k in asked], [rows[k] for k in asked], mask_input=answer.low[places])
        for k, iou in zip(asked, answer.ious[:, 0].tolist(), strict=True):
            curves[k].append(iou)
    return [tuple(curve + curve[-1:] * (clicks - len(curve))) for curve in curves]


def _with_click(prompt: Prompt, click_xy: tuple[float, float], on_object: int) -> Prompt:
    coords = np.concatenate([prompt.point_coords, np.asarray([click_xy], np.float32)])
    return Prompt(coords, np.append(prompt.point_labels, np.int64(on_object)))


def _with_draws(
    scores: Sequence[ObjectScore], image: ScoredImage, sample: str, protocol: Protocol
) -> list[ObjectScore]:
    """Ask with tight and jittered boxes and random clicks; a draw depends on seed, sample and region alone."""
    boxes, jittered, clicks = [], [], []
    for target in image.targets.found:
        box = tight_box(target.region)
        boxes.append(box_prompt(box))
        for draw in range(protocol.draws):
            rng = _generator(protocol.seed, sample, target.index, "box", draw)
            jittered.append(box_prompt(jitter_box(box, target.image_hw, rng)))
            rng = _generator(protocol.seed, sample, target.index, "click", draw)
            clicks.append(Prompt.points([random_click(target.seen, rng)]))
    rows = range(len(boxes))
    several = [row for row in rows for _ in range(protocol.draws)]
    tight = image.single_ious(boxes, rows)
    loose = _in_groups(image.single_ious(jittered, several), protocol.draws)
    anywhere = _in_groups(image.single_ious(clicks, several), protocol.draws)
    return [
        replace(score, box=tight[row], jittered_boxes=loose[row], random_clicks=anywhere[row])
        for row, score in enumerate(scores)
    ]


def _generator(seed: int, *what: object) -> np.random.Generator:
    name = hashlib.sha256(repr(what).encode()).digest()[:8]
    return np.random.default_rng([seed, int.from_bytes(name, "big")])


def _in_groups(values: Sequence[float], size: int) -> list[tuple[float, ...]]:
    return [tuple(values[start : start + size]) for start in range(0, len(values), size)]


def _first_score(target: Target, sample: str, answer: Answer, place: int, protocol: Protocol) -> ObjectScore:
    ious, predicted = answer.ious[place], answer.predicted[place]
    guesses = slice(1, None) if len(ious) > 1 else slice(None)
    best = int(predicted[guesses].argmax())
    return ObjectScore(
        sample=sample,
        region=target.index,
        class_id=target.region.class_id,
        area=target.region.area,
        click_xy=(float(target.click_xy[0]), float(target.click_xy[1])),
        iou=float(ious[0]),
        iou_best_predicted=float(ious[guesses][best]) if protocol.alternatives else None,
        iou_oracle=float(ious[guesses].max()) if protocol.alternatives else None,
        predicted_iou=float(predicted[0]),
    )
