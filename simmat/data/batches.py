"""Training batches: the order of the samples, their augmentation and their prompts.

Everything random is drawn from (seed, position in the run) alone. So a resumed run, and a run on several processes, has
exactly the samples, augmentations and prompts of an uninterrupted run in one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from simmat.data.augment import Augmentation, cut_label, place_window
from simmat.data.clicks import center_click, jitter_box, random_click, tight_box
from simmat.data.dataset import Dataset, Sample
from simmat.data.dense_targets import NO_TRUTH, DenseClasses, dense_targets
from simmat.data.instances import Instance, Label, visible_regions
from simmat.data.pipeline import Pipeline
from simmat.errors import DataError
from simmat.nn.resize import resize_planes
from simmat.types import Frame, SensorImage, Window


class Batch(NamedTuple):
    """B images with P prompts each; coordinates are pixels of the S×S input.

    Attributes:
        planes: (B, C, S, S) float32.
        content: (B, S, S) bool, False in the padding.
        targets: (B, P, S, S) bool, the region of each prompt.
        ignore: (B, S, S) bool, pixels left out of loss and IoU, padding included.
        clicks: (B, P, 2) float32 xy, on a pixel of the region that is not ignored.
        boxes: (B, P, 4) float32 XYXY, jittered.
        draws: (B, P, R) float32 in [0, 1), for other random choices per prompt.
        step_draw: (B,) float32 in [0, 1), the same for all items of one optimiser step.
        classes: (B, S, S) int64, see `DenseTargets`; (B, 0) where there is no dense head.
        distance: (B, S, S) float32, likewise.
    """

    planes: Tensor
    content: Tensor
    targets: Tensor
    ignore: Tensor
    clicks: Tensor
    boxes: Tensor
    draws: Tensor
    step_draw: Tensor
    classes: Tensor
    distance: Tensor


DRAWS = 4
"""R: random numbers per prompt, one for each round of corrections."""


@dataclass(frozen=True)
class TrainingItems(TorchDataset[Batch]):
    """The endless stream of training items; item i is at position i of the run.

    Attributes:
        samples: the training samples, without those that have no region, see `DataIndex.training_samples`.
        prompts: P, prompts per image; regions repeat where an image has fewer.
        clicks: "mixed" places half of the first clicks at a region's centre, "random" all of them anywhere on it.
        batch_size: images of one optimiser step, over all processes.
        dense: what a dense head is trained to tell apart; None without one.
    """

    dataset: Dataset
    samples: tuple[Sample, ...]
    pipeline: Pipeline
    augmentation: Augmentation
    prompts: int
    batch_size: int
    seed: int
    clicks: Literal["mixed", "random"] = "mixed"
    dense: DenseClasses | None = None

    def __getitem__(self, position: int) -> Batch:
        """Return one item without its batch dimension."""
        rng = np.random.default_rng([self.seed, 1, position])
        sample = self.samples[sample_at(position, len(self.samples), self.seed)]
        image, label = self._read(sample, rng)
        image, label = self.augmentation(image, label, self.pipeline.adapter, rng)
        prepared = self.pipeline(image)
        ignore = ~prepared.content | torch.from_numpy(_resized(label.ignore, prepared.frame) > 0.5)
        if not (regions := visible_regions(label)):
            # Augmentation hid all regions. The batch needs targets of this shape, so all pixels are ignored.
            regions, ignore = label.regions, torch.ones_like(ignore)
        if not regions:
            raise DataError(
                f"{sample.mask or sample.reference}: it has no regions any more; restore it and resume the run"
            )
        targets = self._targets(regions, label.size_hw, prepared.frame, rng)
        points = np.stack([_click(target, ignore.numpy(), self.clicks, rng) for target in targets])
        classes, distance = self._dense(sample, label, prepared.frame)
        size_hw = (self.pipeline.size, self.pipeline.size)
        boxes = np.stack([jitter_box(tight_box(target), size_hw, rng) for target in targets])
        return Batch(
            planes=prepared.planes,
            content=prepared.content,
            targets=torch.from_numpy(targets),
            ignore=ignore,
            clicks=torch.from_numpy(points.astype(np.float32)),
            boxes=torch.from_numpy(boxes.astype(np.float32)),
            draws=torch.from_numpy(rng.random((self.prompts, DRAWS), dtype=np.float32)),
            step_draw=torch.tensor(
                np.random.default_rng([self.seed, 2, position // self.batch_size]).random(), dtype=torch.float32
            ),
            classes=classes,
            distance=distance,
        )

    def _read(self, sample: Sample, rng: np.random.Generator) -> tuple[SensorImage, Label]:
        """Read a sample; of a block a random crop around one of its regions, in its own pixels."""
        crop = self.dataset.card.crop
        if sample.window is None or crop is None:
            image = self.dataset.image(sample)
            return image, self.dataset.label(sample, image)
        whole = self.dataset.label(sample)
        height, width = whole.size_hw
        inside = place_window(whole, (min(height, crop), min(width, crop)), rng)
        label = cut_label(whole, inside, keep=0)
        large = tuple(region for region in label.regions if region.area >= label.smallest)
        label = replace(label, regions=large or label.regions)
        y, x = sample.window[:2]
        sample = sample.within(Window(inside[0] + y, inside[1] + x, inside[2] + y, inside[3] + x))
        image = self.dataset.image(sample)
        return image, self.dataset.seen_label(label, sample, image)

    def _dense(self, sample: Sample, label: Label, frame: Frame) -> tuple[Tensor, Tensor]:
        if self.dense is None:
            return torch.empty(0, dtype=torch.int64), torch.empty(0)
        known = self.dense.background and not self.dataset.may_have_unmarked(sample)
        found = dense_targets(label, frame, self.dense.index_of, 0 if known else NO_TRUTH)
        return torch.from_numpy(found.classes), torch.from_numpy(found.distance)

    def _targets(
        self, regions: Sequence[Instance], size_hw: tuple[int, int], frame: Frame, rng: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """Draw P regions, each once before any repeats, and resize them to the input: (P, S, S)."""
        count = len(regions)
        order = np.concatenate([rng.permutation(count) for _ in range(-(-self.prompts // count))])[: self.prompts]
        picked = {int(index): None for index in order}
        # One by one, as a mask of a large image takes more memory than all masks at the size of the input.
        resized = np.stack([_resized(regions[index].mask(size_hw), frame) for index in picked])  # (distinct, S, S)
        # A region thinner than an input pixel keeps its strongest pixels, so that every prompt has a target.
        bar = np.minimum(0.5, resized.max(axis=(1, 2)) * 0.999)
        binary = dict(zip(picked, resized > bar[:, None, None], strict=True))
        return np.stack([binary[int(index)] for index in order])


def _resized(mask: npt.NDArray[np.bool_], frame: Frame) -> npt.NDArray[np.float32]:
    """Resize an (H, W) mask to the input as coverage in 0..1: (S, S)."""
    plane = torch.from_numpy(mask[None].astype(np.float32))
    resized: npt.NDArray[np.float32] = resize_planes(plane, torch.ones_like(plane, dtype=torch.bool), frame)[0].numpy()
    return resized


def _click(
    target: npt.NDArray[np.bool_], ignore: npt.NDArray[np.bool_], clicks: str, rng: np.random.Generator
) -> tuple[float, float]:
    """Draw a click (x, y) on pixels of the target that are not ignored; on any if all are: the loss skips them."""
    seen = target & ~ignore
    place = seen if seen.any() else target
    return center_click(place) if clicks == "mixed" and rng.random() < 0.5 else random_click(place, rng)


def sample_at(position: int, count: int, seed: int) -> int:
    """Return the index of the sample at a position of the run; every epoch is a new permutation of `count` samples."""
    epoch, place = divmod(position, count)
    return int(np.random.default_rng([seed, 0, epoch]).permutation(count)[place])


class StepSampler(Sampler[list[int]]):
    """The positions of each micro-batch from `start` to `stop` - 1; micro-batch t has t·B to t·B + B - 1.

    Attributes:
        batch_size: B, images of a micro-batch over all processes; accelerate splits it among them.
        drop_last: read by accelerate; every batch is full.
    """

    def __init__(self, start: int, stop: int, batch_size: int) -> None:
        self.start, self.stop = start, stop
        self.batch_size = batch_size
        self.drop_last = True

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start, self.stop):
            yield list(range(step * self.batch_size, (step + 1) * self.batch_size))


def collate(items: Sequence[Batch]) -> Batch:
    """Stack items along a new first dimension."""
    return Batch(*(torch.stack(parts) for parts in zip(*items, strict=True)))
