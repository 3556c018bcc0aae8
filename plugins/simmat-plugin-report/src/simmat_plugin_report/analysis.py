"""Run a trained network for its report: scores of the tuned and the untuned model, pictures, importance of channels.

The cost is limited, and measured in encoded images: see `pass_limits`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from simmat.assemble import assemble, zero_shot_of
from simmat.bundle import Bundle
from simmat.config import TrainConfig
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.index import read_index
from simmat.data.samples import Sample, evenly_spaced
from simmat.evaluation import (
    ONE_CLICK,
    EvalRequest,
    ObjectScore,
    Protocol,
    Scores,
    evaluate,
    find_protocol,
    scoring_pipeline,
    seen_note,
    trained_card,
    unseen_samples,
    validate,
    why_no_zero_shot,
)
from simmat.model import SimMAT
from simmat.plugins.registry import Registry
from simmat.predictor import Predictor, encode_image
from simmat.training import subset_of
from simmat.types import Prompt
from simmat_plugin_report.checks import check_dataset
from simmat_plugin_report.documents import Analysis, ChannelAblation
from simmat_plugin_report.pictures import (
    PICTURES,
    draw_examples,
    draw_training_labels,
    pick_examples,
)
from simmat_plugin_report.scores import difference, miou

CHECK = 2
"""Images encoded to check whether step 0 equals the untuned model: one by each of the two."""
MAX_PASSES = 97
"""Most images that the report of a training encodes, including pictures and check."""
MAX_GROUPS = 16
"""Most groups of channels to withhold: single channels, or groups of neighbours if there are more."""

ABLATION_PASSES = 64
"""Most images that `simmat report` encodes with channels withheld."""


def pass_limits(trained: int) -> tuple[int, int]:
    """Return how many images the report of a training may encode to score the untuned model, and without channels.

    With `PICTURES` and `CHECK` these are 1/20 of the training, at most `MAX_PASSES`.

    Args:
        trained: images that the training encodes; those of training steps count three times for the backward pass.
    """
    allowed = min(trained // 20, MAX_PASSES) - PICTURES - CHECK
    return max(allowed // 3, 1), max(allowed - allowed // 3, 0)


def zero_shot_scores(
    bundle: Bundle,
    dataset: Dataset,
    registry: Registry,
    protocol: Protocol,
    passes: int,
    start: Sequence[ObjectScore],
) -> tuple[ObjectScore, ...]:
    """Return the scores of the untuned model: those of step 0 where that is the untuned model, else of some images.

    Args:
        bundle: of step 0.
        registry: contains the zero-shot map and the frozen tuner.
        passes: most images to encode.
        start: scores of step 0.
    """
    model = _untuned(bundle, registry)
    by_id = {sample.id: sample for sample in dataset.split("val")}
    prepared = bundle.pipeline(dataset.image(by_id[start[0].sample]))
    x, y = start[0].click_xy
    click = Prompt.points([(max(x, 0.0), max(y, 0.0))])
    one, other = (
        encode_image(each, prepared).decode([click]).logits
        for each in (bundle.model, model)
    )
    if torch.allclose(one, other, rtol=1e-3, atol=1e-3):
        return tuple(start)
    scored = list(dict.fromkeys(score.sample for score in start))
    some = evenly_spaced([by_id[name] for name in scored], passes)
    return evaluate(
        Predictor(model, bundle.pipeline),
        dataset,
        some,
        request=EvalRequest(protocol=protocol),
    ).objects


def _untuned(bundle: Bundle, registry: Registry) -> SimMAT:
    """Return the untuned model of a bundle, on the same device."""
    network = assemble(*zero_shot_of(bundle.spec, registry, bundle.parts.weights))
    return network.to(next(bundle.model.parameters()).device).eval()


def analyse_bundle(
    bundle: Bundle,
    data: Path,
    split: str | None,
    registry: Registry,
    *,
    images: int,
    overrides: Mapping[str, object] | None = None,
    trained: TrainConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Analysis:
    """Score a bundle and its untuned foundation model on images of a data set, and draw the results.

    Args:
        split: "train", "val" or "test"; None means test if there is one, else val.
        images: most images to score; of a larger split evenly spread ones with regions.
        overrides: fields of the data card; None is not set.
        trained: settings of the training if the data set is its own, so that some of its labels are drawn.
        progress: called with the number of finished and of all images, each counted once for every model.

    Raises:
        DataError: the data cannot be read, no image has a region, or the bundle was trained on all of them.
    """
    dataset = open_dataset(
        data.absolute(),
        bundle.modality,
        overrides,
        defaults=trained_card(bundle.spec.card),
    )
    if split is None:
        split = "test" if dataset.has_split("test") else "val"
    every, seen = unseen_samples(bundle, dataset, dataset.split(split), split)
    # in a sparse data set most of a few images would have no region
    if images < len(every):
        index = read_index(dataset)
        every = (
            index.with_regions(
                [one for one in every if one.id not in index.faults], "scoring"
            )
            or every
        )
    samples = evenly_spaced(every, images)
    protocol = find_protocol(str(bundle.spec.metrics.get("protocol", ONE_CLICK.name)))
    why = why_no_zero_shot(bundle.parts)
    total, done = len(samples) * (1 if why else 2), itertools.count(1)
    advance = None if progress is None else lambda _: progress(next(done), total)
    scores, zero_shot = (
        validate(
            Predictor.of_bundle(bundle), dataset, samples, protocol, progress=advance
        ),
        None,
    )
    model = None
    if not why:
        model = _untuned(bundle, registry)
        untuned = replace(bundle, model=model)
        zero_shot = evaluate(
            Predictor.of_bundle(untuned),
            dataset,
            samples,
            request=EvalRequest(protocol=protocol),
            progress=advance,
        ).objects
    found = analysis_of(
        dataset.root,
        split,
        len(samples),
        protocol,
        scores,
        zero_shot=zero_shot,
        why=why,
        class_names=dataset.class_names or bundle.spec.card.class_names,
    ).model_copy(update={"available": len(every), "seen": seen_note(seen)})
    return analyse(
        bundle, dataset, samples, found, ABLATION_PASSES, model, trained=trained
    )


def analysis_of(
    data: Path,
    split: str,
    images: int,
    protocol: Protocol,
    scores: Scores,
    *,
    zero_shot: tuple[ObjectScore, ...] | None,
    why: str,
    class_names: Mapping[int, str],
) -> Analysis:
    """Return an analysis with scores only."""
    found = scores.unprompted
    unprompted, certain = (
        ({}, {}) if found is None else (found.summary(), found.confidence())
    )
    class_iou = unprompted.get("semantic", {}).pop("iou_by_class", {})
    return Analysis(
        data=str(data),
        split=split,
        images=images,
        available=images,
        protocol=protocol.name,
        scores=scores.objects,
        zero_shot=zero_shot,
        no_zero_shot=why,
        class_names=dict(class_names),
        unprompted=unprompted,
        class_iou={int(value): iou for value, iou in class_iou.items()},
        mistakes={} if found is None else found.mistakes(),
        confidence={kind: tuple(rows) for kind, rows in certain.items()},
    )


def analyse(
    bundle: Bundle,
    dataset: Dataset,
    samples: Sequence[Sample],
    found: Analysis,
    passes: int,
    untuned: SimMAT | None = None,
    *,
    trained: TrainConfig | None = None,
) -> Analysis:
    """Add pictures, importance of channels and a report on the data to the scores of a network.

    Args:
        passes: how many images may be encoded with channels withheld, beside `PICTURES`, and with a dense head as many
            again for images that it cuts into windows.
        untuned: the untuned model, whose predictions are drawn beside.
        trained: as for `analyse_bundle`.
    """
    protocol = find_protocol(found.protocol)
    by_id = {sample.id: sample for sample in samples}
    chosen = pick_examples(found.scores)
    pipeline = scoring_pipeline(protocol, bundle.pipeline)
    examples, views, dense = draw_examples(
        bundle, pipeline, dataset, by_id, chosen, untuned
    )
    labelled: tuple[Sample, ...] = ()
    if trained is not None:
        labelled = subset_of(read_index(dataset).training_samples(), trained)
    first = chosen[0][1]
    sample = by_id[first.sample]
    x0, y0 = (
        (sample.window.x0, sample.window.y0) if sample.window is not None else (0, 0)
    )
    scored = [
        by_id[name] for name in dict.fromkeys(score.sample for score in found.scores)
    ]
    return found.model_copy(
        update={
            "example": {source: str(file) for source, file in sample.files.items()},
            "example_xy": (first.click_xy[0] + x0, first.click_xy[1] + y0),
            "examples": examples,
            "views": views,
            "dense": dense,
            "training_labels": draw_training_labels(dataset, labelled),
            "ablations": channel_ablations(
                bundle, dataset, scored, found.scores, protocol, passes
            ),
            "data_report": check_dataset(dataset),
        }
    )


def channel_ablations(
    bundle: Bundle,
    dataset: Dataset,
    samples: Sequence[Sample],
    scores: Sequence[ObjectScore],
    protocol: Protocol,
    passes: int,
) -> tuple[ChannelAblation, ...]:
    """Score images with channels withheld; empty for a single channel or too small a budget.

    Args:
        scores: scores of their objects with all channels.
        passes: most images to encode.
    """
    pipeline = bundle.pipeline
    groups = np.array_split(
        np.arange(len(pipeline.channels)), min(len(pipeline.channels), MAX_GROUPS)
    )
    some = evenly_spaced(samples, passes // len(groups))
    if len(groups) < 2 or not some:
        return ()
    names = {sample.id for sample in some}
    base = [score for score in scores if score.sample in names]
    one_click = replace(protocol, clicks=1, repeats=0, alternatives=False)
    found = []
    for group in groups:
        # By an infinite deviation every value is the mean: 0, like missing values.
        channels = tuple(
            replace(channel, std=math.inf) if place in group else channel
            for place, channel in enumerate(pipeline.channels)
        )
        without = Predictor(bundle.model, replace(pipeline, channels=channels))
        withheld = evaluate(
            without, dataset, some, request=EvalRequest(protocol=one_click)
        ).objects
        found.append(
            ChannelAblation(
                channels=tuple(pipeline.channels[place].name for place in group),
                images=len(some),
                objects=len(base),
                miou=miou(withheld),
                base=miou(base),
                interval=None
                if (change := difference(withheld, base)) is None
                else change[1],
            )
        )
    return tuple(found)
