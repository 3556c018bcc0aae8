"""What was found in one image or for one prompt, and the file formats of SimMAT that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from simmat.drawing.display import PictureArray
from simmat.drawing.found import draw_classes, draw_objects
from simmat.drawing.overlay import MASK, class_colour, draw_overlay
from simmat.geo import Coords, installed_geo_backend
from simmat.io.files import release_pages
from simmat.io.images import write_image
from simmat.plugin_specs import ResultKind
from simmat.types import BoolArray, Channel, Georeference, Prompt

if TYPE_CHECKING:
    from simmat.data.instances import FoundObject
    from simmat.measurement import Measurements, Row
    from simmat.predictor.uncertainty import Uncertainty

LabelMap = npt.NDArray[np.integer[Any]]
"""(H, W) label values of any integer type."""

BAND_ROWS = 512
"""Rows that are held at once: a row of the tiles of a TIFF."""
MAX_PNG_SIDE = 8192
"""Longest side of a PNG in pixels; what is larger becomes a TIFF, of which a viewer reads only a part."""


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
        measurements: of the objects, in the order of `ranked`; None if they were not measured.
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
    measurements: Measurements | None = None

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

    def areas_m2(
        self, centres_xy: npt.NDArray[np.float64], pixels: Sequence[int]
    ) -> list[float | None]:
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
        return frozenset(
            value for value in (self.background, self.nodata) if value is not None
        )

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
        measurements: of the object; None if it was not measured.
        warning: why the mask may be wrong; "" if there is no reason to doubt it.
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
    measurements: Row | None = None
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
        if self.measurements is not None:
            values["measurements"] = self.measurements
        return values


Result = ImageResult | PromptResult
"""What a format of results writes to a file of its own."""


def label_type(result: ImageResult) -> np.dtype[Any]:
    """Return the smallest type of the instance ids or label values: uint8, then uint16, then larger ones."""
    if result.class_map is None:
        return np.dtype(
            np.uint16 if len(result.ranked) <= np.iinfo(np.uint16).max else np.uint32
        )
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


def label_bands(
    result: ImageResult, rows: int = BAND_ROWS
) -> Iterator[tuple[int, LabelMap]]:
    """Yield the first row and the (h, W) instance ids or label values of one band of rows after the other.

    Where objects overlap, a pixel belongs to the one with the highest score; 0 is the background.
    """
    height = result.size_hw[0]
    boxes = np.asarray(
        [found.instance.window for found in result.ranked], np.int64
    ).reshape(-1, 4)
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


def write_mask(result: PromptResult, folder: Path) -> str:
    """Write `NAME_mask.png`, 255 on the object; return the file's name."""
    name = f"{result.name}_mask.png"
    Image.fromarray(result.mask.astype(np.uint8) * 255).save(folder / name)
    return name


def write_uncertainty(result: PromptResult, folder: Path) -> str:
    """Write `NAME_uncertainty.tif`, mean and standard deviation as two float32 pages; return the file's name."""
    import tifffile

    assert result.uncertainty is not None  # a request for this format has it
    name = f"{result.name}_uncertainty.tif"
    with tifffile.TiffWriter(folder / name) as tiff:
        for plane in (result.uncertainty.mean, result.uncertainty.std):
            tiff.write(
                plane,
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                software=False,
            )
    return name


def draw_result(result: ImageResult) -> Image.Image:
    """Draw what was found over the picture, in the colours of its classes, which a legend names.

    An object without a class has a colour of its own.
    """
    names = result.class_names
    if result.class_map is not None:
        return draw_classes(
            result.picture(), result.class_map, result.ignored_values, names
        )
    return draw_objects(
        result.picture(),
        [found.instance for found in result.ranked],
        result.size_hw,
        names,
    )


def draw_prompt(result: PromptResult) -> Image.Image:
    """Draw a mask and its prompt over the picture, in the colour of the object's class."""
    colour = MASK if result.class_id is None else class_colour(result.class_id)
    return draw_overlay(result.picture(), result.mask, result.prompt, colour=colour)


def write_overlay(result: Result, folder: Path) -> str:
    """Write `NAME_overlay.png`, unless that of another result of the image is there; return the file's name."""
    name = f"{result.name}_overlay.png"
    if isinstance(result, PromptResult):
        draw_prompt(result).save(folder / name)
    elif not (folder / name).exists():
        # 10 % larger, in a quarter of the time
        draw_result(result).save(folder / name, compress_level=1)
    return name


def write_labels(result: ImageResult, folder: Path) -> str:
    """Write `NAME_objects.png` or `NAME_classes.png`, as .tif if a PNG cannot hold them; return the file's name.

    Instance ids run from 1 by falling score; of overlapping objects, the one with the higher score is in front.
    """
    dtype = label_type(result)
    if dtype in (np.uint8, np.uint16) and max(result.size_hw) <= MAX_PNG_SIDE:
        plane = np.concatenate([band.astype(dtype) for _, band in label_bands(result)])
        name = f"{result.name}_{result.kind}.png"
        write_image(folder / name, plane[None])
        return name
    import tifffile

    name = f"{result.name}_{result.kind}.tif"
    tifffile.imwrite(
        folder / name,
        _tiles(result, dtype),
        shape=result.size_hw,
        dtype=dtype,
        tile=(BAND_ROWS, BAND_ROWS),
        photometric="minisblack",
        compression="zlib",
        # with `software`: no date and version, so equal results give equal bytes
        metadata=None,
        software=False,
    )
    return name


def _tiles(result: ImageResult, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield the tiles of a TIFF row by row; those at the right and bottom are filled up with 0."""
    for _, band in label_bands(result):
        for x0 in range(0, band.shape[1], BAND_ROWS):
            part = band[:, x0 : x0 + BAND_ROWS]
            tile = np.zeros((BAND_ROWS, BAND_ROWS), dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile
