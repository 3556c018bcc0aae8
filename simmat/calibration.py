"""Calibration of scores: maps from scores to measured quality, how they are fitted, and what is left of the distance.

A score is calibrated if objects with a score of 0.8 have an IoU of 0.8 on average (or 80 % of them are right, for
classes). A bundle keeps the maps that were fitted on its validation split.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

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

BINS = 15
"""Bins of equal width of the calibration error (Guo et al. 2017, arXiv 1706.04599)."""
_FOLDS = 5
_KNOTS = np.linspace(0, 1, 33)
_MIN_SLOPE = 1e-3
"""Smallest slope of a map, so that it changes no ranking."""
_PRIOR_WEIGHT = 0.3
"""Weight of the prior that scores are calibrated already."""
_PRIOR_OBJECTS = 4
"""Objects added to the fit of a temperature, distributed over the classes as the network predicts."""
_MIN_OBJECTS = 10
_MIN_ISOTONIC = 200
_MAX_KNOTS = 10
"""Objects that a map needs, and those that an isotonic one needs to beat two parameters; its inner knots."""

Values = npt.NDArray[np.float64]
Knots = tuple[Values, Values]

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
        if len(self.predicted) != len(self.true) or any(
            (np.diff(values) <= 0).any() for values in knots
        ):
            yield "predicted and true must have equally many numbers, in rising order"
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
            `thresholds`; None if there is none.
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
        found: dict[Kind, MonotonicMap | None] = {
            "click": self.click,
            "box": self.box,
            "object": self.object,
        }
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
    powers: npt.NDArray[Any] = (inside / inside.max(-1, keepdims=True)) ** (
        1 / temperature
    )
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def calibrated_classes(
    calibration: Calibration | None, probabilities: Mapping[int, float] | None
) -> Mapping[int, float] | None:
    """Return the calibrated probability of each class of an object, or the given ones if this was not measured."""
    if probabilities is None or calibration is None or calibration.temperature is None:
        return probabilities
    found = tempered(
        np.array(list(probabilities.values()), np.float64), calibration.temperature
    )
    return dict(zip(probabilities, found.tolist(), strict=True))


def min_score(
    calibration: Calibration | None, max_error_rate: float, origin: str
) -> float:
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
        known = [
            number for number, score in enumerate(table, start=1) if score is not None
        ]
        if known:
            allowed = f"the smallest share it can promise is {known[0] / 100:g}"
        else:
            allowed = "it can promise no share"
        raise ConfigError(
            f"--max-error-rate {max_error_rate:g}: too few objects of the validation split of {origin} were right "
            f"for this; {allowed}. Give --min-score a number, or train on more labels"
        )
    return found


def no_auto_reason(
    calibration: Calibration | None, found: int, labelled: int
) -> str | None:
    """Say why `--min-score auto` cannot keep `MAX_ERROR_RATE`; None if it can.

    Args:
        calibration: that of the model.
        found: number of objects that it found in the validation split.
        labelled: number of objects that are labelled there.
    """
    table = () if calibration is None else calibration.thresholds
    percent = round(100 * MAX_ERROR_RATE)
    has = f"it found {found} in the validation split, which has {labelled} labelled"
    if not table and found < _MIN_OBJECTS:
        return f"it needs {_MIN_OBJECTS} objects or more, and {has}; label more"
    if not table:
        return f"all objects have the same score ({has}); train longer"
    if table[percent - 1] is None:
        least = math.ceil(1 / MAX_ERROR_RATE) - 1  # (0 + 1) / (least + 1), none wrong
        return (
            f"for {percent} % wrong objects it needs at least {least} right objects with the best scores, and "
            f"more if some of them are wrong; {has}, and too few of these were right. Label more, or train longer"
        )
    return None


class ScoredPredictions(NamedTuple):
    """N scores with the truth.

    Attributes:
        predicted: (N,) 0 to 1.
        true: (N,) the IoU; for classes 1 if right and 0 if wrong, or the share of right ones.
        weights: (N,) number of objects or pixels that each stands for.
        images: (N,) number of the image.
        probabilities: (N, K) of all classes, where the score is that of the likeliest one.
        true_classes: (N,) index of the true class in them; -1 if it is none of them.
    """

    predicted: Values
    true: Values
    weights: Values
    images: npt.NDArray[np.int64]
    probabilities: Values | None = None
    true_classes: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]]) -> ScoredPredictions:
        """Make pairs of (image, score, truth) or (image, score, truth, weight); scores are cut to 0 to 1, NaN is 0."""
        images, predicted, true, *weights = zip(*rows, strict=True)
        scores = np.clip(np.nan_to_num(np.asarray(predicted, np.float64)), 0, 1)
        _, numbers = np.unique(np.asarray(images), return_inverse=True)
        counts = np.asarray(weights[0] if weights else np.ones(len(scores)), np.float64)
        return cls(scores, np.asarray(true, np.float64), counts, numbers)

    @classmethod
    def of_classes(cls, rows: Iterable[Sequence[Any]]) -> ScoredPredictions:
        """Make pairs of (image, index of the true class, *probabilities of the classes); NaN is 0."""
        images, classes, *columns = zip(*rows, strict=True)
        found = np.nan_to_num(np.array(columns, np.float64).T)
        indices = np.asarray(classes, np.int64)
        pairs = cls.of(
            zip(images, found.max(1), found.argmax(1) == indices, strict=True)
        )
        return pairs._replace(probabilities=found, true_classes=indices)

    def where(self, kept: npt.NDArray[np.bool_]) -> ScoredPredictions:
        """Return some of them."""
        probabilities, true_classes = self.probabilities, self.true_classes
        if probabilities is not None and true_classes is not None:
            probabilities = probabilities[kept]
            true_classes = true_classes[kept]
        return ScoredPredictions(
            self.predicted[kept],
            self.true[kept],
            self.weights[kept],
            self.images[kept],
            probabilities,
            true_classes,
        )


Form = Callable[[ScoredPredictions], Knots | float]
"""Fits knots of a curve, or a temperature."""
Rows = Mapping[Kind, Sequence[Sequence[Any]]]
"""Kind of score -> rows as `ScoredPredictions.of` takes them; class probabilities as `of_classes` takes them."""


def pairs_of(rows: Rows) -> dict[Kind, ScoredPredictions]:
    """Return the pairs of each kind of score of which there are some."""
    pairs: dict[Kind, ScoredPredictions] = {}
    for kind, found in rows.items():
        if not found:
            continue
        if kind == "class_probability":
            pairs[kind] = ScoredPredictions.of_classes(found)
        else:
            pairs[kind] = ScoredPredictions.of(found)
    return pairs


def binned(
    bins: int, predicted: Values, true: Values, weights: Values
) -> tuple[Values, Values, Values]:
    """Return mean score, mean truth and weight of each non-empty bin, of some bins of equal width."""
    place = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    total = np.bincount(place, weights, bins)
    kept = total > 0
    weight = np.asarray(total[kept], np.float64)
    mean_score = np.bincount(place, weights * predicted, bins)[kept] / weight
    mean_truth = np.bincount(place, weights * true, bins)[kept] / weight
    return mean_score, mean_truth, weight


def reliability(pairs: ScoredPredictions) -> tuple[Values, Values, Values]:
    """Return mean score, mean truth and weight of each non-empty one of the `BINS` bins."""
    return binned(BINS, pairs.predicted, pairs.true, pairs.weights)


def calibration_error(pairs: ScoredPredictions) -> float:
    """Return the mean over `BINS` bins of the difference of mean score and mean truth, weighted by their number."""
    predicted, true, weights = reliability(pairs)
    return float(weights @ np.abs(predicted - true) / weights.sum())


def risk_coverage(pairs: ScoredPredictions) -> tuple[Values, Values]:
    """Return the (N,) shares kept, best scores first, and for each share the mean of 1 - truth of what is kept."""
    order = np.argsort(-pairs.predicted, kind="stable")
    kept = np.cumsum(pairs.weights[order])
    return kept / kept[-1], np.cumsum((pairs.weights * (1 - pairs.true))[order]) / kept


def risk_area(pairs: ScoredPredictions) -> float:
    """Return the area under the risk by coverage (AURC): the smaller, the better the ranking."""
    coverage, risk = risk_coverage(pairs)
    return float((risk * np.diff(coverage, prepend=0)).sum())


def _platt(pairs: ScoredPredictions) -> Knots:
    """Fit p' = sigmoid(a logit(p) + b), a >= 0, by cross-entropy with a prior for a = 1 and b = 0."""
    from scipy.optimize import minimize
    from scipy.special import expit

    inputs = np.stack([_logit(pairs.predicted), np.ones_like(pairs.predicted)], axis=1)
    start = np.array([1.0, 0.0])

    def loss(parameters: Values) -> tuple[float, Values]:
        logits = inputs @ parameters
        far = parameters - start
        total = (
            pairs.weights @ (np.logaddexp(0, logits) - pairs.true * logits)
            + _PRIOR_WEIGHT / 2 * far @ far
        )
        return float(total), inputs.T @ (
            pairs.weights * (expit(logits) - pairs.true)
        ) + _PRIOR_WEIGHT * far

    slope, offset = minimize(
        loss, start, jac=True, bounds=[(0, None), (None, None)], method="L-BFGS-B"
    ).x
    return _KNOTS, expit(slope * _logit(_KNOTS) + offset)


