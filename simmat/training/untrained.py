"""Score the untrained model of a config: the zero-shot score, with which a trained one is compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

from simmat.config import TrainConfig
from simmat.evaluation import Scores, evaluate, evaluate_unprompted, find_protocol
from simmat.model import assemble, count_parameters
from simmat.nn.device import pick_device
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor
from simmat.training.callbacks import Callback
from simmat.training.setup import prepare


@dataclass(frozen=True)
class Untrained:
    """The result of `score_untrained`."""

    scores: Scores
    parameters: int
    fingerprint: str
    device: str


def score_untrained(config: TrainConfig, registry: Registry, split: str, *, everything: bool = False) -> Untrained:
    """Build the network of a config as `train` does, and score it untrained.

    Args:
        split: "train", "val" or "test"; the channel statistics are always those of the training images.
        everything: find and score every object by a grid of clicks, too.

    Raises:
        SimMATError: a problem with names, data or weights.
    """
    setup = prepare(config, registry, Callback())
    device = pick_device(config.device)
    model = assemble(setup.spec.model_copy(update={"dense": None}), setup.parts).to(device)
    samples = setup.dataset.split(split)
    scores = evaluate(model, setup.pipeline, setup.dataset, samples, protocol=find_protocol(config.protocol))
    if everything:
        predictor = Predictor(model, setup.pipeline, image_side=setup.spec.image_side)
        found = evaluate_unprompted(predictor, setup.dataset, samples, semantic=False)
        scores = replace(scores, unprompted=found)
    return Untrained(scores, count_parameters(model)[1], setup.fingerprint, str(device))
