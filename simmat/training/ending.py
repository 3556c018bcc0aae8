"""When a training ends, decided by its validations: warm-up, a constant rate, and a cool-down in which the rate falls.

A cosine must know its end before the first step. Here the rate stays at its peak until the score no longer rises, and
falls only then (Hägele et al. 2024, arXiv 2405.18392). Everything is a function of the scores so far, which a state of
the run holds, so that a resumed run ends where the whole one would have ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

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
