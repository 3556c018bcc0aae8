"""The calibration of a bundle: maps from its scores to measured quality, fitted on the validation split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from simmat.documents import FromLists, StrictModel
from simmat.errors import ConfigError

Kind = Literal["click", "box", "object", "class_probability", "pixel"]
"""What a score belongs to: a mask of a click or box, an object found without a prompt, its class, the class of a
pixel."""
KINDS: Mapping[str, str] = {
    "click": "clicks",
    "box": "boxes",
    "object": "found objects",
    "class_probability": "classes of objects",
    "pixel": "classes of pixels",
}
"""Kind of score -> its title."""
MAX_ERROR_RATE = 0.1
"""Share of wrong objects that `--min-score auto` accepts by default."""
MAX_PERCENT = 50
"""Largest share of wrong objects, in percent, for which a bundle stores a threshold."""
RIGHT_IOU = 0.5
"""Smallest IoU with a true object at which a found object counts as right."""

Numbers = FromLists[tuple[Annotated[float, Field(ge=0, le=1)], ...]]


class MonotonicMap(StrictModel):
    """A strictly rising map of 0 to 1 into itself, linear between its knots; it changes no ranking.

    Attributes:
        predicted: scores of the network, rising from 0 to 1.
        true: the mean IoU that belongs to each, rising.
        objects: number of objects that it was fitted to.
        ece: calibration error without it.
        ece_calibrated: calibration error with it, where the map of each image is fitted to the others; None for one
            image.
    """

    predicted: Numbers
    true: Numbers
    objects: int = Field(ge=1)
    ece: float
    ece_calibrated: float | None

    def __call__(self, score: float) -> float:
        """Return the calibrated score; a score outside of 0 to 1 is taken as 0 or 1."""
        return float(np.interp(score, self.predicted, self.true))

    def inverse(self, worth: float) -> float:
        """Return the network's score that has this calibrated score."""
        return float(np.interp(worth, self.true, self.predicted))

    def problems(self) -> Iterator[str]:
        """Yield the reasons why it is no such map."""
        knots = (self.predicted, self.true)
        if len(self.predicted) != len(self.true) or any((np.diff(values) <= 0).any() for values in knots):
            yield "predicted and true must be as many numbers, each rising"
        elif not self.predicted or (self.predicted[0], self.predicted[-1]) != (0, 1):
            yield "predicted must go from 0 to 1"


class Calibration(StrictModel):
    """The maps of a bundle; a map that was not measured is None, and does not change scores.

    Attributes:
        click: predicted IoU of a mask of clicks -> its mean IoU.
        box: the same of a box.
        object: score of an object found without a prompt -> its mean IoU.
        temperature: that of the class probabilities of an object, see `tempered`.
        thresholds: smallest score of an object with which at most 1, 2, 3 … % of the objects are wrong, see
            `simmat.evaluation.calibration.thresholds`; None if there is none.
    """

    click: MonotonicMap | None = None
    box: MonotonicMap | None = None
    object: MonotonicMap | None = None
    temperature: Annotated[float, Field(ge=0.01, le=100)] | None = None
    thresholds: FromLists[tuple[float | None, ...]] = ()

    def problems(self) -> Iterator[str]:
        """Yield the problems of its maps and thresholds."""
        if len(self.thresholds) not in (0, MAX_PERCENT) or any(
            not 0 <= one <= 1 for one in self.thresholds if one is not None
        ):
            yield f"thresholds must be {MAX_PERCENT} scores from 0 to 1, or null"
        for kind, curve in self.curves.items():
            for problem in curve.problems():
                yield f"{kind}: {problem}"

    @property
    def curves(self) -> dict[Kind, MonotonicMap]:
        """The maps that were measured."""
        found: dict[Kind, MonotonicMap | None] = {"click": self.click, "box": self.box, "object": self.object}
        return {kind: curve for kind, curve in found.items() if curve is not None}


def calibrated(calibration: Calibration | None, kind: Kind, score: float) -> float:
    """Return the calibrated score, or the score itself if its calibration was not measured."""
    curve = None if calibration is None else calibration.curves.get(kind)
    if curve is None:
        return score
    return curve(score)


def tempered(probabilities: npt.NDArray[Any], temperature: float) -> npt.NDArray[Any]:
    """Return p^(1/T) of (…, K) probabilities of K classes, divided by their sum; the most likely class stays so.

    This is temperature scaling (Guo et al. 2017, arXiv 1706.04599), with log p as the logits.
    """
    inside = np.clip(probabilities, 1e-9, 1)
    powers: npt.NDArray[Any] = (inside / inside.max(-1, keepdims=True)) ** (1 / temperature)
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def calibrated_classes(
    calibration: Calibration | None, probabilities: Mapping[int, float] | None
) -> Mapping[int, float] | None:
    """Return the calibrated probability of each class of an object, or the given ones if this was not measured."""
    if probabilities is None or calibration is None or calibration.temperature is None:
        return probabilities
    found = tempered(np.array(list(probabilities.values()), np.float64), calibration.temperature)
    return dict(zip(probabilities, found.tolist(), strict=True))


def min_score(calibration: Calibration | None, max_error_rate: float, origin: str) -> float:
    """Return the smallest score with which the share of wrong objects stays within `max_error_rate`.

    Args:
        calibration: that of the model.
        max_error_rate: the share, rounded down to whole percent.
        origin: the model, for errors.

    Raises:
        ConfigError: the model has no calibration of objects, or validation cannot promise so small a share.
    """
    table = () if calibration is None else calibration.thresholds
    if not table:
        raise ConfigError(
            f"--min-score auto: {origin} has no calibration of objects; a training with --heads prompt,dense "
            "measures it if it finds ten objects or more in the validation split. Give a number, or train that way"
        )
    percent = min(math.floor(100 * max_error_rate + 1e-9), len(table))
    found = table[percent - 1] if percent > 0 else None
    if found is None:
        known = [number for number, score in enumerate(table, start=1) if score is not None]
        if known:
            allowed = f"the smallest share it can promise is {known[0] / 100:g}"
        else:
            allowed = "it can promise no share"
        raise ConfigError(
            f"--max-error-rate {max_error_rate:g}: too few objects of the validation split of {origin} were right "
            f"for this; {allowed}. Give --min-score a number, or train on more labels"
        )
    return found
