"""What more labels would bring: scores that runs recorded on images which their model did not know, and a curve."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from simmat.bundle import BundleSpec, find_bundle, read_bundle_spec
from simmat.documents import (
    FromLists,
    InvalidDocumentError,
    Model,
    StrictModel,
    listed,
    validate,
)
from simmat.errors import ConfigError, DataError, SimMATError
from simmat.training import RunFolder
from simmat_plugin_report.learning_curve import (
    Estimate,
    LearningCurve,
    Score,
    fit_curve,
)

STEP = 20
"""More labels by whose gain it is said when to stop."""
_MOST = 100
"""It is not said when to stop beyond this many times the labels."""
_WIDTH_95 = 3.92
"""Width of a 95 % interval in standard errors."""
_ALIKE = ("modality", "foundation", "image_size")
"""What runs of one forecast have in common."""
_LEAST_STD = 0.01
_STD_OF_IMAGE = 0.2
"""Standard deviation of the scores of images, before any is seen.

On five sets the scores of two or three new images differed as if it were 0.17, and single images by 0.30.
"""
_IMAGES_OF_PRIOR = 4
"""Images that this is worth: two or three images alone often seem alike by chance."""

What = Literal["iou", "missed"]


def _without_nan(value: Any) -> Any:
    """Return None for a figure that is not a number, such as the interval of scores without one."""
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


Share = Annotated[
    Annotated[float, Field(ge=0, le=1)] | None, BeforeValidator(_without_nan)
]
"""A figure from 0 to 1; None if it was not measured."""


class FoundObjects(StrictModel):
    """What `forecast_runs` reads of the objects that were found without prompts; other keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    objects: int | None = Field(default=None, ge=0)
    missed: int | None = Field(default=None, ge=0)


class RecordedScores(StrictModel):
    """What `forecast_runs` reads of a `Scores.summary`; other keys are ignored."""

    model_config = ConfigDict(extra="ignore")

    images: int | None = Field(default=None, ge=0)
    miou_object: Share = None
    miou_object_interval: FromLists[tuple[Share, Share]] | None = None
    everything: FoundObjects | None = None

    def problems(self) -> Iterator[str]:
        """Yield what is wrong across fields."""
        low, high = self.miou_object_interval or (None, None)
        if low is not None and high is not None and low > high:
            yield f"miou_object_interval must have its lower end first, got [{low}, {high}]"
        found = self.everything or FoundObjects()
        if (found.missed or 0) > (found.objects or 0):
            yield (
                f"everything.missed must be at most the number of objects, {found.objects or 0}, got {found.missed}"
            )


class NewImages(StrictModel):
    """What a record of kind "new" says; other keys are ignored.

    Attributes:
        labels: training images of the model.
        scores: on images that the model does not know.
    """

    model_config = ConfigDict(extra="ignore")

    labels: int = Field(ge=1)
    scores: RecordedScores

    def problems(self) -> Iterator[str]:
        """Yield the problems of the scores."""
        for problem in self.scores.problems():
            yield f"scores.{problem}"


class Row(StrictModel):
    """The forecast for one number of training images.

    Attributes:
        more: how many more than now.
        miou: mean IoU over objects of one click.
        gain: of mIoU, beside now.
        missed: share of the objects that are not found without prompts; None if the runs do not tell.
    """

    labels: int
    more: int
    miou: Estimate
    gain: Estimate
    missed: Estimate | None


class Forecast(StrictModel):
    """What more labels bring.

    Attributes:
        labels: training images of the newest model.
        scores: (training images, mIoU, standard error) of each recorded score.
        rows: the first is for now.
        gain: the gain of mIoU by `step` more images below which it is time to stop.
        enough: training images from which on they bring less; None if that is beyond `most`.
    """

    labels: int
    scores: list[tuple[int, float, float]]
    missed_scores: list[tuple[int, float, float]]
    rows: list[Row]
    gain: float
    step: int
    enough: int | None
    most: int


