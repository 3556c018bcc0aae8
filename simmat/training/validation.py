"""What a validation scores and how often there is one, by its work beside that of the steps.

Work is counted in encoded images and answered prompts. No clock decides, so that every run of the same settings on the
same data has the same validations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simmat.config import MIN_TO_CHOOSE, TrainConfig
from simmat.data.index import DataIndex
from simmat.data.samples import Sample, draw_samples
from simmat.errors import ConfigError
from simmat.evaluation import clicks_per_window
from simmat.model_spec import ModelSpec
from simmat.predictor.tiles import plan_windows
from simmat.types import max_untiled_side

ENOUGH_WORK = 120
"""Work of a validation, see `work_of_validation`, that is enough to compare the steps of a run."""
MAX_OBJECTS = 100
"""About how many objects a validation prompts for; of more, it draws as many."""
_MAX_VALIDATIONS = 10
_TRAIN_STEP_COST = 3
"""Work of an image in a step, which goes forward and back, for each work of one in a validation, which goes forward."""
_STEPS_BESIDE = 4
"""Work of the steps for each work of a validation, which then takes a fifth of the time."""


def validation_subset(
    index: DataIndex, config: TrainConfig, spec: ModelSpec
) -> tuple[Sample, ...]:
    """Return the validation samples on which a run is scored, in the order of the data set.

    They are all, or the first by sha256 of seed and id (one with a region before all others): as many as the config
    says, or where it sets neither them nor `val_every`, those whose work is `ENOUGH_WORK`, but enough to choose by.
    Runs of any length on the same data have the same samples, so their scores can be compared.
    """
    every = index.dataset.split("val")
    count = config.val_images or len(every)
    if count > len(every):
        raise ConfigError(
            f"--val-images {count} is more than the {len(every)} validation samples in {config.data}; use at most "
            f"{len(every)}, or leave it out"
        )

    def first_by_hash(count: int) -> tuple[Sample, ...]:
        return draw_samples(
            every, count, config.seed, lambda: index.with_regions(every, "validation")
        )

    if config.val_images is None and config.val_every is None:
        count = min(count, ENOUGH_WORK)
        while count > MIN_TO_CHOOSE:
            if (
                work_of_validation(index, first_by_hash(count), config, spec)
                <= ENOUGH_WORK
            ):
                break
            count -= 1
    return first_by_hash(count)


def prompted_share(index: DataIndex, val: Sequence[Sample]) -> float:
    """Return the share of the objects of some samples that a validation prompts for."""
    objects = len(index.table_of(val).instances)
    return min(MAX_OBJECTS / max(objects, 1), 1.0)


def work_of_validation(
    index: DataIndex, val: Sequence[Sample], config: TrainConfig, spec: ModelSpec
) -> float:
    """Return the work of a validation, which encodes images and answers prompts.

    The unit is the work of encoding one image forward, or of answering as many prompts as an image has in a step.
    Models differ in which of both takes long, so the larger of the two numbers counts.

    Args:
        index: the data set.
        val: the samples of the validation.
        config: the settings.
        spec: the network. With a dense head, images in several windows are encoded once more, and each window is
            prompted by as many clicks as `clicks_per_window` allows.
    """
    objects = index.table_of(val).instance_counts()  # (N,) of each image
    windows = _window_counts(index, val, spec)
    encoded_images = windows.sum()
    # a click and a box for each object
    prompts = 2.0 * prompted_share(index, val) * objects.sum()
    if spec.dense is not None:
        encoded_images += windows[windows > 1].sum()
        for count, number in zip(objects.tolist(), windows.tolist(), strict=True):
            prompts += number * clicks_per_window(count, number)
    prompts_per_image = config.prompts_per_image * (1 + config.correction_clicks)
    return float(max(encoded_images, prompts / prompts_per_image))


def _window_counts(
    index: DataIndex, val: Sequence[Sample], spec: ModelSpec
) -> npt.NDArray[np.int64]:
    """Return (N,) numbers of windows into which a predictor cuts the images, see `Predictor.open_reader`."""
    untiled = max_untiled_side(
        spec.image_size, spec.image_side, takes_windows=bool(spec.card.crop)
    )
    side = spec.image_side or spec.image_size
    counts = []
    for height, width in index.sizes_hw(val).tolist():
        if max(height, width) <= untiled:
            counts.append(1)
        else:
            counts.append(len(plan_windows((height, width), side, side // 8)))
    return np.asarray(counts, np.int64)


def steps_per_validation(work: float, batch_size: int) -> int:
    """Return the steps between validations of a training with an open end: they take four times as long as one.

    Args:
        work: `work_of_validation`.
        batch_size: images in each step.
    """
    return math.ceil(_STEPS_BESIDE * work / (_TRAIN_STEP_COST * batch_size))


def validation_interval(work: float, steps: int, batch_size: int) -> int:
    """Return the steps between validations of a fixed number of steps, so that they are at most a fifth of all work.

    At most `_MAX_VALIDATIONS` follow the first one, before the first step. The last step always has one.

    Args:
        work: `work_of_validation`.
        steps: of the run.
        batch_size: images in each step.
    """
    allowed = steps * batch_size * _TRAIN_STEP_COST / _STEPS_BESIDE
    validations = int(allowed / work)
    return math.ceil(steps / min(max(validations - 1, 1), _MAX_VALIDATIONS))
