"""What was found in one image or for one prompt, and its pixels band by band."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from simmat.drawing.display import PictureArray
from simmat.geo import Coords, installed_geo_backend
from simmat.io.files import release_pages
from simmat.plugin_specs import ResultKind
from simmat.types import BoolArray, Channel, Georeference, Prompt

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject
    from simmat.predictor.uncertainty import Uncertainty

LabelMap = npt.NDArray[np.integer[Any]]
"""(H, W) label values of any integer type."""

BAND_ROWS = 512
"""Rows that are held at once: a row of the tiles of a TIFF."""

_SHARE_ROWS = 64
"""Rows of a class map that are measured at once: a pixel of a map in degrees has another size in each row."""
_NAMED = 5
"""Classes that are named in a summary."""


@dataclass(frozen=True)
class ImageResult:
    """What was found in one image: every object, or the class of every pixel; one of the two is None.

    Attributes:
        name: how names of written files begin.
        class_names: names of label values; a value without a name is called by its number.
        picture: gives the (h, w, 3) uint8 display picture, which may be smaller than the image.
        objects: the objects, in any order.
        class_map: (H, W) label values, an array or a np.memmap.
        nodata: label value in `class_map` where nothing was measured.
        background: label value in `class_map` that is not a class; None if every value is one.
        warning: why the result may be wrong; "" if nothing speaks against it.
    """

    name: str
    size_hw: tuple[int, int]
    georeference: Georeference | None
    class_names: Mapping[int, str]
    picture: Callable[[], PictureArray]
    objects: tuple[FoundObject, ...] | None = None
    class_map: LabelMap | None = None
    nodata: int | None = None
    background: int | None = 0
    warning: str = ""

    @cached_property
    def ranked(self) -> tuple[FoundObject, ...]:
        """The objects by falling score; the first one has the instance id 1."""
        return tuple(sorted(self.objects or (), key=lambda found: -found.score))

    @cached_property
    def pixel_areas(self) -> Callable[[Coords], Coords] | None:
        """The areas of pixels in m², see `GeoBackend.pixel_areas`; None if they are unknown."""
        backend = installed_geo_backend()
        if self.georeference is None or backend is None:
            return None
        return backend.pixel_areas(self.georeference, self.size_hw)

    def areas_m2(self, centres_xy: npt.NDArray[np.float64], pixels: Sequence[int]) -> list[float | None]:
        """Return areas in m², to nine digits, of N parts of the image; None if the image has no place on the earth.

        Args:
            centres_xy: (N, 2) their centroids in pixels.
            pixels: N numbers of pixels.
        """
        if self.pixel_areas is None or not pixels:
            return [None] * len(pixels)
        areas = self.pixel_areas(centres_xy) * np.asarray(pixels)
        return [float(f"{area:.9g}") for area in areas.tolist()]

    @property
    def kind(self) -> ResultKind:
        """What the written files hold: "objects" or "classes"."""
        if self.objects is None:
            return "classes"
        return "objects"

    @property
    def ignored_values(self) -> frozenset[int]:
        """Values of `class_map` that are not classes: the background, and where nothing was measured."""
        return frozenset(value for value in (self.background, self.nodata) if value is not None)

    def class_name(self, value: int | None) -> str | None:
        """Return the name of a class, or its number if it has none; None for objects without a class."""
        if value is None:
            return None
        return self.class_names.get(value, str(value))

    def record(self, found: FoundObject) -> dict[str, Any]:
        """Return class, class_name, score and class_probability of an object as json values."""
        probability = found.class_probability
        if probability is not None:
            probability = round(float(probability), 6)
        return {
            "class": found.instance.class_id,
            "class_name": self.class_name(found.instance.class_id),
            "score": round(float(found.score), 6),
            "class_probability": probability,
        }


def _no_picture() -> PictureArray:
    raise ValueError("this result has no picture")


@dataclass(frozen=True)
class PromptResult:
    """The object that one prompt marks in an image.

    Attributes:
        name: how names of written files begin.
        mask: (H, W) bool, at the size of the image.
        score: predicted IoU of the mask.
        prompt: in pixels of the image.
        class_id: label value of the object's class; None if the model does not distinguish classes.
        class_name: its name, or its number if it has none.
        class_probability: the probability of that class.
        channels: those of the image.
        georeference: where the image lies on a map; None if this is not known.
        picture: gives the (H, W, 3) uint8 display picture.
        uncertainty: how much the mask differs between views of the image; None if that was not asked for.
        warning: why the mask may be wrong; "" if nothing speaks against it.
    """

    name: str
    mask: BoolArray
    score: float
    prompt: Prompt
    class_id: int | None = None
    class_name: str | None = None
    class_probability: float | None = None
    channels: tuple[Channel, ...] = ()
    georeference: Georeference | None = None
    picture: Callable[[], PictureArray] = _no_picture
    uncertainty: Uncertainty | None = None
    warning: str = ""

    @property
    def kind(self) -> ResultKind:
        """What the written files hold."""
        return "prompts"

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def record(self) -> dict[str, Any]:
        """Return score and size of the mask, and its class if the model distinguishes classes, as json values."""
        values: dict[str, Any] = {"score": self.score, "mask_pixels": self.area}
        if self.class_id is not None:
            values["class"] = self.class_id
            values["class_name"] = self.class_name
            values["class_probability"] = self.class_probability
        return values


Result = ImageResult | PromptResult
"""What a format of results writes to a file of its own."""


def label_type(result: ImageResult) -> np.dtype[Any]:
    """Return the smallest type of the instance ids or label values: uint8, then uint16, then larger ones."""
    if result.class_map is None:
        return np.dtype(np.uint16 if len(result.ranked) <= np.iinfo(np.uint16).max else np.uint32)
    values: list[int] = []
    if result.nodata is not None:
        values.append(result.nodata)
    for _, band in label_bands(result):
        values += [int(band.min()), int(band.max())]
    for kind in (np.uint8, np.uint16, np.int16, np.uint32, np.int32):
        limits = np.iinfo(kind)
        if limits.min <= min(values) and max(values) <= limits.max:
            return np.dtype(kind)
    return np.dtype(np.int64)


def label_bands(result: ImageResult, rows: int = BAND_ROWS) -> Iterator[tuple[int, LabelMap]]:
    """Yield the first row and the (h, W) instance ids or label values of one band of rows after the other.

    Where objects overlap, a pixel belongs to the one with the highest score; 0 is the background.
    """
    height = result.size_hw[0]
    boxes = np.asarray([found.instance.window for found in result.ranked], np.int64).reshape(-1, 4)
    for y0 in range(0, height, rows):
        y1 = min(y0 + rows, height)
        if result.class_map is None:
            in_band = np.flatnonzero((boxes[:, 0] < y1) & (boxes[:, 2] > y0))
            yield y0, _id_band(result, in_band.tolist(), y0, y1)
        else:
            yield y0, np.asarray(result.class_map[y0:y1])
            release_pages(result.class_map)


def _id_band(result: ImageResult, indices: Sequence[int], y0: int, y1: int) -> LabelMap:
    """Return the (h, W) instance ids of the rows from y0 to y1, of objects given by their place in `ranked`."""
    band = np.zeros((y1 - y0, result.size_hw[1]), np.uint32)
    for index in reversed(indices):  # the best one last, over the others
        instance = result.ranked[index].instance
        top, left, bottom, right = instance.window
        first = max(top, y0)
        last = min(bottom, y1)
        inside = instance.crop[first - top : last - top]
        band[first - y0 : last - y0, left:right][inside] = index + 1
    return band


def class_shares(result: ImageResult) -> list[dict[str, Any]]:
    """Return label value, name, pixels and m² of each class in a class map."""
    counts: Counter[int] = Counter()
    areas: defaultdict[int, float] = defaultdict(float)
    rows = BAND_ROWS if result.georeference is None else _SHARE_ROWS
    for y0, band in label_bands(result, rows):
        height, width = band.shape
        pixel_m2 = math.nan
        if result.pixel_areas is not None:
            middle = np.array([[width / 2, y0 + height / 2]])
            pixel_m2 = float(result.pixel_areas(middle)[0])
        values, pixels = np.unique(band, return_counts=True)
        for value, count in zip(values.tolist(), pixels.tolist(), strict=True):
            counts[value] += count
            areas[value] += count * pixel_m2
    names = {result.background: "background", result.nodata: "no measurement"}
    shares = []
    for value, count in sorted(counts.items()):
        area_m2 = float(f"{areas[value]:.9g}") if math.isfinite(areas[value]) else None
        name = names.get(value) or result.class_name(value)
        shares.append({"class": value, "class_name": name, "pixels": count, "area_m2": area_m2})
    return shares


def summarize(result: ImageResult, record: Sequence[Mapping[str, Any]]) -> str:
    """Return what was found in words: "3 objects (2 car, 1 person)", or the largest classes of a map.

    `record` are the objects or classes as json values.
    """
    if result.class_map is not None:
        total = sum(one["pixels"] for one in record)
        largest = sorted(record, key=lambda one: -one["pixels"])[:_NAMED]
        return "; ".join(f"{one['pixels'] / total:.1%} {one['class_name']}" for one in largest)
    names = [one["class_name"] for one in record if one["class_name"] is not None]
    listed = ", ".join(f"{count} {name}" for name, count in Counter(names).most_common(_NAMED))
    text = "1 object" if len(record) == 1 else f"{len(record)} objects"
    if listed:
        return f"{text} ({listed})"
    return text