def forecast_runs(
    runs: Mapping[Path, BundleSpec], more: Sequence[int], gain: float
) -> tuple[Forecast, dict[What, LearningCurve]]:
    """Forecast what more labels bring, from the scores that runs recorded.

    Args:
        runs: folder of each run -> its bundle; all of one sensor and one foundation model.
        more: numbers of more training images.
        gain: of mIoU by `STEP` more images, below which it is time to stop.

    Returns:
        The forecast, and its curves; there is none of missed objects if the runs do not tell.

    Raises:
        ConfigError: the runs are of several sensors or models.
        DataError: there are scores of fewer than two numbers of labels, or the log of a run is damaged.
    """
    _check_alike(runs)
    found: dict[What, list[Score]] = {"iou": [], "missed": []}
    for run, spec in runs.items():
        for labels, summary, is_repeated in _summaries(run, spec):
            found["iou"] += _iou_of(labels, summary, is_repeated)
            found["missed"] += _missed_of(labels, summary, is_repeated)
    curve = fit_curve(found["iou"])
    curves: dict[What, LearningCurve] = {"iou": curve}
    if len({score.labels for score in found["missed"]}) > 1:
        curves["missed"] = fit_curve(found["missed"])
    missed = curves.get("missed")
    now = curve.labels
    rows = []
    for count in (0, *sorted(set(more))):
        misses = None
        if missed is not None:
            misses = missed.error_at(now + count)
        rows.append(
            Row(
                labels=now + count,
                more=count,
                miou=curve.error_at(now + count).of_rest(),
                gain=curve.gain(now, count),
                missed=misses,
            )
        )
    most = _MOST * now
    forecast = Forecast(
        labels=now,
        scores=[(one.labels, 1 - one.error, one.std) for one in found["iou"]],
        missed_scores=[(one.labels, one.error, one.std) for one in found["missed"]],
        rows=rows,
        gain=gain,
        step=STEP,
        enough=curve.enough(gain, STEP, most),
        most=most,
    )
    return forecast, curves


def _check_alike(runs: Mapping[Path, BundleSpec]) -> None:
    first = next(iter(runs))
    for run, spec in runs.items():
        for name in _ALIKE:
            now = getattr(spec, name)
            before = getattr(runs[first], name)
            if now != before:
                raise ConfigError(
                    f"{first} has {name} = {before} and {run} has {now}; a forecast is of one sensor and one "
                    "network: give runs that differ in their labels alone"
                )


def _summaries(
    run: Path, spec: BundleSpec
) -> Iterator[tuple[int, RecordedScores, bool]]:
    """Yield (training images, scores on images that the model does not know, whether those are the validation's).

    They are of the run's model, and of the one that it started from.
    """
    if spec.trained_on is None:
        raise ConfigError(
            f"{run} does not state how many images it was trained on; train it again"
        )
    labels = len({digest for digest, _ in spec.trained_on.rows()})
    folder = RunFolder(run)
    validation = spec.metrics.get("val")
    if isinstance(validation, Mapping):
        yield (
            labels,
            _checked(RecordedScores, validation, folder.bundle, "its validation"),
            True,
        )
    for record in folder.records():
        if record.get("kind") == "new":
            which = f"the record of new images at step {record['step']}"
            new = _checked(NewImages, record, folder.metrics, which)
            yield new.labels, new.scores, False


def _checked(
    kind: type[Model], values: Mapping[str, Any], file: Path, which: str
) -> Model:
    """Return a part of a file of a run; raise DataError, which says which part is damaged, and how."""
    try:
        return validate(kind, values)
    except InvalidDocumentError as invalid:
        problems = listed(which, invalid.problems)
        raise DataError(
            f"{file} is damaged: {problems}; train the run again, or leave it out"
        ) from invalid


def _iou_of(labels: int, summary: RecordedScores, is_repeated: bool) -> list[Score]:
    if summary.miou_object is None:
        return []
    error = 1 - summary.miou_object
    return [Score(labels, error, _standard_error(summary), is_repeated)]


def _standard_error(summary: RecordedScores) -> float:
    """Return the standard error of a mean IoU, from how much its images differ, and from what is usual."""
    images = summary.images or 1
    variance: float = _STD_OF_IMAGE**2  # between images
    low, high = summary.miou_object_interval or (None, None)
    if low is not None and high is not None:
        standard_error = (high - low) / _WIDTH_95
        seen = images * standard_error**2
        variance = (images * seen + _IMAGES_OF_PRIOR * variance) / (
            images + _IMAGES_OF_PRIOR
        )
    return math.sqrt(variance / images)