def _isotonic(pairs: ScoredPredictions) -> Knots:
    """Join groups of neighbours until their means rise (pool adjacent violators)."""
    groups: list[Values] = []
    for rows in np.array_split(
        np.argsort(pairs.predicted, kind="stable"),
        min(_MAX_KNOTS, len(pairs.predicted)),
    ):
        weights = pairs.weights[rows]
        group = np.array(
            [weights @ pairs.predicted[rows], weights @ pairs.true[rows], weights.sum()]
        )
        while groups and (groups[-1][:2] / groups[-1][2] >= group[:2] / group[2]).any():
            group = group + groups.pop()
        groups.append(group)
    predicted, true = np.array(groups).T[:2] / np.array(groups).T[2]
    low = true[0] - predicted[0]
    high = true[-1] - predicted[-1]  # kept up to the ends
    ends = np.clip([min(low, true[0]), max(1 + high, true[-1])], 0, 1)
    # the map is kept in 9 digits
    inner = (np.diff(predicted, prepend=0) > 1e-4) & (predicted < 1 - 1e-4)
    return (
        np.concatenate([[0.0], predicted[inner], [1.0]]),
        np.concatenate([ends[:1], true[inner], ends[1:]]),
    )


def _logit(probabilities: Values) -> Values:
    inside = np.clip(probabilities, 0.02, 0.98)
    return np.log(inside / (1 - inside))


