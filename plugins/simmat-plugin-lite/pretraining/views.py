"""A data set of views of photographs, for `simmat train`: crops of four, pasted objects, many copies, odd colours.

View i depends on seed and i alone. Flips, scales, gains and noise are left to the training's own augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import simmat
from pretraining.copies import SMALLEST_PX, many_copies
from pretraining.photographs import Photo, cut_object, read_photo
from pretraining.photometry import recolour
from simmat.errors import DataError

COPIES, MOSAIC, PASTE = 0.25, 0.12, 0.25
"""Parts of the views that show many copies of one thing; of the others, that are made of four or get an object."""

WHOLE = 2 / 3
"""How often the whole is asked for in place of its parts, where a photograph shows the parts of one thing."""

SMALLEST_LEFT_PX = 64
"""Smallest region of a photograph that a view shows."""

_TRIES = 100


class Views:
    """Views of photographs: those to train on, then the photographs to validate on as they are.

    Attributes:
        splits: of each view, "train" or "val".

    Raises:
        SimMATError: the data set cannot be read.
    """

    def __init__(self, data: Path, count: int, size: int, seed: int) -> None:
        """Open the photographs.

        Args:
            data: folder of a data set of `rgb` with instances.
            count: views to train on.
            size: pixels of a view's shorter side.
            seed: decides every view.
        """
        self._dataset = simmat.open_dataset(data, "rgb", regions="instances")
        self._train, self._val = (
            self._dataset.split("train"),
            self._dataset.split("val"),
        )
        self._count, self._size, self._seed = count, size, seed
        self.splits = ["train"] * count + ["val"] * len(self._val)
        self._last = lru_cache(maxsize=1)(self._draw)  # an image, then its mask

    def __len__(self) -> int:
        return len(self.splits)

    def __getitem__(self, index: int) -> Photo:
        """Return a view; its regions are numbered by value.

        Raises:
            DataError: a file cannot be read, or no photograph has a region.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._last(index)

    def _draw(self, index: int) -> Photo:
        if index >= self._count:
            return read_photo(self._dataset, self._val[index - self._count], self._size)
        rng = np.random.default_rng([self._seed, index])
        for _ in range(_TRIES):
            view = self._view(rng)
            if view.labels.any():
                return Photo(recolour(view.image, rng), view.labels)
        raise DataError(
            f"{self._dataset.root}: {_TRIES} photographs drawn one after the other show no region; see the column "
            "zero_means of manifest.csv"
        )

    def _view(self, rng: np.random.Generator) -> Photo:
        photo = self._photo(rng)
        if rng.random() < COPIES:
            return many_copies(photo, self._photo(rng), rng).without_small(SMALLEST_PX)
        if rng.random() < MOSAIC:
            photo = mosaic(
                [photo, *(self._photo(rng) for _ in range(3))], self._size, rng
            )
        elif photo.parts_of_one and rng.random() < WHOLE:
            photo = Photo(photo.image, (photo.labels > 0).astype(np.uint16))
        if rng.random() < PASTE:
            photo = paste(photo, self._photo(rng), rng)
        return photo.without_small(SMALLEST_LEFT_PX)

    def _photo(self, rng: np.random.Generator) -> Photo:
        return read_photo(
            self._dataset, self._train[int(rng.integers(len(self._train)))], self._size
        )


class _Part(Sequence[npt.NDArray[Any]]):
    """The images of views, (3, H, W), or their labels, (H, W); each is drawn when it is asked for."""

    def __init__(self, views: Views, images: bool) -> None:
        self._views, self._images = views, images

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, index: Any) -> Any:
        view = self._views[index]
        if self._images:
            return view.image.transpose(2, 0, 1)  # (3, H, W)
        return view.labels.astype(np.uint8) if view.labels.max() < 256 else view.labels


def write_views(data: Path, out: Path, count: int, size: int, seed: int) -> None:
    """Write views and the photographs to validate on as a data set; arguments as `Views` has them.

    Raises:
        SimMATError: the photographs cannot be read, or the folder holds something or cannot be written.
    """
    views = Views(data, count, size, seed)
    simmat.Dataset.from_arrays(
        _Part(views, images=True),
        _Part(views, images=False),
        split=views.splits,
        folder=out,
        regions="instances",
        min_region=SMALLEST_PX,
    )


def mosaic(photos: Sequence[Photo], size: int, rng: np.random.Generator) -> Photo:
    """Put a square piece of each of four photographs into a frame: small objects, and many in a frame."""
    half = size // 2
    image, labels = (
        np.zeros((2 * half, 2 * half, 3), np.uint8),
        np.zeros((2 * half, 2 * half), np.uint16),
    )
    for index, photo in enumerate(photos):
        height, width = photo.labels.shape
        side = min(height, width)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        piece = photo.resized((half, half), box=(x, y, x + side, y + side))
        where = np.s_[index // 2 * half :, index % 2 * half :]
        before = int(labels.max())
        image[where][:half, :half] = piece.image
        labels[where][:half, :half] = np.where(
            piece.labels > 0, piece.labels + before, 0
        )
    return Photo(image, labels)


def paste(view: Photo, photo: Photo, rng: np.random.Generator) -> Photo:
    """Put an object of another photograph somewhere; it becomes a region and hides what it covers."""
    thing = cut_object(photo, rng)
    if thing is None:
        return view
    height, width = view.labels.shape
    h, w = thing.mask.shape
    scale = (
        min(height, width)
        * float(np.exp(rng.uniform(np.log(0.12), np.log(0.7))))
        / max(h, w)
    )
    size_wh = (max(4, round(w * scale)), max(4, round(h * scale)))
    cut, alpha = (
        np.asarray(
            Image.fromarray(plane).resize(size_wh, Image.Resampling.BILINEAR),
            np.float32,
        )
        for plane in (thing.image, thing.mask.astype(np.uint8) * 255)
    )
    w, h = size_wh
    y, x = (
        int(rng.integers(-h // 4, max(height - 3 * h // 4, 1))),
        int(rng.integers(-w // 4, max(width - 3 * w // 4, 1))),
    )
    where = np.s_[max(y, 0) : y + h, max(x, 0) : x + w]
    part = np.s_[max(-y, 0) : height - y, max(-x, 0) : width - x]
    a = alpha[part] / 255
    covered = np.zeros_like(view.labels, bool)
    covered[where] = a > 0.5
    if covered.sum() < SMALLEST_LEFT_PX:
        return view
    image = view.image.copy()
    image[where] = (
        image[where] * (1 - a[..., None]) + cut[part] * a[..., None] + 0.5
    ).astype(np.uint8)
    return Photo(
        image, np.where(covered, view.labels.max() + np.uint16(1), view.labels)
    )
