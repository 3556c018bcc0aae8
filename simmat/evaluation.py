"""Scoring: one click an object, masks compared at the original resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simmat.bundle import Bundle, zero_shot_plan
from simmat.data.card import CARD_FILE, merge
from simmat.data.clicks import center_click
from simmat.data.dataset import Dataset, Sample, open_dataset
from simmat.data.pipeline import Pipeline, prompt_batch
from simmat.data.regions import Region
from simmat.errors import DataError
from simmat.model import SimMAT, assemble
from simmat.nn.resize import restore_logits
from simmat.plugins import Registry
from simmat.types import Prompt, SensorImage

PROMPTS_AT_ONCE = 16
"""Prompts decoded and brought to the original resolution together; bounds memory, changes no figure."""


@dataclass(frozen=True, slots=True)
class ObjectScore:
    """How well one object was found from one click.

    Attributes:
        sample: id of the sample.
        region: index of the region within the sample.
        class_id: class of the region, where the data set says one.
        area: pixels of the region.
        click_xy: the click, in pixels of the original image.
        iou: of the single mask, at the original resolution.
        iou_best_predicted: of the mask whose predicted IoU is highest among the alternatives.
        iou_oracle: of the best of the alternatives.
        predicted_iou: what the model thinks the single mask's IoU is.
    """

    sample: str
    region: int
    class_id: int | None
    area: int
    click_xy: tuple[float, float]
    iou: float
    iou_best_predicted: float
    iou_oracle: float
    predicted_iou: float


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one split.

    Attributes:
        objects: one score an object, in the order of the data set.
        without_region: ids of samples that hold no region, which are not scored.
    """

    objects: tuple[ObjectScore, ...]
    without_region: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return the averages: over objects, over images (of their objects' mean) and over classes."""
        by_class = _means(self.objects, lambda score: score.class_id)
        known = {key: value for key, value in by_class.items() if key is not None}
        return {
            "objects": len(self.objects),
            "images": len({score.sample for score in self.objects}),
            "miou_object": fmean(score.iou for score in self.objects),
            "miou_image": fmean(_means(self.objects, lambda score: score.sample).values()),
            "miou_class": fmean(known.values()) if known else None,
            "iou_by_class": {str(key): value for key, value in sorted(known.items())},
            "miou_best_predicted": fmean(score.iou_best_predicted for score in self.objects),
            "miou_oracle": fmean(score.iou_oracle for score in self.objects),
        }


def _means(objects: Iterable[ObjectScore], key: Callable[[ObjectScore], Any]) -> dict[Any, float]:
    groups: dict[Any, list[float]] = {}
    for score in objects:
        groups.setdefault(key(score), []).append(score.iou)
    return {name: fmean(values) for name, values in groups.items()}


def evaluate_bundle(
    bundle: Bundle,
    data: Path,
    split: str = "test",
    *,
    overrides: Mapping[str, object] | None = None,
    zero_shot: bool = False,
    registry: Registry | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Scores, Scores | None]:
    """Score a bundle on a split of a data set, and the untuned foundation model on the same clicks.

    What a region and a missing value are is said by `overrides`, else by the data set's card, else
    as it was in training.

    Args:
        bundle: a loaded bundle.
        data: folder of the data set.
        split: "train", "val" or "test".
        overrides: fields of the data card; None means not said.
        zero_shot: whether the foundation model is scored too; it needs `registry`.
        registry: where the zero-shot map and the frozen tuner are found.
        progress: called with (done, total) samples.

    Returns:
        The bundle's scores, and those of the zero-shot model: None where it was not asked for, or where
        the foundation model's decoder was never trained (see `has_zero_shot`).
    """
    dataset = open_dataset(data, bundle.adapter, _card_fields(bundle, data, overrides or {}))
    samples = dataset.split(split)
    models = [bundle.model]
    if zero_shot and registry is not None and has_zero_shot(bundle):
        device = next(bundle.model.parameters()).device
        models.append(assemble(zero_shot_plan(bundle.plan, registry)).to(device))
    total, done = len(models) * len(samples), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    scores = [
        evaluate(model, bundle.pipeline, dataset, samples, check=bundle.check_image, progress=advance)
        for model in models
    ]
    return scores[0], scores[1] if len(scores) > 1 else None


def has_zero_shot(bundle: Bundle) -> bool:
    """Return whether the bundle's foundation model can answer untuned: its decoder was trained, and not thrown away."""
    return bundle.plan.foundation.promptable and bundle.plan.weights is not None


def _card_fields(bundle: Bundle, data: Path, overrides: Mapping[str, object]) -> dict[str, object]:
    if (data / CARD_FILE).is_file():
        return dict(overrides)
    trained = bundle.spec.card.model_dump(
        include=set(overrides) | {"regions", "min_region", "nodata", "ignore", "zero_means", "intrinsics"}
    )
    return merge(trained, overrides)


def evaluate(
    model: SimMAT,
    pipeline: Pipeline,
    dataset: Dataset,
    samples: Sequence[Sample],
    *,
    check: Callable[[SensorImage], None] | None = None,
    progress: Callable[[int], None] | None = None,
    allow_empty: bool = False,
) -> Scores:
    """Score one click an object, the click being the maximum of the object's distance transform.

    Args:
        model: the network; it is put into eval mode and left so.
        pipeline: image -> network input.
        dataset: where samples are read.
        samples: what is scored.
        check: called with every loaded image, to refuse what does not fit.
        progress: called with 1 after every sample.
        allow_empty: whether it is fine that no sample has a region, as for one process's part of a split.

    Raises:
        DataError: no sample has a region.
    """
    model.eval()
    objects: list[ObjectScore] = []
    empty: list[str] = []
    for sample in samples:
        image = dataset.image(sample)
        if check is not None:
            check(image)
        found = list(_score_sample(model, pipeline, dataset, sample, image))
        objects.extend(found)
        if not found:
            empty.append(sample.id)
        if progress is not None:
            progress(1)
    if not objects and not allow_empty:
        raise DataError(
            f"{dataset.root}: none of the {len(samples)} samples has a region of at least "
            f"{dataset.card.min_region} px, so there is nothing to score; check --regions and --min-region"
        )
    return Scores(tuple(objects), tuple(empty))


@torch.inference_mode()
def _score_sample(
    model: SimMAT, pipeline: Pipeline, dataset: Dataset, sample: Sample, image: SensorImage
) -> Iterator[ObjectScore]:
    label = dataset.label(sample, image)
    # A region of which nothing may be scored has no IoU.
    masks = [(index, region, region.mask(label.size_hw)) for index, region in enumerate(label.regions)]
    masks = [(index, region, mask) for index, region, mask in masks if (mask & ~label.ignore).any()]
    if not masks:
        return
    device = next(model.parameters()).device
    prepared = pipeline(image)
    embedding = model.encode(prepared.planes[None].to(device), prepared.content[None].to(device))
    scored = torch.from_numpy(~label.ignore).to(device)
    for start in range(0, len(masks), PROMPTS_AT_ONCE):
        part = masks[start : start + PROMPTS_AT_ONCE]
        clicks = [center_click(mask) for _, _, mask in part]
        prompts = prompt_batch([Prompt.points([click]) for click in clicks], prepared.frame, device)
        answer = model.decode(embedding, prompts)
        truth = torch.from_numpy(np.stack([mask for _, _, mask in part])).to(device)
        ious = _ious(restore_logits(answer.logits.float(), prepared.frame) > 0, truth, scored)
        for row, (index, region, _) in enumerate(part):
            yield _object_score(sample, index, region, clicks[row], ious[row], answer.iou[row].float())


def _ious(masks: Tensor, truth: Tensor, scored: Tensor) -> Tensor:
    """IoU of (K, M, H, W) masks with (K, H, W) truth over the scored (H, W) pixels: (K, M)."""
    truth = (truth & scored)[:, None]
    masks = masks & scored
    intersection = (masks & truth).flatten(2).sum(-1)
    union = (masks | truth).flatten(2).sum(-1)
    return intersection / union.clamp(min=1)


def _object_score(
    sample: Sample, index: int, region: Region, click: tuple[float, float], ious: Tensor, predicted: Tensor
) -> ObjectScore:
    alternatives = slice(1, None) if len(ious) > 1 else slice(None)
    best = int(predicted[alternatives].argmax())
    return ObjectScore(
        sample=sample.id,
        region=index,
        class_id=region.class_id,
        area=region.area,
        click_xy=(float(click[0]), float(click[1])),
        iou=float(ious[0]),
        iou_best_predicted=float(ious[alternatives][best]),
        iou_oracle=float(ious[alternatives].max()),
        predicted_iou=float(predicted[0]),
    )
