"""Training on a part of the images, as where few have labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simmat.config import TrainConfig
from simmat.data.samples import Sample, id_digest
from simmat.errors import ConfigError


def few_of(samples: Sequence[Sample], config: TrainConfig) -> tuple[Sample, ...]:
    """Return the training samples that `train_images` or `train_share` leave, in the order of the data set.

    Which ones is decided by the order of sha256(seed and id): the same for every network trained with
    that seed, and a smaller number lies within a larger one.

    Raises:
        ConfigError: more images are asked for than there are.
    """
    count = len(samples)
    if config.train_share is not None:
        count = max(math.ceil(config.train_share * count - 1e-9), 1)  # 0.1 of 30 is 3, whatever floats say
    if config.train_images is not None:
        count = config.train_images
    if count > len(samples):
        raise ConfigError(
            f"--train-images {count} is more than the {len(samples)} training samples with a region in {config.data}; "
            f"use at most {len(samples)}, or leave it out"
        )
    drawn = sorted(samples, key=lambda sample: id_digest(f"{config.seed}/{sample.id}"))
    chosen = {sample.id for sample in drawn[:count]}
    return tuple(sample for sample in samples if sample.id in chosen)


def note_on(used: Sequence[Sample], every: Sequence[Sample], config: TrainConfig) -> str:
    """Say how many samples are trained on, where it is not all of them."""
    if len(used) == len(every):
        return ""
    return f"{len(used)} of {len(every)} training samples are used, drawn by seed {config.seed}."
