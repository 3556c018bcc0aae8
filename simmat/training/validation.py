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

Ints = npt.NDArray[np.int64]

ENOUGH_WORK = 120
"""`work_of_validation` that is enough to compare the steps of a run."""
MAX_OBJECTS = 100
"""About how many objects a validation prompts for; of more, it draws as many."""
_MAX_VALIDATIONS = 10
_TRAIN_STEP_COST = 3
"""How often an image is encoded, or a prompt answered, in the time of one in a step, which also goes back."""
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

    def drawn(count: int) -> tuple[Sample, ...]:
        return draw_samples(
            every, count, config.seed, lambda: index.with_regions(every, "validation")
        )

    if config.val_images is None and config.val_every is None:
        count = min(count, ENOUGH_WORK)
        while count > MIN_TO_CHOOSE:
            if work_of_validation(index, drawn(count), config, spec) <= ENOUGH_WORK:
                break
            count -= 1
    return drawn(count)


def prompted_share(index: DataIndex, val: Sequence[Sample]) -> float:
    """Return the share of the objects of some samples that a validation prompts for."""
    objects = len(index.table_of(val).instances)
    return min(MAX_OBJECTS / max(objects, 1), 1.0)


def work_of_validation(
    index: DataIndex, val: Sequence[Sample], config: TrainConfig, spec: ModelSpec
) -> float:
    """Return the work of a validation, which encodes images and answers prompts, in units of an image of a step.

    Models differ in which of both takes long, so the larger of the two numbers counts. The unit goes forward only.
    Large images are encoded in windows, once for prompts and with a dense head once more, whose clicks are as many as
    `clicks_per_window` allows.
    """
    counts = index.table_of(val).instance_counts()
    windows = _windows_of(index, val, spec)
    images = windows.sum()
    prompts = 2.0 * prompted_share(index, val) * counts.sum()
    if spec.dense is not None:
        images += windows[windows > 1].sum()
        for count, number in zip(counts.tolist(), windows.tolist(), strict=True):
            prompts += number * clicks_per_window(count, number)
    questions = config.prompts_per_image * (1 + config.correction_clicks)
    return float(max(images, prompts / questions))


def _windows_of(index: DataIndex, val: Sequence[Sample], spec: ModelSpec) -> Ints:
    """Return the windows into which a predictor cuts each image, see `Predictor.open_reader`: (N,)."""
    untiled = max_untiled_side(
        spec.image_size, spec.image_side, takes_windows=bool(spec.card.crop)
    )
    side = spec.image_side or spec.image_size
    windows = []
    for height, width in index.sizes_hw(val).tolist():
        if max(height, width) <= untiled:
            windows.append(1)
        else:
            windows.append(len(plan_windows((height, width), side, side // 8)))
    return np.asarray(windows, np.int64)


def steps_per_validation(work: float, batch_size: int) -> int:
    """Return the steps between validations that take four times as long as one.

    Args:
        work: `work_of_validation`.
        batch_size: images in each step.
    """
    return math.ceil(_STEPS_BESIDE * work / (_TRAIN_STEP_COST * batch_size))


def validation_interval(work: float, steps: int, batch_size: int) -> int:
    """Return the steps between validations, so many that validation is at most a fifth of all work.

    At most `_MAX_VALIDATIONS` follow the first one, before the first step. The last step always has one.

    Args:
        work: `work_of_validation`.
        steps: of the run.
        batch_size: images in each step.
    """
    allowed = steps * batch_size * _TRAIN_STEP_COST / _STEPS_BESIDE
    validations = int(allowed / work)
    return math.ceil(steps / min(max(validations - 1, 1), _MAX_VALIDATIONS))
