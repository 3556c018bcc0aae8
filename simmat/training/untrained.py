"""Scores the model of a config before any training: the zero-shot score a trained one is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from simmat.config import TrainConfig
from simmat.evaluation import Scores, evaluate, find_protocol
from simmat.model import assemble, count_parameters
from simmat.nn.device import pick_device
from simmat.plugins.registry import Registry
from simmat.training.callbacks import Callback
from simmat.training.setup import prepare


@dataclass(frozen=True)
class Untrained:
    """What the untrained model of a config scores.

    Attributes:
        scores: on the samples asked for.
        parameters: of the network, in all.
        fingerprint: of the data set's contents.
        device: it ran on.
    """

    scores: Scores
    parameters: int
    fingerprint: str
    device: str


def score_untrained(config: TrainConfig, registry: Registry, split: str) -> Untrained:
    """Build the network of a config as training would, and score it as it is.

    Args:
        config: of the run.
        registry: where names are looked up.
        split: "train", "val" or "test"; the channel statistics are those of the training images in any case.

    Raises:
        SimMATError: whatever is wrong with the names, the data or the weights.
    """
    setup = prepare(config, registry, Callback())
    device = pick_device(config.device)
    model = assemble(setup.spec, setup.parts).to(device)
    samples = setup.dataset.split(split)
    scores = evaluate(model, setup.pipeline, setup.dataset, samples, protocol=find_protocol(config.protocol))
    return Untrained(scores, count_parameters(model)[1], setup.fingerprint, str(device))
