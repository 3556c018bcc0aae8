"""Score a model on a data set, in one process or several."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from time import perf_counter

import torch

from simmat.assemble import Parts, assemble, zero_shot_of
from simmat.bundle import Bundle
from simmat.data.card import DataCard
from simmat.data.dataset import Dataset, Sample, open_dataset
from simmat.data.index import digest_dataset
from simmat.data.instances import Annotation, class_map, outside_objects
from simmat.data.pipeline import Pipeline
from simmat.errors import ConfigError, DataError
from simmat.evaluation.prompts import (
    ONE_CLICK,
    Protocol,
    ScoredImage,
    drawn_targets,
    find_targets,
    grid_hw,
    metric_value,
    score_objects,
    scored_pixels,
)
from simmat.evaluation.scores import Scores, SeenImages, merge_scores
from simmat.evaluation.tiled import ScoredWindows
from simmat.evaluation.unprompted import (
    AutomaticScores,
    ImageMatches,
    count_confusion,
    pixel_confidence,
)
from simmat.nn.device import Processes, wait_for
from simmat.plugin_specs import MetricSpec
from simmat.plugins.loader import installed
from simmat.plugins.registry import Registry
from simmat.predictor import EverythingSettings, Predictor, TiledImage, encode_image
from simmat.predictor.objects import grid_note
from simmat.types import Letterbox, SensorImage

MAX_CLICKS = 256
"""Most clicks by which a validation finds the objects of a window: an untrained head has peaks everywhere."""
_CLICKS_PER_OBJECT = 1.5
_SPARE_CLICKS = 8

Note = Callable[[str], object]


@dataclass(frozen=True)
class EvalRequest:
    """What is scored of each image.

    Attributes:
        protocol: how objects are prompted for; None scores only what is found without prompts.
        everything: find and score every object without prompts, too: by the dense head, or else by a grid of clicks.
        semantic: score the class of every pixel, too.
        share: share of the objects that are prompted for.
        few_clicks: find every object by at most `clicks_per_window`.
    """

    protocol: Protocol | None = ONE_CLICK
    everything: bool = False
    semantic: bool = False
    share: float = 1.0
    few_clicks: bool = False


def clicks_per_window(objects: int, windows: int) -> int:
    """Return by how many clicks a validation finds the objects of each window of an image."""
    expected = math.ceil(_CLICKS_PER_OBJECT * objects / windows)
    return min(_SPARE_CLICKS + expected, MAX_CLICKS)


def trained_card(card: DataCard) -> dict[str, object]:
    """Return the fields of a bundle's card that apply if a data set's own card leaves them open.

    The other fields describe a single data set.
    """
    fields = {
        "regions",
        "min_region",
        "min_region_share",
        "nodata",
        "ignore",
        "zero_means",
        "intrinsics",
        "crop",
    }
    fields |= {"modality_options", "class_attribute"}
    if card.class_attribute is not None:
        fields.add("class_names")
    return card.model_dump(include=fields)


def evaluate_bundle(
    bundle: Bundle,
    data: Path,
    split: str = "test",
    *,
    request: EvalRequest = EvalRequest(),
    overrides: Mapping[str, object] | None = None,
    zero_shot: bool | None = False,
    registry: Registry | None = None,
    progress: Callable[[int, int], None] | None = None,
    note: Note | None = None,
    processes: Processes | None = None,
) -> tuple[Scores, Scores | None]:
    """Score a bundle on a split of a data set, and the untuned foundation model on the same prompts.

    Each field of the data card comes from `overrides`, else from the data set's card, else from the card of training.
    Images that the bundle was trained on are left out, see `unseen_samples`.

    Args:
        request: what is scored; the zero-shot model has no class of every pixel.
        zero_shot: score the foundation model too, if it can be used (see `why_no_zero_shot`); this needs `registry`.
            None scores it only by prompts, because `everything` would need a grid of clicks.
        progress: called with (done, total) samples of this process.
        note: called with what a user should know, such as images left out because they have no mask, or a long time.
        processes: those that share the samples; each of them gets all scores. None is this process alone.

    Returns:
        The bundle's scores, and those of the zero-shot model or None.

    Raises:
        DataError: no sample has a region, the bundle was trained on all of them, or `everything` cannot be scored.
        ConfigError: the protocol does not suit the network's input, or `semantic` without a dense head.
    """
    dataset = open_dataset(
        data, bundle.modality, overrides, defaults=trained_card(bundle.spec.card)
    )
    samples, seen = unseen_samples(bundle, dataset, dataset.split(split), split)
    if note is not None and dataset.skipped_note:
        note(dataset.skipped_note)
    if note is not None and dataset.predicted_note:
        note(dataset.predicted_note)
    if note is not None and dataset.card.notes:
        note(f"{dataset.root}: {dataset.card.notes}")
    windows = sum(sample.window is not None for sample in samples)
    if note is not None and windows:
        note(
            f"{windows} samples are windows of images that are divided, because they are few or large: objects that "
            "reach into another window are scored in parts"
        )
    device = next(bundle.model.parameters()).device
    work = processes or Processes(device)
    passes = [(Predictor.of_bundle(bundle), request)]
    if (
        zero_shot is not False
        and registry is not None
        and not why_no_zero_shot(bundle.parts)
    ):
        untuned = assemble(
            *zero_shot_of(bundle.spec, registry, bundle.parts.weights)
        ).to(device)
        reference = Predictor(
            untuned,
            bundle.pipeline,
            image_side=bundle.spec.image_side,
            takes_windows=bool(bundle.spec.card.crop),
        )
        everything = request.everything and zero_shot is True
        of_untuned = replace(request, everything=everything, semantic=False)
        passes.append((reference, of_untuned))
    total = len(passes) * len(work.share(samples))
    done = itertools.count(1)

    def sample_done(_: int) -> None:
        if progress is not None:
            progress(next(done), total)

    names = dict(dataset.class_names or bundle.spec.card.class_names)
    if request.semantic and not dataset.has_classes:
        names = {1: "object"} | names
    if request.semantic and dataset.card.zero_means != "none":
        names = {0: "background"} | names
    scores = []
    for predictor, asked in passes:
        found = evaluate(
            predictor,
            dataset,
            samples,
            request=asked,
            processes=work,
            progress=sample_done,
            note=note,
            registry=registry,
        )
        scores.append(replace(found, class_names=names, seen=seen))
    if len(scores) == 1:
        return scores[0], None
    return scores[0], scores[1]


def validate(
    predictor: Predictor,
    dataset: Dataset,
    samples: Sequence[Sample],
    protocol: Protocol,
    *,
    share: float = 1.0,
    processes: Processes | None = None,
    progress: Callable[[int], None] | None = None,
    registry: Registry | None = None,
) -> Scores:
    """Score a model by clicks and boxes, and with a dense head also without, by `clicks_per_window`.

    Each process gets all scores; `progress` is called with 1 after every sample of this process.

    Args:
        share: share of the objects that are prompted for.
    """
    dense = predictor.dense is not None
    return evaluate(
        predictor,
        dataset,
        samples,
        request=EvalRequest(
            protocol=replace(protocol, boxes=True),
            share=share,
            everything=dense
            and not all(dataset.may_have_unmarked(sample) for sample in samples),
            semantic=dense,
            few_clicks=True,
        ),
        processes=processes,
        progress=progress,
        registry=registry,
    )


def unseen_samples(
    bundle: Bundle, dataset: Dataset, samples: Sequence[Sample], split: str
) -> tuple[tuple[Sample, ...], SeenImages | None]:
    """Leave out the images that a bundle knows, by their content, so that the score is that of new images.

    Of the train split none are left out; of val those it was trained on; of test also those that chose its step.

    Returns:
        The samples to score, and which of them the bundle knows; None if it does not state this.

    Raises:
        DataError: it knows all of them, or a file cannot be read.
    """
    spec = bundle.spec
    if spec.trained_on is None or spec.validated_on is None:
        return tuple(samples), None
    digests = digest_dataset(
        replace(dataset, samples=tuple(samples))
    ).reference_digests(samples)
    windows = [sample.window for sample in samples]
    in_training = spec.trained_on.has(digests, windows)
    in_validation = spec.validated_on.has(digests, windows)
    kept: list[Sample] = []
    trained: list[str] = []
    validated: list[str] = []
    left_out: list[str] = []
    for sample, is_trained, is_validated in zip(
        samples, in_training, in_validation, strict=True
    ):
        if (is_trained and split != "train") or (is_validated and split == "test"):
            left_out.append(sample.id)
            continue
        kept.append(sample)
        if is_trained:
            trained.append(sample.id)
        elif is_validated:
            validated.append(sample.id)
    if not kept:
        raise DataError(
            f"{dataset.root}: {bundle.path} was trained on all {len(samples)} images of the {split} split, or its step "
            "was chosen by them, so there is no score of new images; give images that it has not seen"
        )
    return tuple(kept), SeenImages(
        tuple(trained), tuple(validated), tuple(left_out), total=len(samples)
    )


def why_no_zero_shot(parts: Parts) -> str:
    """Return why the foundation model of a bundle has no zero-shot score; "" if it has one."""
    if parts.exported:
        return "an exported model does not contain the untuned weights; score the bundle from which it was made"
    if not parts.foundation.promptable:
        return f"the decoder of {parts.foundation.name!r} was never trained"
    if parts.weights is None:
        return f"the training began with random weights of {parts.foundation.name!r}"
    return ""


def scoring_pipeline(protocol: Protocol, pipeline: Pipeline) -> Pipeline:
    """Return the pipeline for scoring; a protocol that compares masks at the input size stretches the image."""
    if protocol.grid == "quarter":
        return replace(pipeline, aspect="stretch")
    return pipeline


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    request: EvalRequest = EvalRequest(),
    processes: Processes | None = None,
    progress: Callable[[int], None] | None = None,
    note: Note | None = None,
    registry: Registry | None = None,
) -> Scores:
    """Score every object of some samples by prompts and, if asked, what is found without prompts.

    Images that may hold objects which nobody marked (zero_means = "unlabelled") are left out of `everything`;
    `semantic` ignores their unmarked pixels. If the data set or the model has no classes, all objects count as one
    class.

    Args:
        predictor: the model; a protocol that stretches the image overrides its aspect. With `dense`, its dense head
            finds the objects.
        request: what is scored.
        processes: those that share the samples; each of them gets all scores. None is this process alone.
        progress: called with 1 after every sample of this process.
        note: told that a grid of clicks takes long.
        registry: has the metrics; None loads the plugins.

    Raises:
        DataError: no sample has a region, whichever process has it, or `everything` is asked of images that all may
            hold objects which nobody marked.
        ConfigError: the protocol does not suit the network's input, or `semantic` without a dense head.
    """
    dense = predictor.dense
    protocol = request.protocol
    if request.semantic and dense is None:
        model = predictor.bundle.path if predictor.bundle else "an untuned model"
        raise ConfigError(
            f"{model} has no dense head, so there is no class map to score; leave --semantic out, or train with "
            "--heads prompt,dense"
        )
    if request.everything and all(
        dataset.may_have_unmarked(sample) for sample in samples
    ):
        raise DataError(
            f"{dataset.root}: images may hold objects that nobody marked (zero_means = 'unlabelled'), so what is found "
            "without prompts cannot be scored; leave --everything out, or mark all objects"
        )
    if protocol is not None:
        pipeline = scoring_pipeline(protocol, predictor.pipeline)
        # raises ConfigError
        grid_hw(Letterbox((1, 1), pipeline.size, pipeline.aspect), protocol)
    if note is not None and request.everything and dense is None:
        note(grid_note(len(samples)))
    calibration = predictor.calibration
    predictor = predictor.uncalibrated()  # `Scores.calibration` counts its effect
    predictor.model.eval()
    known = registry or installed()
    metrics = [metric for metric in known.all("metric") if metric.result == "mask"]
    work = processes or Processes(torch.device("cpu"))
    own = []
    with torch.inference_mode():
        for number in work.share(range(len(samples))):
            sample = samples[number]
            image = dataset.image(sample)
            predictor.check_channels(image)
            label = dataset.label(sample, image)
            tiled = predictor.open_reader(image)
            # an untuned model takes the statistics of each image
            predictor.normalize_by(tiled.reader)
            scores = Scores(())
            if protocol is not None:
                scores = _by_prompts(
                    predictor,
                    tiled,
                    image,
                    label,
                    sample.id,
                    protocol,
                    metrics,
                    request.share,
                )
            max_clicks = None
            if request.few_clicks:
                objects = len(label.regions) + len(label.small)
                max_clicks = clicks_per_window(objects, len(tiled.windows))
            settings = None
            if request.everything:
                settings = EverythingSettings(max_clicks=max_clicks)
            if request.everything or request.semantic:
                scores = _add_unprompted(
                    scores,
                    predictor,
                    tiled,
                    dataset,
                    sample,
                    label,
                    settings,
                    request.semantic,
                )
            own.append((number, scores))
            if progress is not None:
                progress(1)
    numbered = sorted(
        itertools.chain.from_iterable(work.gather(own)), key=itemgetter(0)
    )
    merged = merge_scores([scores for _, scores in numbered])
    if protocol is not None and not merged.objects:
        raise nothing_to_score(dataset, samples)
    unprompted = merged.unprompted
    if unprompted is not None:
        unprompted = replace(unprompted, metrics=_metrics_of(unprompted, known))
    return replace(merged, calibration=calibration, unprompted=unprompted)


def _add_unprompted(
    scores: Scores,
    predictor: Predictor,
    tiled: TiledImage,
    dataset: Dataset,
    sample: Sample,
    label: Annotation,
    settings: EverythingSettings | None,
    semantic: bool,
) -> Scores:
    """Add what is found without prompts in an image to its scores.

    Args:
        settings: how objects are found; None finds none.
        semantic: find the class of every pixel.
    """
    dense = predictor.dense
    names_classes = dense is not None and any(
        value is not None for value in dense.classes
    )
    classed = dataset.has_classes and names_classes
    found = AutomaticScores(
        dense is not None, classed, unknown=dataset.has_classes and not names_classes
    )
    has_unmarked = dataset.may_have_unmarked(sample)
    scored = ~label.ignore
    if has_unmarked:
        scored &= ~outside_objects(label)
    if not scored.any():
        return replace(scores, unprompted=found)
    seconds = dict(scores.seconds)
    tiled.encode_untiled()
    if settings is not None and not has_unmarked:
        start = perf_counter()
        matches = ImageMatches.of(tiled.segment_everything(settings), label)
        found = replace(found, matches={sample.id: matches})
        seconds["everything"] = (perf_counter() - start,)
    if semantic:
        start = perf_counter()
        truth = class_map(label)
        seen = tiled.segment_semantic()
        confusion = count_confusion(truth, seen.labels, scored, classed=classed)
        found = replace(found, confusions={sample.id: confusion})
        if classed:
            right = truth == seen.labels
        else:
            right = (truth != 0) == (seen.labels != 0)
        if classed or not names_classes:
            pixels = pixel_confidence(seen.probability[scored], right[scored])
            found = replace(found, pixels={sample.id: pixels})
        seconds["semantic"] = (perf_counter() - start,)
    return replace(scores, seconds=seconds, unprompted=found)


def _metrics_of(
    found: AutomaticScores, registry: Registry
) -> dict[str, dict[str, float | None]]:
    """Return block of the summary -> name -> figure of each metric of what is found without prompts."""
    blocks: dict[str, dict[str, float | None]] = {"everything": {}, "semantic": {}}
    images = list(found.matches.values())
    confusion = found.confusion()
    for metric in registry.all("metric"):
        if metric.result == "objects" and images:
            blocks["everything"][metric.name] = metric_value(metric, images)
        elif metric.result == "classes" and found.confusions:
            blocks["semantic"][metric.name] = metric_value(metric, confusion)
    return blocks


def _by_prompts(
    predictor: Predictor,
    large: TiledImage,
    image: SensorImage,
    label: Annotation,
    sample: str,
    protocol: Protocol,
    metrics: Sequence[MetricSpec],
    share: float,
) -> Scores:
    """Score a share of an image's objects; `large` gets its embedding where masks without prompts have the same."""
    pipeline = scoring_pipeline(protocol, predictor.pipeline)
    letterbox = Letterbox(label.size_hw, pipeline.size, pipeline.aspect)
    targets, indices = find_targets(label, letterbox, protocol)
    left_out = tuple((sample, index) for index in indices)
    if not targets:
        return Scores((), () if left_out else (sample,), left_out)
    targets = drawn_targets(targets, sample, share, protocol.seed)
    if not targets:
        return Scores((), (), left_out)
    scored = scored_pixels(label, letterbox, protocol)
    if len(large.windows) > 1 and protocol.grid == "original":
        windows = ScoredWindows(large, letterbox, targets, scored, protocol)
        objects = score_objects(windows, sample, metrics)
        seconds = {"encode": (windows.encode_s,), "decode": tuple(windows.decode_s)}
        return Scores(tuple(objects), (), left_out, seconds)
    model = predictor.model.for_image(image)
    prepared = pipeline(image)
    start = perf_counter()
    encoded = encode_image(model, prepared, predictor.dense)
    wait_for(encoded.embedding.levels[0].device)
    encode_s = perf_counter() - start
    if len(large.windows) == 1 and pipeline.aspect == predictor.pipeline.aspect:
        large.cache(large.windows[0], image, encoded)
    asked = ScoredImage(encoded, targets, scored, protocol)
    objects = score_objects(asked, sample, metrics)
    return Scores(
        tuple(objects),
        (),
        left_out,
        {"encode": (encode_s,), "decode": tuple(asked.decode_s)},
    )


def nothing_to_score(dataset: Dataset, samples: Sequence[Sample]) -> DataError:
    """Return the error of a split without a region."""
    splits = " and ".join(sorted({sample.split for sample in samples}))
    return DataError(
        f"{dataset.root}: none of the {len(samples)} {splits} samples has a region of at least "
        f"{dataset.card.smallest}, so there is nothing to score; check --regions and --min-region"
    )
