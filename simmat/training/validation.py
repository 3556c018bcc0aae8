"""Score the network of a run on the validation split, and the untrained network of a config on any split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from simmat.callbacks import Callback
from simmat.config import TrainConfig
from simmat.evaluation import Scores, evaluate, find_protocol
from simmat.model import assemble, count_parameters
from simmat.nn.device import pick_device
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.training.setup import prepare


def choosing_score(summary: Mapping[str, Any]) -> float:
    """Return the score by which the best bundle is chosen, from `Scores.summary` of a validation.

    It is the mean IoU of one click, or with a dense head its mean with the AP50 of every object and the mIoU of the
    class map, as far as there are such figures.
    """
    blocks = (("everything", "ap50"), ("semantic", "miou"))
    dense = [value for block, key in blocks if (value := summary.get(block, {}).get(key)) is not None]
    return fmean([summary["miou_object"], *dense]) if dense else float(summary["miou_object"])


@dataclass(frozen=True)
class Untrained:
    """The result of `score_untrained`."""

    scores: Scores
    parameters: int
    fingerprint: str
    device: str


def score_untrained(config: TrainConfig, registry: Registry, split: str, *, everything: bool = False) -> Untrained:
    """Build the network of a config as `train` does, and score it untrained on "train", "val" (as `train`) or "test".

    The channel statistics are always those of the training images. `everything` also finds every object by a grid of
    clicks.
    """
    setup = prepare(config, registry, Callback())
    device = pick_device(config.device)
    model = assemble(setup.spec.model_copy(update={"dense": None}), setup.parts).to(device)
    samples = setup.val if split == "val" else setup.dataset.split(split)
    predictor = Predictor(model, setup.pipeline, image_side=setup.spec.image_side)
    protocol = find_protocol(config.protocol)
    scores = evaluate(predictor, setup.dataset, samples, protocol=protocol, everything=everything)
    return Untrained(scores, count_parameters(model)[1], setup.contents.fingerprint, str(device))
