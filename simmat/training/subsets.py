"""Choose the samples of a run: a part of the training split, and those that its validations are made on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from simmat.config import TrainConfig
from simmat.data.index import DataIndex
from simmat.data.samples import Sample, id_digest
from simmat.errors import ConfigError
from simmat.model_spec import ModelSpec

_ENOUGH_WORK = 100
"""`work_of_validation` that is enough to compare the steps of a run: about as many images."""
_MAX_VALIDATIONS, _MIN_VALIDATIONS = 10, 5
_TRAIN_STEP_COST = 3
"""How often an image is encoded, or a prompt answered, in the time of one in a step, which also goes back."""


def subset_of(samples: Sequence[Sample], config: TrainConfig) -> tuple[Sample, ...]:
    """Return the training samples selected by `train_images` or `train_share`, in the order of the data set.

    They are the first by sha256 of seed and id: the same for every network trained with that seed, and a smaller
    subset is part of a larger one.
    """
    count = len(samples)
    if config.train_share is not None:
        count = max(math.ceil(config.train_share * count - 1e-9), 1)  # 0.1 of 30 is 3 in spite of rounding
    if config.train_images is not None:
        count = config.train_images
    if count > len(samples):
        raise ConfigError(
            f"--train-images {count} is more than the {len(samples)} training samples with a region in {config.data}; "
            f"use at most {len(samples)}, or leave it out"
        )
    return _drawn(samples, count, config.seed)


def _drawn(
    samples: Sequence[Sample], count: int, seed: int, first_of: Callable[[], Sequence[Sample]] = tuple
) -> tuple[Sample, ...]:
    """Return the first samples by sha256 of seed and id, and before them one of `first_of`, in the order given."""
    if count == len(samples):
        return tuple(samples)
    needed = {sample.id for sample in first_of()}
    drawn = sorted(samples, key=lambda sample: id_digest(f"{seed}/{sample.id}"))
    first = next((sample for sample in drawn if sample.id in needed), None)
    chosen = {sample.id for sample in sorted(drawn, key=lambda sample: sample is not first)[:count]}
    return tuple(sample for sample in samples if sample.id in chosen)


def validation_subset(index: DataIndex, config: TrainConfig, spec: ModelSpec) -> tuple[Sample, ...]:
    """Return the validation samples on which a run is scored, in the order of the data set.

    They are all, or the first by sha256 of seed and id (one with a region before all others): as many as the config
    says, or where it sets neither them nor `val_every`, those whose work is `_ENOUGH_WORK`. Runs of any length on
    the same data have the same samples, so their scores can be compared.
    """
    every = index.dataset.split("val")
    count = config.val_images or len(every)
    if count > len(every):
        raise ConfigError(
            f"--val-images {count} is more than the {len(every)} validation samples in {config.data}; use at most "
            f"{len(every)}, or leave it out"
        )
    if config.val_images is None and config.val_every is None:
        count = min(count, max(int(len(every) * _ENOUGH_WORK / work_of_validation(index, every, config, spec)), 1))
    return _drawn(every, count, config.seed, lambda: index.with_regions(every, "validation"))


def work_of_validation(index: DataIndex, val: Sequence[Sample], config: TrainConfig, spec: ModelSpec) -> float:
    """Return the work of a validation, which encodes images and answers prompts, in units of an image of a step.

    Models differ in which of both takes long, so the larger of the two numbers counts. The unit goes forward only.
    """
    prompts = len(index.table_of(val).instances) * (1 if spec.dense is None else 2)
    questions = config.prompts_per_image * (1 + config.correction_clicks)
    return max(len(val), prompts / questions)


def validation_interval(
    index: DataIndex, val: Sequence[Sample], config: TrainConfig, spec: ModelSpec, steps: int
) -> int:
    """Return the steps between validations: from the config, or so many that validation is at most a fifth of the work.

    At most `_MAX_VALIDATIONS` are made, and at least `_MIN_VALIDATIONS`, which show how the score rises.
    """
    if config.val_every is not None:
        return config.val_every
    allowed = steps * config.batch_size * _TRAIN_STEP_COST / 4
    validations = int(allowed / work_of_validation(index, val, config, spec))
    return math.ceil(steps / min(max(validations - 1, _MIN_VALIDATIONS), _MAX_VALIDATIONS))
