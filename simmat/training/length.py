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
"""Of each of the last two thirds of the steps two scores count, whose mean jumps less than one of them."""
_PATIENCE = 2
"""Validations in a row that must find no rise; a single one may find none by chance."""


class Ending(NamedTuple):
    """The end of a training.

    Attributes:
        cooldown: steps before the rate begins to fall.
        steps: all steps.
    """

    cooldown: int
    steps: int


@dataclass(frozen=True, slots=True)
class OpenEnd:
    """The rule by which the validations of a training decide when it ends.

    Attributes:
        fewest: fewest steps of the training.
        most: most steps.
        rise: by how much the median score of the last third of the steps must exceed that of the third before. The
            patience grows with the steps, and a median passes over the jumps of scores at a constant rate.
        cooldown: steps of the cool-down, as a share of those before it.
    """

    fewest: int = 250
    most: int = 1600
    rise: float = 0.01
    cooldown: float = 0.25

    def ending(self, scores: Sequence[float], val_every: int) -> Ending:
        """Return the end, by the scores after 0, `val_every`, 2 `val_every` … steps; the last possible one at first.

        Later scores never change an end that earlier ones decided.
        """
        latest = math.floor(self.most / (1 + self.cooldown))
        flat = 0  # validations in a row
        for count in range(_FEWEST_SCORES, len(scores) + 1):
            done = (count - 1) * val_every
            if done >= latest:
                break
            steps = math.ceil(done * (1 + self.cooldown))
            if rise_of(scores[:count]) > self.rise:
                flat = 0
                continue
            flat += 1
            if flat >= _PATIENCE and steps >= self.fewest:
                return Ending(done, steps)
        return Ending(latest, self.most)


def rise_of(scores: Sequence[float]) -> float:
    """Return the median score of the last third of the steps, less that of the third before.

    Args:
        scores: at equal distances, the first one before the first step; at least 3.
    """
    last = len(scores) - 1
    first = last // 3 + 1
    middle = 2 * last // 3 + 1
    return median(scores[middle:]) - median(scores[first:middle])


OPEN_END = OpenEnd()
_OPEN_WARMUP = 20
_OPEN_VAL_EVERY = 25
_OPEN_VAL_EVERY_AT_MOST = 100


class Length(NamedTuple):
    """The length of a training.

    Attributes:
        setting: what the resolved config says; None if that is `epochs`.
        steps: number of steps; the most if the end is open.
        open_end: how the validations decide the end; None if the number of steps is fixed.
        warmup: number of steps of linear warm-up.
        val_every: steps between validations.
        note: what to tell the user; "" for nothing.
    """

    setting: int | Literal["auto"] | None
    steps: int
    open_end: OpenEnd | None
    warmup: int
    val_every: int
    note: str = ""


def find_length(config: TrainConfig, train: int, val: int, work: float) -> Length:
    """Return the length of a training that a config asks for.

    Args:
        config: the settings.
        train: number of training samples.
        val: number of samples of a validation.
        work: `work_of_validation`.
    """
    if config.epochs is not None:
        steps = math.ceil(config.epochs * train / config.batch_size)
        return _fixed(config, None, max(steps, 1), work)
    if isinstance(config.steps, int):
        return _fixed(config, config.steps, config.steps, work)
    why = why_not_open(config, val)
    if why:
        steps = default_steps(train)
        note = f"The training takes {steps} steps (--steps): {why}."
        return _fixed(config, steps, steps, work, note)
    end = OPEN_END
    every = steps_per_validation(work, config.batch_size)
    every = min(max(every, _OPEN_VAL_EVERY), _OPEN_VAL_EVERY_AT_MOST)
    return Length(
        setting="auto",
        steps=end.most,
        open_end=end,
        warmup=_given(config.warmup_steps, _OPEN_WARMUP),
        val_every=_given(config.val_every, every),
        note=f"The training ends when its validation no longer rises, after {end.fewest} to {end.most} steps "
        "(--steps sets a number).",
    )


def why_not_open(config: TrainConfig, val: int) -> str:
    """Return why a validation of so many images cannot decide when a training ends; "" if it can."""
    if config.protocol != "one-click":
        return f"protocol {config.protocol} has a schedule of its own"
    if val < MIN_TO_CHOOSE:
        return f"{val} validation images are too few to tell when it should end"
    return ""


def _fixed(
    config: TrainConfig, setting: int | None, steps: int, work: float, note: str = ""
) -> Length:
    return Length(
        setting=setting,
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
