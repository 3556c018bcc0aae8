"""When a training ends, decided by its validations: warm-up, a constant rate, and a cool-down in which the rate falls.

A cosine must know its end before the first step. Here the rate stays at its peak until the score no longer rises, and
falls only then (Hägele et al. 2024, arXiv 2405.18392). Everything is a function of the scores so far, which a state of
the run holds, so that a resumed run ends where the whole one would have ended.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


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
        patience: share of the steps so far: without a rise in that last share the cool-down begins.
        rise: by how much the best score must exceed the earlier ones.
        cooldown: steps of the cool-down, as a share of those before it.
    """

    fewest: int = 100
    most: int = 1600
    patience: float = 0.33
    rise: float = 0.005
    cooldown: float = 0.25

    def ending(self, scores: Sequence[float], val_every: int) -> Ending:
        """Return the end, by the scores after 0, `val_every`, 2 `val_every` … steps; the last possible one at first.

        Later scores never change an end that earlier ones decided.
        """
        latest = math.floor(self.most / (1 + self.cooldown))
        for count in range(2, len(scores) + 1):
            done = (count - 1) * val_every
            if done >= latest:
                break
            steps = math.ceil(done * (1 + self.cooldown))
            if steps >= self.fewest and not self._rises(scores[:count]):
                return Ending(done, steps)
        return Ending(latest, self.most)

    def _rises(self, scores: Sequence[float]) -> bool:
        """Return whether the score rose in the last steps."""
        last = len(scores) - 1
        before = math.floor(last * (1 - self.patience))
        return max(scores) > max(scores[: before + 1]) + self.rise
