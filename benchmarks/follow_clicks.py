"""Clicks of a person who labels a simulated thermal video by following, as a share of those of labelling each frame.

    python benchmarks/follow_clicks.py [--frames 200] [--stretch 40] [--foundation lite] [--image-size 256]
        [--json FILE]

Following: the person clicks on the objects of the first frame, then, where they are not right yet, of the worst frame
of each --stretch of frames, and has them followed again, until the mean IoU over all frames is 0.85. Frame by frame:
each object is clicked until its IoU is 0.85, in every fifth frame, counted five times. In both, what ten clicks do not
get right is painted. A click is at the centre of the largest error; it takes one to remove an object that is not there.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
import torch
from follow import MIN_PIXELS, Masks, simulated, untuned
from measuring import Line, add_json_option, report
from simmat_plugin_sequences.given_masks import iou
from untuned import add_model_options

from simmat.data.instances import corrective_click, region_from_mask
from simmat.predictor import Predictor
from simmat.types import BoolArray, Prompt

RIGHT = 0.85
MAX_CLICKS = 10
EVERY = 5


def clicked(predictor: Predictor, truth: BoolArray) -> tuple[BoolArray, int]:
    """Click on the current image until the mask is right; return it, and the clicks. A last resort is to paint it."""
    clicks: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    mask, region = np.zeros_like(truth), region_from_mask(truth, None)
    assert region is not None  # an object has pixels
    for count in range(MAX_CLICKS):
        error = corrective_click(
            region, region_from_mask(mask, None), np.zeros_like(truth)
        )
        if iou(mask, truth) >= RIGHT or error is None:
            return mask, count
        clicks[error[1]].append(error[0])
        mask = predictor.predict_prompts([Prompt.points(clicks[1], clicks[0])])[0].mask
    return truth, MAX_CLICKS


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_options(parser)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--stretch", type=int, default=40)
    add_json_option(parser)
    given = parser.parse_args()
    torch.set_num_threads(1)
    predictor, count = untuned(given, "thermal"), given.frames
    images, planes = zip(*itertools.islice(simulated((96, 128)), count), strict=True)
    ids = [
        one
        for one in np.unique(planes[0]).tolist()
        if one and (planes[0] == one).sum() >= MIN_PIXELS
    ]
    single = 0
    for index in range(0, count, EVERY):
        predictor.set_image(images[index])
        true = [planes[index] == one for one in ids]
        single += EVERY * sum(
            clicked(predictor, mask)[1] for mask in true if mask.any()
        )
    keys: dict[int, Masks] = {}
    worst, spent, j, found = (
        [0],
        0,
        0.0,
        {0: dict.fromkeys(ids, np.zeros_like(planes[0], np.bool_))},
    )
    while j < RIGHT and len(keys) < count:
        for frame in worst:
            predictor.set_image(images[frame])
            keys[frame] = {}
            for one, mask in found[frame].items():
                true = planes[frame] == one
                if not true.any():
                    # one click removes it
                    keys[frame][one], more = true, int(mask.any())
                else:
                    right = mask.any() and iou(mask, true) >= RIGHT
                    keys[frame][one], more = (
                        (mask, 0) if right else clicked(predictor, true)
                    )
                spent += more
        found = {one.index: one.masks for one in predictor.follow(images, keys)}
        means: dict[int, float] = {}
        every: list[float] = []
        for index, masks in found.items():
            pairs = [(mask, planes[index] == one) for one, mask in masks.items()]
            own = [iou(mask, true) for mask, true in pairs if true.any()]
            every += own
            if own and index not in keys:
                means[index] = float(np.mean(own))
        j = float(np.mean(every))
        stretches = itertools.groupby(
            sorted(means), lambda index: index // given.stretch
        )
        worst = [
            index
            for _, own in stretches
            if means[index := min(own, key=means.__getitem__)] < RIGHT
        ]
        print(f"{len(keys)} frames corrected, {spent} clicks: J {j:.3f}", flush=True)
    path = f"label {len(ids)} objects in {count} frames"
    report(
        [
            Line(
                path,
                "clicks",
                [spent],
                f"frame by frame, of every {EVERY}th",
                [single],
                aim=0.2,
            )
        ],
        given.json,
    )


if __name__ == "__main__":
    main()