def _temperature(pairs: ScoredPredictions) -> float:
    """Fit a temperature by the log-likelihood of the true classes, and of `_PRIOR_OBJECTS` as the network predicts."""
    from scipy.optimize import minimize_scalar

    assert pairs.probabilities is not None
    assert pairs.true_classes is not None
    rows = np.flatnonzero(pairs.true_classes >= 0)
    probabilities = pairs.probabilities[rows]
    classes = pairs.true_classes[rows, None]
    if not len(rows):
        return 1.0

    def loss(log_temperature: float) -> float:
        logs = np.log(
            np.maximum(tempered(probabilities, math.exp(log_temperature)), 1e-12)
        )
        believed = (probabilities * logs).sum() / len(rows)
        return float(
            -np.take_along_axis(logs, classes, 1).sum() - _PRIOR_OBJECTS * believed
        )

    return math.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)


def _mapped(pairs: ScoredPredictions, fitted: Knots | float) -> ScoredPredictions:
    if not isinstance(fitted, float):
        return pairs._replace(predicted=np.interp(pairs.predicted, *fitted))
    assert pairs.probabilities is not None
    found = tempered(pairs.probabilities, fitted)
    return pairs._replace(predicted=found.max(1), probabilities=found)


def _held_out(pairs: ScoredPredictions, form: Form) -> ScoredPredictions:
    """Map the scores of each fifth of the images by a map fitted to the other images."""
    _, numbers = np.unique(pairs.images, return_inverse=True)
    predicted = np.empty_like(pairs.predicted)
    for fold in range(min(_FOLDS, int(numbers.max()) + 1)):
        own = numbers % _FOLDS == fold
        predicted[own] = _mapped(pairs.where(own), form(pairs.where(~own))).predicted
    return pairs._replace(predicted=predicted)


def _best_form(
    pairs: ScoredPredictions,
) -> tuple[Callable[[ScoredPredictions], Knots], ScoredPredictions | None]:
    """Return the form of map with the smallest squared error on held-out images, and their mapped scores."""
    if len(np.unique(pairs.images)) < 2:
        return _platt, None
    forms = (_platt, _isotonic) if len(pairs.predicted) >= _MIN_ISOTONIC else (_platt,)
    held_out = [_held_out(pairs, form) for form in forms]
    best = int(
        np.argmin([one.weights @ (one.predicted - one.true) ** 2 for one in held_out])
    )
    return forms[best], held_out[best]


def held_out(pairs: ScoredPredictions) -> ScoredPredictions:
    """Return pairs whose scores are calibrated, those of each image by a map, or a temperature, of other images."""
    if pairs.probabilities is not None:
        if len(np.unique(pairs.images)) > 1:
            return _held_out(pairs, _temperature)
        return pairs
    return _best_form(pairs)[1] or pairs


def _suffices(pairs: ScoredPredictions) -> bool:
    """Return whether there are ten objects or more, and their scores differ."""
    return (
        len(pairs.predicted) >= _MIN_OBJECTS and float(np.ptp(pairs.predicted)) >= 1e-6
    )


