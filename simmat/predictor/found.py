"""What is found in an image without prompts: objects, and the class of every pixel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.data.instances import FoundObject
from simmat.predictor.picture import picture_of
from simmat.types import FloatArray, ImageReader

if TYPE_CHECKING:
    import PIL.Image


class FoundObjects(list[FoundObject]):
    """The objects of an image, best first.

    Attributes:
        reader: the image.
        class_names: label value -> name.
    """

    def __init__(self, objects: Iterable[FoundObject], reader: ImageReader, class_names: Mapping[int, str]) -> None:
        super().__init__(objects)
        self.reader, self.class_names = reader, class_names

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


def label_values(background: bool, classes: Sequence[int | None]) -> npt.NDArray[np.int64]:
    """Return the label value of each index of a class map; objects without a class are 1."""
    return np.asarray([*([0] if background else []), *(1 if value is None else value for value in classes)], np.int64)
