"""Training batches: a pure function of seed and step, so that a resumed run sees what it would have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from simmat_plugin_lite.clicks import box_around, click_inside
from simmat_plugin_lite.copies import many_copies
from simmat_plugin_lite.photometry import recolour
from simmat_plugin_lite.regions import Photo, region_values
from simmat_plugin_lite.spec import LITE
from simmat_plugin_lite.views import View, mosaic, paste, view_of


@dataclass(frozen=True)
class BatchPlan:
    """How a batch is drawn.

    Attributes:
        images: B, images of a batch.
        prompts: prompts an image.
        size: S, the frame.
        small: how often a batch has frames of three quarters of S: cheaper, and it keeps the model open to other sizes.
        shares: how often each source is drawn, relative; one that is not here as often as it has photographs.
        copies: how often a view is made to show many things alike.
        zoom, mosaic, paste: how often another one is cut, made of four, gets an object of another photograph.
        box: how often the first prompt is a box.
        central: how often a first click is near the region's deepest place.
        smallest_px: smallest region of a photograph asked for, in pixels of the frame; of copies, see their module.
    """

    images: int = 8
    prompts: int = 4
    size: int = 256
    small: float = 0.6
    shares: Mapping[str, float] = field(
        default_factory=lambda: {"coco": 0.36, "bsds": 0.26, "ccp": 0.14, "horses": 0.13, "cats": 0.11}
    )
    copies: float = 0.25
    zoom: float = 0.4
    mosaic: float = 0.12
    paste: float = 0.25
    box: float = 0.3
    central: float = 0.5
    smallest_px: int = 48


Batch = dict[str, Tensor]


class RegionBatches(IterableDataset[Batch]):
    """Endless batches from step `first_step` on; workers take turns.

    Raises:
        ValueError: no photograph has a region.
    """

    def __init__(self, photos: list[Photo], plan: BatchPlan, seed: int, first_step: int = 0) -> None:
        super().__init__()
        self.plan, self.seed, self.first_step = plan, seed, first_step
        self.by_source: dict[str, list[Photo]] = defaultdict(list)
        for photo in photos:
            self.by_source[photo.source].append(photo)
        if not any(region_values(mask, 1, p.zero_is_region)[0].size for p in photos for mask in p.masks):
            raise ValueError("no photograph to train on has a region; see the column zero_means of manifest.csv")
        self.sources = sorted(self.by_source)
        weights = np.array([plan.shares.get(s, len(self.by_source[s]) / len(photos)) for s in self.sources])
        self.weights = weights / weights.sum()

    def __iter__(self) -> Iterator[Batch]:
        worker: Any = torch.utils.data.get_worker_info()
        step, stride = self.first_step, 1
        if worker is not None:
            step, stride = step + worker.id, worker.num_workers
        while True:
            yield self.batch(step)
            step += stride

    def batch(self, step: int) -> Batch:
        """Draw the batch of a step.

        Returns:
            image (B, S, S, 3) uint8, S as drawn; content (B, S, S) bool; image_index (K,) int64; region (K, S, S) bool;
            point_coords (K, 1, 2) float32 xy; point_labels (K, 1) int64, -1 where the prompt is a box;
            boxes (K, 4) float32 XYXY, zeros where it is a click.
        """
        rng = np.random.default_rng((self.seed, step))
        size = self.plan.size
        if rng.random() < self.plan.small:
            size = max(round(0.75 * size / LITE.size_multiple), 1) * LITE.size_multiple
        views = [self._view(rng, size) for _ in range(self.plan.images)]
        images = np.stack([recolour(v.image, v.content, rng) for v in views])
        prompts = [
            (index, *self._prompt(view, rng)) for index, view in enumerate(views) for _ in range(self.plan.prompts)
        ]
        index, regions, points, labels, boxes = zip(*prompts, strict=True)
        return {
            "image": torch.from_numpy(images),
            "content": torch.from_numpy(np.stack([v.content for v in views])),
            "image_index": torch.tensor(index),
            "region": torch.from_numpy(np.stack(regions)),
            "point_coords": torch.tensor(points, dtype=torch.float32)[:, None],
            "point_labels": torch.tensor(labels)[:, None],
            "boxes": torch.from_numpy(np.stack(boxes)),
        }

    def _photo(self, rng: np.random.Generator, *without: str) -> Photo:
        while True:
            source = self.sources[int(rng.choice(len(self.sources), p=self.weights))]
            if source not in without or set(self.sources) <= set(without):
                return self.by_source[source][int(rng.integers(len(self.by_source[source])))]

    def _view(self, rng: np.random.Generator, size: int) -> View:
        plan = self.plan
        while True:
            if rng.random() < plan.copies:
                ground = view_of(self._photo(rng), size, rng, plan.smallest_px, plan.zoom)
                view = many_copies(ground, self._photo(rng, "bsds"), rng)
            else:
                view = self._view_of_photos(rng, size)
            if view.regions and view.content.any():
                return view

    def _view_of_photos(self, rng: np.random.Generator, size: int) -> View:
        plan = self.plan
        if rng.random() < plan.mosaic:
            view = mosaic([view_of(self._photo(rng), size // 2, rng, 24, 0.3) for _ in range(4)], size)
        else:
            view = view_of(self._photo(rng), size, rng, plan.smallest_px, plan.zoom)
        return paste(view, self._photo(rng, "bsds"), rng) if rng.random() < plan.paste else view

    def _prompt(self, view: View, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int], int, np.ndarray]:
        weights = np.array(view.weights)
        region = view.regions[int(rng.choice(len(weights), p=weights / weights.sum()))]
        if rng.random() < self.plan.box:
            box = box_around(region, rng, 0.05)
            return region, (0, 0), -1, box
        half = region[::2, ::2]
        step, asked = (2, half) if half.sum() >= 16 else (1, region)
        x, y = click_inside(asked, rng, self.plan.central)
        return region, (x * step, y * step), 1, np.zeros(4, np.float32)
