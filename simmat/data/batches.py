"""Training batches: the order of the samples, their augmentation and their prompts.

Everything random is drawn from (seed, position in the run) alone. So a resumed run, and a run on several processes, has
exactly the samples, augmentations and prompts of an uninterrupted run in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from simmat.data.augment import Augmentation, cut_label, place_window
from simmat.data.dataset import Dataset, Sample
from simmat.data.instances import (
    Annotation,
    Instance,
    center_click,
    jitter_box,
    random_click,
    tight_box,
    visible_part,
    visible_regions,
)
from simmat.data.pipeline import (
    NO_TRUTH,
    Pipeline,
    dense_targets,
    ignored_pixels,
    resized_region,
)
from simmat.errors import DataError
from simmat.model_spec import DenseSpec
from simmat.nn.losses import Batch
from simmat.types import BoolArray, Letterbox, SensorImage

T = TypeVar("T")


_LABEL_BYTES = 2**27
_OBJECT_BYTES = 500
"""Roughly what a region takes besides its mask."""

DRAWS = 4
"""R: random numbers per prompt, one for each round of corrections."""


def nothing_extra(sample_id: str) -> Tensor:
    """Return what most losses need to know of a sample besides image and label: nothing."""
    return torch.empty(0)


@dataclass(frozen=True)
class TrainingItems(TorchDataset[Batch]):
    """The endless stream of training items; item i is at position i of the run.

    Attributes:
        samples: the training samples, without those that have no region, see `DataIndex.training_samples`.
        prompts: P, prompts per image; regions repeat where an image has fewer.
        clicks: "mixed" places half of the first clicks at a region's centre, "random" all of them anywhere on it.
        batch_size: images of one optimiser step, over all processes.
        dense: what a dense head is trained to tell apart; None without one.
        extra: sample id -> what the loss needs to know of it, see `Loss.item`.
        image_bytes: how much memory images that were read may take in this process.
    """

    dataset: Dataset
    samples: tuple[Sample, ...]
    pipeline: Pipeline
    augmentation: Augmentation
    prompts: int
    batch_size: int
    seed: int
    clicks: Literal["mixed", "random"] = "mixed"
    dense: DenseSpec | None = None
    extra: Callable[[str], Tensor] = nothing_extra
    image_bytes: int = 0
    _labels: _Cache = field(
        default_factory=lambda: _Cache(), init=False, repr=False, compare=False
    )
    _images: _Cache = field(
        default_factory=lambda: _Cache(), init=False, repr=False, compare=False
    )

    def __getitem__(self, position: int) -> Batch:
        """Return one item without its batch dimension."""
        rng = np.random.default_rng([self.seed, 1, position])
        sample = self.samples[sample_at(position, len(self.samples), self.seed)]
        image, label = self._read(sample, rng)
        image, label = self.augmentation(image, label, self.pipeline.adapter, rng)
        prepared = self.pipeline(image)
        ignore = ignored_pixels(label, prepared.letterbox)
        regions = visible_regions(label)
        if not regions:
            # Augmentation hid all regions. The batch needs targets of this shape, so all pixels are ignored.
            regions = label.regions
            ignore = np.ones_like(ignore)
        if not regions:
            raise DataError(
                f"{sample.mask or sample.reference}: it has no regions any more; restore it and resume the run"
            )
        targets = self._targets(regions, prepared.letterbox, rng)
        points = np.stack(
            [_click(target, ignore, self.clicks, rng) for target in targets]
        )
        classes, distance = self._dense(sample, label, prepared.letterbox)
        size_hw = (self.pipeline.size, self.pipeline.size)
        boxes = jitter_box(
            np.stack([tight_box(target) for target in targets]), size_hw, rng
        )
        return Batch(
            planes=prepared.planes,
            content=prepared.content,
            targets=torch.from_numpy(
                np.stack([target.mask(size_hw) for target in targets])
            ),
            ignore=torch.from_numpy(ignore),
            clicks=torch.from_numpy(points.astype(np.float32)),
            boxes=torch.from_numpy(boxes),
            draws=torch.from_numpy(rng.random((self.prompts, DRAWS), dtype=np.float32)),
            step_draw=torch.tensor(
                _step_draw(position // self.batch_size, self.seed), dtype=torch.float32
            ),
            class_targets=classes,
            distance=distance,
            extra=self.extra(sample.id),
        )

    def _read(
        self, sample: Sample, rng: np.random.Generator
    ) -> tuple[SensorImage, Annotation]:
        """Read a sample, or a random window of the card's `crop` around one of its regions, in its own pixels."""
        crop = self.dataset.card.crop
        whole = self._labels.get(sample.id, lambda: self._label(sample), _LABEL_BYTES)
        if sample.window is None:
            image = self._images.get(
                sample.id, lambda: self._image(sample), self.image_bytes
            )
        if not crop:
            return image, self.dataset.label_ignoring_invalid(whole, sample, image)
        height, width = whole.size_hw
        inside = place_window(whole, (min(height, crop), min(width, crop)), rng)
        label = cut_label(whole, inside, keep=0)
        large = tuple(
            region for region in label.regions if region.area >= label.smallest
        )
        label = replace(label, regions=large or label.regions)
        if sample.window is None:
            sample = sample.within(inside)
            image = image.cut(inside)
        else:
            sample = sample.within(inside.moved(*sample.window[:2]))
            image = self.dataset.image(sample)
        return image, self.dataset.label_ignoring_invalid(label, sample, image)

    def _label(self, sample: Sample) -> tuple[Annotation, int]:
        """Read a label; return it with its size in memory."""
        label = self.dataset.label(sample)
        size = sum(
            region.crop.nbytes + _OBJECT_BYTES
            for region in (*label.regions, *label.small)
        )
        if label.ignore.any():
            return label, size + label.ignore.nbytes
        return replace(label, ignore=np.broadcast_to(np.False_, label.size_hw)), size

    def _image(self, sample: Sample) -> tuple[SensorImage, int]:
        image = self.dataset.image(sample)
        return image, image.data.nbytes + image.valid.nbytes

    def _dense(
        self, sample: Sample, label: Annotation, letterbox: Letterbox
    ) -> tuple[Tensor, Tensor]:
        if self.dense is None:
            return torch.empty(0, dtype=torch.int64), torch.empty(0)
        known = self.dense.background and not self.dataset.may_have_unmarked(sample)
        classes, distance = dense_targets(
            label, letterbox, self.dense.index_of, 0 if known else NO_TRUTH
        )
        return torch.from_numpy(classes), torch.from_numpy(distance)

    def _targets(
        self,
        regions: Sequence[Instance],
        letterbox: Letterbox,
        rng: np.random.Generator,
    ) -> list[Instance]:
        """Draw P regions, each once before any repeats, as regions of the input."""
        count = len(regions)
        order = np.concatenate(
            [rng.permutation(count) for _ in range(-(-self.prompts // count))]
        )[: self.prompts]
        resized = {}
        for index in dict.fromkeys(order.tolist()):
            resized[index] = resized_region(regions[index], letterbox)
        return [resized[index] for index in order.tolist()]


class _Cache:
    """Values that were read before, up to some bytes.

    The first ones stay: every epoch has another order, so none of them is needed sooner than others.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._bytes = 0

    def get(self, key: str, read: Callable[[], tuple[T, int]], max_bytes: int) -> T:
        """Return a value, which `read` gives with its size in bytes if it is not kept."""
        known = self.values.get(key)
        if known is not None:
            return cast(T, known)
        value, size = read()
        if self._bytes + size <= max_bytes:
            self._bytes += size
            self.values[key] = value
        return value


def _click(
    target: Instance, ignore: BoolArray, clicks: str, rng: np.random.Generator
) -> tuple[float, float]:
    """Draw a click (x, y) on pixels of the target that are not ignored; on any if all are: the loss skips them."""
    place = visible_part(target, ignore) or target
    if clicks == "mixed" and rng.random() < 0.5:
        return center_click(place)
    return random_click(place, rng)


def sample_at(position: int, count: int, seed: int) -> int:
    """Return the index of the sample at a position of the run; every epoch is a new permutation of `count` samples."""
    epoch, place = divmod(position, count)
    return int(_order(epoch, count, seed)[place])


@lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


@lru_cache(maxsize=2)
def _step_draw(step: int, seed: int) -> float:
    return np.random.default_rng([seed, 2, step]).random()
