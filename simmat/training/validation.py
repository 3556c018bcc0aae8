"""Score a network on the validation split, and say by one number how good it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from simmat.evaluation import Processes, Scores, evaluate, evaluate_unprompted, find_protocol
from simmat.everything import EverythingSettings
from simmat.model import SimMAT
from simmat.predictor import Predictor
from simmat.training.setup import Setup

MOST_CLICKS = 256
"""Most clicks by which every object of an image is found: an untrained head has peaks everywhere."""


def validate(model: SimMAT, setup: Setup, processes: Processes, progress: Callable[[int], None]) -> Scores:
    """Score the network of a run: by clicks, and where it has a dense head also without prompts.

    Args:
        model: the network; it is put into eval mode.
        setup: its data and pipeline.
        processes: those that share the samples; each of them gets all scores.
        progress: called with 1 after every pass over a sample of this process, see `passes`.
    """
    scores = evaluate(
        model,
        setup.pipeline,
        setup.dataset,
        setup.val,
        protocol=find_protocol(setup.config.protocol),
        processes=processes,
        progress=progress,
    )
    if setup.spec.dense is None:
        return scores
    found = evaluate_unprompted(
        Predictor(model, setup.pipeline, dense=setup.spec.dense, image_side=setup.spec.image_side),
        setup.dataset,
        setup.val,
        everything=not all(setup.dataset.may_have_unmarked(sample) for sample in setup.val),
        settings=EverythingSettings(most=MOST_CLICKS),
        processes=processes,
        progress=progress,
    )
    return replace(scores, unprompted=found)


def passes(setup: Setup) -> int:
    """Return how often a validation goes over its samples."""
    return 1 if setup.spec.dense is None else 2


def choosing_score(summary: Mapping[str, Any]) -> float:
    """Return the score by which the best bundle is chosen, from the summary of a validation, see `Scores.summary`.

    It is the mean IoU of one click, or with a dense head the mean of that, the AP50 of every object and the mIoU of the
    class map, as far as there are such figures.
    """
    blocks = (("everything", "ap50"), ("semantic", "miou"))
    dense = [value for block, key in blocks if (value := summary.get(block, {}).get(key)) is not None]
    return fmean([summary["miou_object"], *dense]) if dense else float(summary["miou_object"])
