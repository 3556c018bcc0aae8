"""How long a training is: the number of steps by the work that they take, and the end that validations decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal, NamedTuple

from simmat.config import MIN_TO_CHOOSE, TrainConfig, default_steps
from simmat.training.validation import steps_per_validation, validation_interval

_FEWEST_SCORES = 6
"""Fewest validations to judge by: `rise_of` then compares the medians of two scores each, which jump less than one."""
_PATIENCE = 2
"""Validations in a row that must find no rise; a single one may find none by chance."""


class Ending(NamedTuple):
    """The end of a training.

    Attributes:
        cooldown_start: number of steps after which the learning rate begins to fall.
        steps: number of all steps.
    """

    cooldown_start: int
    steps: int


@dataclass(frozen=True, slots=True)
class OpenEnd:
    """The rule by which the validations of a training decide when it ends.

    Attributes:
        min_steps: fewest steps of the training.
        max_steps: most steps.
        min_rise: what `rise_of` must exceed, so that the training goes on. It compares thirds of the steps, so the
            patience grows with the steps, and medians, which pass over the jumps of scores at a constant rate.
        cooldown_share: steps of the cool-down, as a share of those before it.
    """

    min_steps: int = 250
    max_steps: int = 1600
    min_rise: float = 0.01
    cooldown_share: float = 0.25

    def ending(self, scores: Sequence[float], val_every: int) -> Ending:
        """Return the end that these scores decide, or else the last possible one.

        Later scores never change an end that earlier ones decided.

        Args:
            scores: 0 to 1, after 0, `val_every`, 2 `val_every` … steps.
            val_every: steps between validations.
        """
        latest_start = math.floor(self.max_steps / (1 + self.cooldown_share))
        without_rise = 0  # validations in a row
        for count in range(_FEWEST_SCORES, len(scores) + 1):
            done = (count - 1) * val_every
            if done >= latest_start:
                break
            steps = math.ceil(done * (1 + self.cooldown_share))
            if rise_of(scores[:count]) > self.min_rise:
                without_rise = 0
                continue
            without_rise += 1
            if without_rise >= _PATIENCE and steps >= self.min_steps:
                return Ending(done, steps)
        return Ending(latest_start, self.max_steps)


def rise_of(scores: Sequence[float]) -> float:
    """Return the median score of the last third of the steps, less that of the third before.

    Args:
        scores: at equal distances, the first one before the first step; at least 3.
    """
    intervals = len(scores) - 1
    # the indices of the first scores after one third and after two thirds of the steps
    one_third = intervals // 3 + 1
    two_thirds = 2 * intervals // 3 + 1
    return median(scores[two_thirds:]) - median(scores[one_third:two_thirds])


OPEN_END = OpenEnd()
_OPEN_WARMUP = 20
_OPEN_VAL_EVERY = 25
_OPEN_VAL_EVERY_AT_MOST = 100


class Length(NamedTuple):
    """The length of a training.

    Attributes:
        steps_setting: `steps` of the resolved config; None if the config has `epochs`.
        steps: number of steps; the most if the end is open.
        open_end: how the validations decide the end; None if the number of steps is fixed.
        warmup: number of steps of linear warm-up.
        val_every: steps between validations.
        note: what to tell the user; "" for nothing.
    """

    steps_setting: int | Literal["auto"] | None
    steps: int
    open_end: OpenEnd | None
    warmup: int
    val_every: int
    note: str = ""


def find_length(
    config: TrainConfig, train_count: int, val_count: int, work: float
) -> Length:
    """Return the length of a training that a config asks for.

    Args:
        config: the settings.
        train_count: number of samples of an epoch.
        val_count: number of samples of a validation.
        work: `work_of_validation`.
    """
    if config.epochs is not None:
        steps = math.ceil(config.epochs * train_count / config.batch_size)
        return _fixed(config, None, max(steps, 1), work)
    if isinstance(config.steps, int):
        return _fixed(config, config.steps, config.steps, work)
    why = why_not_open(config, val_count)
    if why:
        steps = default_steps(train_count)
        note = f"The training takes {steps} steps (--steps): {why}."
        return _fixed(config, steps, steps, work, note)
    end = OPEN_END
    every = steps_per_validation(work, config.batch_size)
    every = min(max(every, _OPEN_VAL_EVERY), _OPEN_VAL_EVERY_AT_MOST)
    return Length(
        steps_setting="auto",
        steps=end.max_steps,
        open_end=end,
        warmup=_given(config.warmup_steps, _OPEN_WARMUP),
        val_every=_given(config.val_every, every),
        note=f"The training ends when its validation no longer rises, after {end.min_steps} to {end.max_steps} steps "
        "(--steps sets a number).",
    )


def why_not_open(config: TrainConfig, val_count: int) -> str:
    """Return why a validation of so many images cannot decide when a training ends; "" if it can."""
    if config.protocol != "one-click":
        return f"protocol {config.protocol} has a schedule of its own"
    if val_count < MIN_TO_CHOOSE:
        return f"{val_count} validation images are too few to tell when it should end"
    return ""


def _fixed(
    config: TrainConfig,
    steps_setting: int | None,
    steps: int,
    work: float,
    note: str = "",
) -> Length:
    """Return the length of a training with a fixed number of steps."""
    return Length(
        steps_setting=steps_setting,
        steps=steps,
        open_end=None,
        warmup=_given(config.warmup_steps, min(steps // 20, 100)),
        val_every=_given(
            config.val_every, validation_interval(work, steps, config.batch_size)
        ),
        note=note,
    )


def _given(value: int | None, default: int) -> int:
    """Return a setting, or its default if it is not set."""
    if value is None:
        return default
    return value
