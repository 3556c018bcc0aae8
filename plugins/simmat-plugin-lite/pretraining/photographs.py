"""Photographs and what is marked in them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from simmat.data.dataset import Dataset, Sample

Bytes = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]

PARTS_OF_ONE = frozenset({"ccp"})
"""Sources whose regions are parts (clothes, skin, hair) of one thing, which is an object too."""


@dataclass(frozen=True)
class Photo:
    """A photograph or a view made of some.

    Attributes:
        image: (H, W, 3) RGB.
        labels: (H, W) number of the region at each pixel; 0 where there is none.
        parts_of_one: whether all regions together are an object too.
    """

    image: Bytes
    labels: Labels
    parts_of_one: bool = False

    def resized(
        self,
        size_wh: tuple[int, int],
        box: tuple[float, float, float, float] | None = None,
    ) -> Photo:
        """Return the photograph, or an XYXY box of it, at another size."""
        image = Image.fromarray(self.image).resize(
            size_wh, Image.Resampling.BILINEAR, box=box
        )
        labels = Image.fromarray(self.labels).resize(
            size_wh, Image.Resampling.NEAREST, box=box
        )
        return Photo(np.asarray(image), np.asarray(labels), self.parts_of_one)

    def regions(
        self, smallest_px: int
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Return the numbers of the regions of at least `smallest_px` pixels, and their areas."""
        areas = np.bincount(self.labels.ravel())
        areas[0] = 0
        numbers = np.flatnonzero(areas >= smallest_px)
        return numbers, areas[numbers]

    def without_small(self, smallest_px: int) -> Photo:
        """Return the photograph with no region below `smallest_px` pixels."""
        kept = np.isin(self.labels, self.regions(smallest_px)[0])
        return Photo(
            self.image, np.where(kept, self.labels, np.uint16(0)), self.parts_of_one
        )


def read_photo(dataset: Dataset, sample: Sample, short_px: int) -> Photo:
    """Read a photograph, at most `short_px` pixels on its shorter side.

    Raises:
        DataError: a file cannot be read, or the mask is not of the image's size.
    """
    image = dataset.image(sample)
    labels = np.zeros(image.size_hw, np.uint16)
    for number, region in enumerate(dataset.label(sample, image).regions, start=1):
        y0, x0, y1, x1 = region.window
        labels[y0:y1, x0:x1][region.crop] = number
    # (H, W, 3)
    pixels = np.ascontiguousarray(image.data.transpose(1, 2, 0).astype(np.uint8))
    photo = Photo(pixels, labels, sample.extra.get("source") in PARTS_OF_ONE)
    height, width = image.size_hw
    scale = min(short_px / min(height, width), 1)
    return (
        photo.resized((round(scale * width), round(scale * height)))
        if scale < 1
        else photo
    )


@dataclass(frozen=True)
class Cutout:
    """A thing cut out of a photograph.

    Attributes:
        image: (h, w, 3).
        mask: (h, w) which pixels are it; every edge of the array has one.
    """

    image: Bytes
    mask: Mask

    @classmethod
    def of(cls, image: Bytes, mask: Mask) -> Cutout:
        """Cut the True pixels of a mask, at least one, out of an (H, W, 3) image."""
        ys, xs = np.nonzero(mask)
        part = (slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1))
        return cls(image[part], mask[part])


def cut_object(photo: Photo, rng: np.random.Generator) -> Cutout | None:
    """Return a random object of a photograph, larger ones sooner; None where all are smaller than 200 pixels."""
    numbers, areas = photo.regions(200)
    if not len(numbers):
        return None
    if photo.parts_of_one:
        return Cutout.of(photo.image, photo.labels > 0)
    return Cutout.of(
        photo.image, photo.labels == rng.choice(numbers, p=areas / areas.sum())
    )
