"""What a predictor finds in an image: the masks of prompts, every object, and the class of every pixel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject, region_from_mask
from simmat.drawing.display import PictureArray, display_channels, display_rgb, show_channels
from simmat.predictor.open import FileImage
from simmat.types import BoolArray, FloatArray, ImageReader, OverviewReader, Prompt, SensorImage, Window

if TYPE_CHECKING:
    import PIL.Image

PICTURE_PX = 2048
"""Longest side of a picture in pixels."""
PART_PX = 512
"""Side of the parts in which an image is read."""


@dataclass(frozen=True)
class Prediction:
    """A mask of one image; those of `TiledImage` cover a window of it.

    Attributes:
        mask: (H, W) bool at the original resolution.
        logits: (H, W) float32; the mask is where they are above 0.
        score: predicted IoU of the mask, calibrated where the bundle has a calibration.
        low_res_logits: (h, w) float32, the same logits at the decoder's own size.
        image: what was loaded, of the size of the mask.
        window: the part of the whole image that the mask covers; all of it from `Predictor.predict`.
        low_res_window: the part of the whole image that `low_res_logits` cover.
        warning: how the values differ from those of training, so that the mask may be meaningless; "" if they do not.
        class_probabilities: label value -> probability, of all classes but the background, calibrated as `score` is;
            None if the model does not distinguish classes, or the mask is empty.
    """

    mask: BoolArray
    logits: FloatArray
    score: float
    low_res_logits: FloatArray
    image: SensorImage
    window: Window
    low_res_window: Window
    warning: str = ""
    class_probabilities: Mapping[int, float] | None = None

    @property
    def low_res(self) -> FloatArray:  # former name
        """The former name of `low_res_logits`."""
        return self.low_res_logits

    @property
    def class_id(self) -> int | None:
        """The class that the object most likely has; None without classes."""
        known = self.class_probabilities
        if known is None:
            return None
        return max(known, key=known.__getitem__)

    @property
    def class_probability(self) -> float | None:
        """The probability of that class; None without classes."""
        if self.class_probabilities is None:
            return None
        return max(self.class_probabilities.values())

    def __repr__(self) -> str:
        """Give the size of the mask and its score, not half a million numbers."""
        return f"<Prediction: {int(self.mask.sum())} of {self.mask.size} pixels, score {self.score:.3f}>"

    def plot(self, prompt: Prompt | None = None) -> PIL.Image.Image:
        """Return a picture of the image with the mask over it, and a prompt's points and box; a notebook shows it."""
        from simmat.drawing.overlay import draw_overlay

        return draw_overlay(display_rgb(self.image), self.mask, prompt)

    def whole_mask(self, size_hw: tuple[int, int]) -> BoolArray:
        """Return the mask at the (height, width) of the whole image, False outside of its window."""
        mask = np.zeros(size_hw, np.bool_)
        mask[self.window.slices] = self.mask
        return mask

    def over_whole_image(self, reader: ImageReader) -> Prediction:
        """Return the mask at the size of the whole image; outside of its window its logits are the smallest ones."""
        if self.window.size_hw == reader.size_hw:
            return self
        logits = np.full(reader.size_hw, min(float(self.logits.min()), -1.0), np.float32)
        logits[self.window.slices] = self.logits
        whole = Window(0, 0, *reader.size_hw)
        mask = self.whole_mask(reader.size_hw)
        return replace(self, mask=mask, logits=logits, image=reader.read(whole), window=whole)

    def found_object(self, point_xy: tuple[float, float]) -> FoundObject | None:
        """Return the mask in pixels of the whole image; None if it is empty."""
        region = region_from_mask(self.mask, self.class_id, (self.window.y0, self.window.x0))
        if region is None:
            return None
        return FoundObject(region, self.score, point_xy, self.class_probabilities)


class FoundObjects(list[FoundObject]):
    """The objects of an image, best first.

    Attributes:
        reader: the image.
        class_names: label value -> name.
    """

    def __init__(self, objects: Iterable[FoundObject], reader: ImageReader, class_names: Mapping[int, str]) -> None:
        super().__init__(objects)
        self.reader = reader
        self.class_names = class_names

    def plot(self, objects: Sequence[FoundObject] | None = None) -> PIL.Image.Image:
        """Return a picture of the image with objects over it, all or those given; a notebook shows it."""
        from simmat.drawing.found import draw_objects

        chosen = self if objects is None else objects
        instances = [one.instance for one in chosen]
        return draw_objects(picture_of(self.reader), instances, self.reader.size_hw, self.class_names)


@dataclass(frozen=True)
class ClassMap:
    """The class of every pixel of an image.

    Attributes:
        labels: (H, W) label values, unsigned integers; 0 where the background is a class and the pixel is of it.
        probability: (H, W) float32 of that class; 0 where nothing was measured.
        values: K label values of the classes, the background among them.
        reader: the image.
        class_names: label value -> name.
        background: label value that is no class; None if every value is one.
        nodata: label value of pixels where nothing was measured.
        probabilities: (K, H, W) float32 of every class, in the order of `values`; they add up to 1 at each pixel, and
            are 0 where nothing was measured. None if not asked for.
    """

    labels: npt.NDArray[Any]
    probability: FloatArray
    values: tuple[int, ...]
    reader: ImageReader
    class_names: Mapping[int, str]
    background: int | None = None
    nodata: int | None = None
    probabilities: FloatArray | None = None

    def __repr__(self) -> str:
        """Give size and classes, not half a million numbers."""
        height, width = self.labels.shape
        return f"<ClassMap: {width}x{height} pixels, classes {', '.join(map(str, self.values))}>"

    def plot(self) -> PIL.Image.Image:
        """Return a picture of the image with the classes over it; a notebook shows it."""
        from simmat.drawing.found import draw_classes

        ignored = {value for value in (self.background, self.nodata) if value is not None}
        return draw_classes(picture_of(self.reader), self.labels, ignored, self.class_names)


def picture_of(reader: ImageReader) -> PictureArray:
    """Return an image as a picture (h, w, 3) of at most `PICTURE_PX` on its longer side; only shown bands are read."""
    channels = reader.read(Window(0, 0, 1, 1)).channels
    shown = display_channels(channels)
    selected = sorted(set(shown))
    if isinstance(reader, FileImage):
        reader = replace(reader, adapter=reader.adapter.with_channels(selected))
    step = math.ceil(max(reader.size_hw) / PICTURE_PX)
    if isinstance(reader, OverviewReader):
        whole = Window(0, 0, *reader.size_hw)
        small = reader.read_overview(whole, step).select(selected)
    else:
        small = _read_small(reader, selected, step)
    return show_channels(small, [selected.index(index) for index in shown])


def _read_small(reader: ImageReader, selected: Sequence[int], step: int) -> SensorImage:
    """Return every step-th pixel of some channels of an image, which is read in parts."""
    height, width = reader.size_hw
    side = max(PART_PX // step, 1) * step
    data = np.zeros((len(selected), math.ceil(height / step), math.ceil(width / step)), np.float32)
    valid = np.zeros(data.shape, np.bool_)
    for y in range(0, height, side):
        for x in range(0, width, side):
            part = reader.read(Window(y, x, min(y + side, height), min(x + side, width)))
            rows = slice(y // step, (y + side) // step)
            columns = slice(x // step, (x + side) // step)
            data[:, rows, columns] = part.data[selected, ::step, ::step]
            valid[:, rows, columns] = part.valid[selected, ::step, ::step]
    return SensorImage(data, valid, tuple(part.channels[index] for index in selected))