def fit_curve(pairs: ScoredPredictions) -> MonotonicMap | None:
    """Return the map of scores to their mean truth; None with fewer than ten objects, or if all scores are equal."""
    if not _suffices(pairs):
        return None
    form, unseen = _best_form(pairs)
    predicted, true = form(pairs)
    return MonotonicMap(
        predicted=tuple(predicted.round(9).tolist()),
        true=tuple(
            ((1 - _MIN_SLOPE) * true + _MIN_SLOPE * predicted).round(9).tolist()
        ),
        objects=len(pairs.predicted),
        ece=calibration_error(pairs),
        ece_calibrated=None if unseen is None else calibration_error(unseen),
    )


def thresholds(pairs: ScoredPredictions) -> tuple[float | None, ...]:
    """Return the smallest score with which at most 1, 2, 3 … 50 % of the objects are wrong; None if there is none.

    It is the infimum of the scores t for which (wrong + 1) / (kept + 1) is at most the share, where wrong and kept
    count the objects with a score of t or more. That is split conformal risk control (Angelopoulos et al. 2022, arXiv
    2208.02814) for the loss (wrong - share) of a kept object. This loss is not monotone, so the share holds for new
    objects that are exchangeable with these only as far as a higher score means fewer wrong ones.
    """
    order = np.argsort(-pairs.predicted, kind="stable")
    scores = pairs.predicted[order]
    wrong = np.cumsum(pairs.true[order] < RIGHT_IOU)
    # above the next score; down to 0 there is none
    below = np.append(np.nextafter(scores[1:], 1), 0.0)
    # of equal scores the last one counts all
    counts_all = np.append(np.diff(scores) < 0, True)
    bound = np.where(counts_all, (wrong + 1) / (np.arange(len(scores)) + 2), np.inf)
    found: list[float | None] = []
    for percent in range(1, MAX_PERCENT + 1):
        rows = np.flatnonzero(bound <= percent / 100)
        found.append(float(below[rows[-1]]) if len(rows) else None)
    return tuple(found)


def fit_calibration(confidence: Mapping[Kind, ScoredPredictions]) -> Calibration | None:
    """Return the maps of all kinds of scores, and the thresholds of found objects; None if there is none."""
    curves: dict[str, Any] = {}
    for kind, pairs in confidence.items():
        if kind in Calibration.model_fields:
            curve = fit_curve(pairs)
            if curve is not None:
                curves[kind] = curve
    of_classes = confidence.get("class_probability")
    if of_classes is not None and of_classes.true_classes is not None:
        known = of_classes.where(of_classes.true_classes >= 0)
        if _suffices(known):
            curves["temperature"] = _temperature(of_classes)
    found = Calibration(**curves)
    if found.object is not None:
        objects = calibrated_pairs(found, "object", confidence["object"])
        found = found.model_copy(update={"thresholds": thresholds(objects)})
    if found == Calibration():
        return None
    return found


def calibrated_pairs(
    calibration: Calibration | None, kind: Kind, pairs: ScoredPredictions
) -> ScoredPredictions:
    """Return pairs whose scores are calibrated; the given ones if this kind of score was not measured."""
    if calibration is None:
        return pairs
    if kind == "class_probability":
        if calibration.temperature is None:
            return pairs
        return _mapped(pairs, calibration.temperature)
    curve = calibration.curves.get(kind)
    if curve is None:
        return pairs
    return _mapped(pairs, (np.array(curve.predicted), np.array(curve.true)))


def confidence_summary(
    confidence: Mapping[Kind, ScoredPredictions], calibration: Calibration | None
) -> dict[str, Any]:
    """Return number, calibration error and area of the risk of each kind of score, as json values.

    "ece" is that of calibrated scores; "ece_uncalibrated" is None if nothing is calibrated. "auto_kept" is the share of
    found objects that `--min-score auto` keeps, and "auto_right" the share of these that is right; or None.
    """
    blocks: dict[str, Any] = {}
    for kind, pairs in confidence.items():
        after = calibrated_pairs(calibration, kind, pairs)
        blocks[kind] = {
            "objects": int(pairs.weights.sum()),
            "ece": calibration_error(after),
            "ece_uncalibrated": None if after is pairs else calibration_error(pairs),
            "aurc": risk_area(pairs),
        }
        if kind == "object" and after is not pairs and calibration is not None:
            blocks[kind] |= _auto_summary(calibration, after)
    return blocks


def _auto_summary(
    calibration: Calibration, pairs: ScoredPredictions
) -> dict[str, float | None]:
    """Return the share of found objects that `--min-score auto` keeps, and the share of these that is right."""
    least = None
    if calibration.thresholds:
        least = calibration.thresholds[round(100 * MAX_ERROR_RATE) - 1]
    if least is None:
        return {"auto_kept": None, "auto_right": None}
    kept = pairs.predicted >= least
    right = None
    if kept.any():
        right = float((pairs.true[kept] >= RIGHT_IOU).mean())
    return {"auto_kept": float(kept.mean()), "auto_right": right}