def _missed_of(labels: int, summary: RecordedScores, is_repeated: bool) -> list[Score]:
    found = summary.everything
    if found is None or found.missed is None or not found.objects:
        return []
    share = found.missed / found.objects
    # an object more and one less missed, so that the error of 0 of 3 is not 0
    smoothed = (found.missed + 1) / (found.objects + 2)
    std = (smoothed * (1 - smoothed) / found.objects) ** 0.5
    return [Score(labels, share, max(std, _LEAST_STD), is_repeated)]


def runs_in(places: Sequence[Path]) -> dict[Path, BundleSpec]:
    """Return the runs that are given, with their bundles: those of a folder of runs, or of a data set, in its place.

    Raises:
        BundleError: a run has no bundle that can be read.
        ConfigError: a folder has no run that can be read.

    A run that is given twice, also by another path to it, counts once.
    """
    found: dict[Path, BundleSpec] = {}
    for place in places:
        if RunFolder(place).config.is_file():
            found[place] = read_bundle_spec(RunFolder(place).bundle)
            continue
        inside, left_out = readable_runs(place)
        if not inside:
            why = "no config.toml with a bundle"
            if left_out:
                why = left_out[0]
            raise ConfigError(
                f"{place}: no run there ({why}); give folders that --out of simmat train named"
            )
        found |= inside
    once: dict[Path, Path] = {}
    for run in found:
        once.setdefault(run.resolve(), run)
    return {run: found[run] for run in once.values()}


def readable_runs(place: Path) -> tuple[dict[Path, BundleSpec], list[str]]:
    """Return the runs in a folder of runs, or of a data set, with their bundles, and why others cannot be read."""
    found = {}
    left_out = []
    for folder in (place, place / "runs"):
        for config in sorted(folder.glob("*/config.toml")):
            run = config.parent
            if find_bundle(run) is None:
                continue
            try:
                found[run] = read_bundle_spec(RunFolder(run).bundle)
            except SimMATError as error:
                left_out.append(str(error))
    return found, left_out


def runs_like_newest(runs: Mapping[Path, BundleSpec]) -> dict[Path, BundleSpec]:
    """Return the runs of the same sensor, foundation model and image size as the one whose bundle is the newest."""
    newest = max(runs, key=lambda run: (find_bundle(run) or run).stat().st_mtime_ns)
    found = {}
    for run, spec in runs.items():
        if all(getattr(spec, name) == getattr(runs[newest], name) for name in _ALIKE):
            found[run] = spec
    return found


def forecast_lines(found: Forecast) -> list[str]:
    """Return what a forecast says, for a terminal."""
    lines = [
        f"{len(found.scores)} scores of models with {min(one[0] for one in found.scores)} to {found.labels} training "
        "images, each on images that the model did not know"
    ]
    for row in found.rows:
        when = "now" if not row.more else f"{row.more} more"
        line = (
            f"{when} ({row.labels} training images): mIoU {row.miou.median:.3f} "
            f"({row.miou.low:.3f} to {row.miou.high:.3f})"
        )
        if row.more:
            line += f", {row.gain.median:+.3f} ({row.gain.low:+.3f} to {row.gain.high:+.3f})"
        if row.missed is not None:
            line += (
                f"; {row.missed.median * 100:.0f} of 100 objects missed "
                f"({row.missed.low * 100:.0f} to {row.missed.high * 100:.0f})"
            )
        lines.append(line)
    lines.append(stop_line(found))
    return lines


def stop_line(found: Forecast) -> str:
    """Say when to stop."""
    if found.enough is None:
        return f"{found.step} more images bring {found.gain:g} mIoU or more as far as can be said ({found.most} images)"
    if found.enough <= found.labels:
        return f"time to stop: {found.step} more images bring less than {found.gain:g} mIoU (--gain)"
    return (
        f"time to stop at about {found.enough} training images: from there on {found.step} more bring less than "
        f"{found.gain:g} mIoU (--gain)"
    )
