"""Score what a model finds without prompts on a split: every object, and the class of every pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.data.dataset import Dataset, Sample
from simmat.data.dense_targets import class_map, outside_objects
from simmat.errors import ConfigError, DataError
from simmat.evaluation.everything import ImageMatches, Mistakes, class_scores, object_scores, true_classes
from simmat.evaluation.processes import Processes
from simmat.predictor import Predictor
from simmat.types import BoolArray

if TYPE_CHECKING:
    from simmat.everything import EverythingSettings

DENSE, GRID = "peaks of the dense head", "grid"
"""Where the clicks come from that find every object."""

Confusion = Counter[tuple[int, int]]
"""(true, found) label value -> pixels."""


@dataclass(frozen=True, eq=False)
class ImageFindings:
    """What was found in one image.

    Attributes:
        matches: the objects found beside the true ones; None if they are not scored.
        confusion: pixels by true and found class, without ignored ones; None if classes are not scored.
        everything_s: seconds to find every object, without encoding the image.
        semantic_s: seconds for the class of every pixel, without encoding the image.
    """

    sample: str
    matches: ImageMatches | None
    confusion: Confusion | None
    everything_s: float
    semantic_s: float


@dataclass(frozen=True, eq=False)
class Unprompted:
    """The scores of masks without prompts on one split.

    Attributes:
        images: in the order of the data set.
        clicks: where the clicks came from, `DENSE` or `GRID`.
        classed: whether objects are matched by class.
        unknown: whether the data set has classes and the model knows none.
    """

    images: tuple[ImageFindings, ...]
    clicks: str
    classed: bool
    unknown: bool

    def everything(self) -> dict[str, Any] | None:
        """Return AP, AP50, PQ and F1 of every object, also by class and without classes; None if not scored.

        Where the data set has several classes and the model none, only `any_class` has figures.
        """
        images = [one.matches for one in self.images if one.matches is not None]
        if not images:
            return None
        plain = [image.without_classes() for image in images]
        classes = true_classes(images)
        several = len(classes) > 1
        known = not (several and self.unknown)
        main = object_scores(images if self.classed else plain)
        block: dict[str, Any] = {
            "images": len(images),
            "objects": int(sum(np.count_nonzero(~image.uncounted) for image in images)),
            "left_out": int(sum(np.count_nonzero(image.uncounted) for image in images)),
            "found": int(sum(len(image.scores) for image in images)),
            "clicks": self.clicks,
            **(main if known else dict.fromkeys(main)),
        }
        if several:
            block["any_class"] = object_scores(plain)
            by_class = {str(v): object_scores([image.of_class(v) for image in images]) for v in classes}
            block["by_class"] = by_class if self.classed else {}
        return block

    def mistakes(self) -> dict[str, Mistakes]:
        """Return what is wrong in each image whose objects are scored, by sample."""
        images = {one.sample: one.matches for one in self.images if one.matches is not None}
        return {sample: (one if self.classed else one.without_classes()).mistakes() for sample, one in images.items()}

    def semantic(self) -> dict[str, Any] | None:
        """Return mIoU, IoU by class and pixel accuracy from one confusion matrix; None if not scored."""
        parts = [one.confusion for one in self.images if one.confusion is not None]
        if not parts:
            return None
        total: Confusion = Counter()
        for part in parts:
            total.update(part)
        values = sorted({value for pair in total for value in pair})
        place = {value: index for index, value in enumerate(values)}
        confusion = np.zeros((len(values), len(values)), np.int64)
        for (true, found), pixels in total.items():
            confusion[place[true], place[found]] = pixels
        scores = class_scores(confusion, values)
        by_class: Mapping[int, float] = scores.pop("iou_by_class")  # type: ignore[assignment]
        return {
            "images": len(parts),
            "pixels": int(confusion.sum()),
            **scores,
            "iou_by_class": {str(value): iou for value, iou in by_class.items()},
        }

    def summary(self) -> dict[str, Any]:
        """Return the blocks of what was scored."""
        blocks = {"everything": self.everything(), "semantic": self.semantic()}
        return {name: block for name, block in blocks.items() if block is not None}

    def times(self) -> dict[str, float]:
        """Return the median milliseconds for an image of what was scored, without encoding it."""
        kinds = {
            "everything_ms": [one.everything_s for one in self.images if one.matches is not None],
            "semantic_ms": [one.semantic_s for one in self.images if one.confusion is not None],
        }
        return {name: round(1000 * median(seconds), 2) for name, seconds in kinds.items() if seconds}


def check_unprompted(
    predictor: Predictor, dataset: Dataset, samples: Sequence[Sample], *, everything: bool, semantic: bool
) -> None:
    """Raise what `evaluate_unprompted` would, before anything is scored."""
    if semantic and predictor.dense is None:
        raise ConfigError(
            f"{predictor.bundle.path if predictor.bundle else 'an untuned model'} has no dense head, so there is no "
            "class map to score; leave --semantic out, or train with --heads prompt,dense"
        )
    if everything and all(dataset.may_have_unmarked(sample) for sample in samples):
        raise DataError(
            f"{dataset.root}: images may hold objects that nobody marked (zero_means = 'unlabelled'), so what is found "
            "without prompts cannot be scored; leave --everything out, or mark all objects"
        )


def evaluate_unprompted(
    predictor: Predictor,
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    everything: bool = True,
    semantic: bool = True,
    settings: EverythingSettings | None = None,
    processes: Processes | None = None,
    progress: Callable[[int], None] | None = None,
    note: Callable[[str], object] | None = None,
) -> Unprompted:
    """Find every object of some samples and the class of every pixel, and compare them with the truth.

    Images that may hold objects which nobody marked (zero_means = "unlabelled") are left out of `everything`;
    `semantic` ignores their unmarked pixels. Where the data set or the model has no classes, an object is an object.

    Args:
        predictor: the model; with `dense`, its dense head finds the objects.
        processes: the processes that share the samples; each gets all scores. None is this process alone.
        progress: called with 1 after every sample of this process.
        note: called after the first sample with the time that a grid of clicks takes, where it is long.

    Raises:
        ConfigError: `semantic` without a dense head.
        DataError: every image may hold objects that nobody marked.
    """
    check_unprompted(predictor, dataset, samples, everything=everything, semantic=semantic)
    dense = predictor.dense
    named = dense is not None and any(value is not None for value in dense.classes)
    classed = dataset.has_classes and named
    own: list[ImageFindings] = []
    share = samples if processes is None else processes.share(samples)
    start = perf_counter()
    for number, sample in enumerate(share):
        found = _score_sample(
            predictor, dataset, sample, everything=everything, semantic=semantic, classed=classed, settings=settings
        )
        own += [] if found is None else [found]
        if progress is not None:
            progress(1)
        minutes = (perf_counter() - start) / 60 * len(share)
        if number == 0 and note is not None and everything and dense is None and minutes >= 1:
            note(f"every object by a grid of clicks takes about {minutes:.0f} min for {len(share)} images")
    parts = [own] if processes is None else processes.gather(own)
    place = {sample.id: index for index, sample in enumerate(samples)}
    images = sorted((one for part in parts for one in part), key=lambda one: place[one.sample])
    clicks = DENSE if dense is not None else GRID
    return Unprompted(tuple(images), clicks, classed, dataset.has_classes and not named)


def _score_sample(
    predictor: Predictor,
    dataset: Dataset,
    sample: Sample,
    *,
    everything: bool,
    semantic: bool,
    classed: bool,
    settings: EverythingSettings | None,
) -> ImageFindings | None:
    """Score one sample; None if it has no pixel that counts."""
    image = dataset.image(sample)
    label = dataset.label(sample, image)
    unmarked = dataset.may_have_unmarked(sample)
    scored = ~label.ignore & ~outside_objects(label) if unmarked else ~label.ignore
    if not scored.any():
        return None
    predictor.set_image(image)
    matches, confusion = None, None
    start = perf_counter()
    if everything and not unmarked:
        found = predictor.segment_everything(settings)
        matches = ImageMatches.of([one.instance for one in found], [one.score for one in found], label)
    middle = perf_counter()
    if semantic:
        confusion = _confusion(class_map(label), predictor.segment_semantic().labels, scored, classed=classed)
    return ImageFindings(sample.id, matches, confusion, middle - start, perf_counter() - middle)


def _confusion(
    true: npt.NDArray[np.int64], found: npt.NDArray[np.int64], scored: BoolArray, *, classed: bool
) -> Confusion:
    """Count pairs of label values over the scored pixels of (H, W) maps; without classes an object is 1."""
    pair = [values[scored] if classed else (values[scored] != 0).astype(np.int64) for values in (true, found)]
    (rows, row), (columns, column) = (np.unique(values, return_inverse=True) for values in pair)
    counts = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
    return Counter(
        {
            (int(rows[index // len(columns)]), int(columns[index % len(columns)])): int(pixels)
            for index, pixels in enumerate(counts)
            if pixels
        }
    )
