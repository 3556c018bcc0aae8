"""Ask trained models what they see in images that they did not learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from simmat.bundle import Bundle, BundleSpec
from simmat.data.dataset import Dataset
from simmat.data.index import digest_dataset
from simmat.data.instances import (
    Annotation,
    FoundObject,
    Instance,
    outside_objects,
)
from simmat.data.samples import Sample
from simmat.errors import ConfigError, DataError
from simmat.predictor import ClassMap, Predictor, TiledImage
from simmat.types import FloatArray, SensorImage


@dataclass(frozen=True, eq=False)
class Opinion:
    """What a model sees in an image, of which it knows no label.

    Attributes:
        objects: what it finds without prompts, best first.
        objectness: (H, W) float32 probability that a pixel is on an object.
        classes: for each labelled region, label value -> mean probability of the class over the region's pixels, adding
            up to 1; None where the model knows no classes.
    """

    objects: Sequence[FoundObject]
    objectness: FloatArray
    classes: Sequence[Mapping[int, float] | None]


def judge_problem(spec: BundleSpec) -> str:
    """Return why a bundle cannot judge labels, as the end of a sentence that begins with its name; "" if it can."""
    if spec.dense is None or not spec.dense.background:
        return (
            "has no dense head that finds objects, so it cannot tell which are missing; train with --heads "
            "prompt,dense on images in which all objects are marked"
        )
    if spec.trained_on is None:
        return "does not state which images it was trained on, so it may know the labels; train it again"
    return ""


def check_judges(bundles: Sequence[Bundle]) -> None:
    """Check that bundles can judge labels together: each by itself, see `judge_problem`, and all by the same sensor.

    Raises:
        ConfigError: one cannot, or they differ.
    """
    first = bundles[0]
    for bundle in bundles:
        problem = judge_problem(bundle.spec)
        if problem:
            raise ConfigError(f"{bundle.path} {problem}")
        if bundle.spec.modality != first.spec.modality:
            raise ConfigError(
                f"--against {first.path} is of {first.spec.modality} and {bundle.path} of {bundle.spec.modality}; give "
                "runs of one sensor"
            )


def unseen_by(
    specs: Sequence[BundleSpec], dataset: Dataset, samples: Sequence[Sample]
) -> list[int | None]:
    """Return for each sample the number of the first bundle that was not trained on its image; None if all were.

    Images are compared by content, and an image with any pixel in a training counts as seen.

    Args:
        specs: of bundles that can judge, see `judge_problem`.

    Raises:
        DataError: a file cannot be read.
    """
    digests = digest_dataset(
        replace(dataset, samples=tuple(samples))
    ).reference_digests(samples)
    windows = [sample.window for sample in samples]
    found: list[int | None] = [None] * len(samples)
    for number in reversed(range(len(specs))):
        trained_on = specs[number].trained_on
        assert trained_on is not None
        for place, seen in enumerate(trained_on.has(digests, windows)):
            if not seen:
                found[place] = number
    return found


def opinions(
    predictors: Sequence[Predictor],
    dataset: Dataset,
    samples: Sequence[Sample],
    judges: Sequence[int | None],
) -> Iterator[tuple[Sample, SensorImage, Annotation, Opinion]]:
    """Yield each sample that has a judge, with its image, its label, and what the judge sees.

    Args:
        judges: for each sample the number of its predictor, see `unseen_by`.

    Raises:
        SimMATError: an image or a mask cannot be read, or does not suit the model.
    """
    for sample, judge in zip(samples, judges, strict=True):
        if judge is None:
            continue
        image = dataset.image(sample)
        label = dataset.label(sample, image)
        if dataset.may_have_unmarked(sample):
            # nobody says that there is nothing, so nothing is missed
            ignore = label.ignore | outside_objects(label)
            label = replace(label, ignore=ignore)
        predictor = predictors[judge]
        predictor.check_channels(image)
        yield sample, image, label, _opinion(predictor.open_reader(image), label)


def _opinion(image: TiledImage, label: Annotation) -> Opinion:
    image.encode_untiled()
    seen = image.segment_semantic(probabilities=True)
    if seen.probabilities is None:
        raise DataError("the class map has no probabilities")
    background = seen.values.index(0)
    objectness = 1 - seen.probabilities[background]
    objectness[~seen.probabilities.any(0)] = 0  # nothing was measured there
    classes = [_classes_of(region, seen) for region in label.regions]
    return Opinion(image.segment_everything(), objectness, classes)


def _classes_of(region: Instance, seen: ClassMap) -> dict[int, float] | None:
    """Return the mean probability of each class over a region; None without classes or without that of the label."""
    if seen.probabilities is None or len(seen.values) < 3:
        return None
    if region.class_id is None or region.class_id not in seen.values:
        return None
    inside = seen.probabilities[:, *region.window.slices][:, region.crop]  # (K, n)
    means = inside.mean(1)
    of_objects = {}
    for value, mean in zip(seen.values, means.tolist(), strict=True):
        if value != 0:
            of_objects[value] = mean
    total = max(sum(of_objects.values()), 1e-6)
    return {value: mean / total for value, mean in of_objects.items()}
