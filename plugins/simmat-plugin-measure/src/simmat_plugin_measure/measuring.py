"""Measure objects: shape, and the values of each channel in its own unit, without pixels that are not valid.

The functions are those of `simmat.measurement.Measurer`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from simmat.data.instances import Instance
from simmat.errors import DataError
from simmat.geo import installed_geo_backend
from simmat.io.limits import LIMIT_VARIABLE, decoded_limit
from simmat.measurement import (
    SHAPE,
    Measurements,
    PixelAreas,
    Row,
    channel_column,
    rectangular_pixels,
)
from simmat.types import (
    BoolArray,
    Channel,
    FloatArray,
    ImageReader,
    SensorImage,
    Window,
)
from simmat_plugin_measure.pixel_size import stated_pixel_size

Values = npt.NDArray[np.float64]
STATISTICS = (
    "intensity_mean",
    "intensity_std",
    "intensity_min",
    "intensity_max",
    "intensity_median",
    "intensity_percentile_5",
    "intensity_percentile_95",
    "intensity_contrast",
)
"""Columns of each channel; the contrast is the mean minus that of the ring."""
INTERVAL = ("intensity_mean_low", "intensity_mean_high")
"""Columns of each channel by `mean_intervals`."""
RING_GAP_PX = 2
"""Pixels around an object that belong neither to it nor to its ring, because a lens blurs its edge."""
RING_PX = 5
"""Width of the ring around an object in pixels."""
reach_px = RING_GAP_PX + RING_PX
"""Pixels around an object in which another object changes its contrast."""

_LEVELS = tuple(number / 10 for number in range(1, 10))
_INTERVAL_FACTOR = 1.1
"""Half the width of an interval over the range of the means, see `mean_intervals`.

Chosen on simulated thermal scenes, so that 90 % of the true means lie in the interval (benchmarks/measure.py).
"""
_MAX_HULL_PX = 2**22
"""Largest box of an object whose convex hull scikit-image counts."""
_MAX_SHAPE_PX = 2**26
"""Largest box of an object with axes, perimeter and solidity, which take 8 bytes a pixel several times."""
_SIDE = 512
"""Side in pixels of the parts in which an image is read, and of the cells by which neighbours are found."""


def pixel_areas(
    image: ImageReader, pixel_size_um: float | None = None
) -> tuple[PixelAreas | None, str]:
    """Return the area of a pixel, None if it is not known; and what contradicts itself, "" if nothing does.

    A place on the earth gives m². A pixel size that OME or ImageJ wrote to the file, or that the user gives, gives µm².

    Args:
        image: the image.
        pixel_size_um: what the user gives, for square pixels.
    """
    place = image.georeference
    backend = installed_geo_backend()
    on_earth = None
    if place is not None and backend is not None:
        on_earth = backend.pixel_areas(place, image.size_hw)
    sizes = []
    stated = image.read(Window(0, 0, 1, 1)).pixel_size_um
    if stated is None:
        stated = stated_pixel_size(Path(image.origin))
    if stated is not None:
        sizes.append(stated)
    if pixel_size_um is not None:
        sizes.append((pixel_size_um, pixel_size_um))
    if on_earth is not None and sizes:
        return None, (
            f"{image.origin} has a place on the earth and a pixel size of {_named(sizes[-1])}, so areas are measured "
            "in pixels only; leave --pixel-size-um out, or remove the wrong one from the file"
        )
    if on_earth is not None:
        return PixelAreas("area_m2", on_earth), ""
    if not sizes:
        return None, ""
    if not np.allclose(sizes[0], sizes[-1], rtol=0.01, atol=0):
        return None, (
            f"{image.origin} states a pixel size of {_named(sizes[0])}, but {_named(sizes[-1])} is given, so areas are "
            "measured in pixels only; leave --pixel-size-um out to use that of the file"
        )
    return rectangular_pixels(*sizes[-1]), ""


def _named(size_um: tuple[float, float]) -> str:
    """Name the height and width of a pixel."""
    height, width = size_um
    if height == width:
        return f"{height:g} µm"
    return f"{width:g} x {height:g} µm"


def columns_of(channels: Sequence[Channel]) -> tuple[str, ...]:
    """Return all columns of an image with these channels."""
    columns = list(SHAPE)
    for channel in channels:
        columns += [channel_column(statistic, channel) for statistic in STATISTICS]
    return tuple(columns)


def measure(
    image: ImageReader,
    objects: Sequence[Instance],
    areas: PixelAreas | None = None,
    *,
    ring_px: int = RING_PX,
    only: Sequence[int] | None = None,
) -> Measurements:
    """Measure objects in an image, which is read in parts.

    A ring is what lies more than `RING_GAP_PX` pixels around an object and at most `ring_px` further. Other objects
    are left out of it, but for those that contain more than half of the object, such as a panel around a hot spot.

    Args:
        image: in physical units.
        objects: they may overlap.
        areas: what `pixel_areas` returned.
        ring_px: width of the ring in pixels.
        only: indices of the objects to measure, in the order of the rows; the others are left out of the rings. None
            for all.

    Raises:
        DataError: the image cannot be read, or an object has more pixels than may be in memory.
    """
    channels = image.read(Window(0, 0, 1, 1)).channels
    columns = columns_of(channels)
    if only is None:
        only = range(len(objects))
    row_of = {index: row for row, index in enumerate(only)}
    values = np.full((len(only), len(columns)), np.nan)
    neighbours = _Neighbours(objects, RING_GAP_PX + ring_px)
    pixels = _Pixels(image)
    for index in pixels.in_reading_order(objects):
        if index not in row_of:
            continue
        instance = objects[index]
        _check_pixels(instance, len(channels), image.origin)
        shape = _shape(instance)
        if areas is not None:
            middle = np.array([[shape["centroid-1"], shape["centroid-0"]]]) + 0.5
            shape[areas.column] = shape["area"] * float(areas.of(middle)[0])
        numbers = [shape[name] for name in SHAPE]
        inside, ring = _values(pixels, instance, neighbours.of(index), ring_px)
        for of_object, of_ring in zip(inside, ring, strict=True):
            numbers += _statistics(of_object, of_ring)
        values[row_of[index]] = numbers
    return Measurements(columns, values)


def mean_intervals(image: SensorImage, probability: FloatArray, measured: Row) -> Row:
    """Return `INTERVAL` of each channel: where about 90 % of the true means lie if the mask is not sure.

    Masks of the pixels with a probability above 0.1, 0.2, … 0.9 have different means. The interval is the measured mean
    plus and minus `_INTERVAL_FACTOR` times their range.

    Args:
        image: in physical units.
        probability: (H, W) of the object, the mean over several views; NaN where it is not known.
        measured: what `measure` found of its mask.
    """
    found: Row = {}
    for channel, data, valid in zip(
        image.channels, image.data, image.valid, strict=True
    ):
        means = []
        for level in _LEVELS:
            values = data[(probability > level) & valid]
            if values.size:
                means.append(float(values.mean(dtype=np.float64)))
        low, high = (channel_column(name, channel) for name in INTERVAL)
        found[low] = None
        found[high] = None
        mean = measured[channel_column("intensity_mean", channel)]
        if mean is not None and means:
            half = _INTERVAL_FACTOR * (max(means) - min(means))
            found[low] = mean - half
            found[high] = mean + half
    return found


def _check_pixels(instance: Instance, channels: int, origin: str) -> None:
    """Raise DataError for an object whose values would take more memory than an image may."""
    limit = decoded_limit()
    if 4 * channels * instance.area > limit:
        raise DataError(
            f"{origin}: an object of {instance.area} pixels in {channels} channels is too large to be measured within "
            f"the limit of {limit / 2**30:.3g} GiB; raise it by simmat --max-image-gib N … (or {LIMIT_VARIABLE}), "
            "choose fewer channels, or cut the image into tiles"
        )


def _shape(instance: Instance) -> dict[str, float]:
    """Return the columns of the shape in pixels of the image; NaN for areas in other units."""
    shape = dict.fromkeys(SHAPE, math.nan)
    shape |= _place(instance)
    if instance.crop.size <= _MAX_SHAPE_PX:
        shape |= _form(instance.crop)
    return shape


def _place(instance: Instance) -> dict[str, float]:
    """Return area, box and centroid."""
    y0, x0, y1, x1 = instance.window
    pixels_of_row = instance.crop.sum(axis=1)
    pixels_of_column = instance.crop.sum(axis=0)
    area = float(pixels_of_row.sum())
    return {
        "area": area,
        "bbox-0": y0,
        "bbox-1": x0,
        "bbox-2": y1,
        "bbox-3": x1,
        "centroid-0": float(np.arange(y0, y1) @ pixels_of_row / area),
        "centroid-1": float(np.arange(x0, x1) @ pixels_of_column / area),
    }


def _form(crop: BoolArray) -> dict[str, float]:
    """Return axes, orientation, perimeter and solidity of an (h, w) object."""
    from skimage.measure import regionprops_table  # slow to import

    names = ["axis_major_length", "axis_minor_length", "orientation", "perimeter"]
    is_small = crop.size <= _MAX_HULL_PX
    if is_small:
        names.append("solidity")
    table = regionprops_table(  # type: ignore[no-untyped-call]
        crop.astype(np.uint8), properties=names
    )
    form = {name: float(table[name][0]) for name in names}
    if not is_small:
        form["solidity"] = np.count_nonzero(crop) / _hull_area(crop)
    return form


def _hull_area(crop: BoolArray) -> float:
    """Return the area of the polygon around the pixels of an object; scikit-image would take minutes to count them."""
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(crop.any(axis=1))
    first = crop[rows].argmax(axis=1)
    end = crop.shape[1] - crop[rows, ::-1].argmax(axis=1)
    corners = [np.stack([y, x], axis=1) for y in (rows, rows + 1) for x in (first, end)]
    return float(ConvexHull(np.concatenate(corners)).volume)


def _statistics(inside: Values, ring: Values) -> list[float]:
    """Return `STATISTICS` of the (N,) values of an object and those of its ring; NaN for those of no values."""
    if not inside.size:
        return [math.nan] * len(STATISTICS)
    mean = float(inside.mean())
    low, middle, high = np.percentile(inside, (5, 50, 95)).tolist()
    contrast = math.nan
    if ring.size:
        contrast = mean - float(ring.mean())
    return [
        mean,
        float(inside.std()),
        float(inside.min()),
        float(inside.max()),
        middle,
        low,
        high,
        contrast,
    ]


def _values(
    pixels: _Pixels, instance: Instance, others: Sequence[Instance], ring_px: int
) -> tuple[list[Values], list[Values]]:
    """Return the valid values of an object and of its ring, for each channel."""
    from scipy import ndimage

    reach = RING_GAP_PX + ring_px
    inside: list[list[Values]] = []
    ring: list[list[Values]] = []
    for part in _parts(_grown(instance.window, reach, pixels.size_hw)):
        image = pixels.read(part)
        around = _grown(part, reach, pixels.size_hw)
        mask = instance.within(around)
        own = part.relative_to(around).slices
        is_ring = np.zeros(part.size_hw, np.bool_)
        if mask.any():
            distance = ndimage.distance_transform_edt(~mask)[own]
            is_ring = (distance > RING_GAP_PX) & (distance <= reach)
        for other in others:
            is_ring &= ~other.within(part)
        if not inside:
            inside = [[] for _ in image.channels]
            ring = [[] for _ in image.channels]
        for channel, (data, valid) in enumerate(
            zip(image.data, image.valid, strict=True)
        ):
            inside[channel].append(data[mask[own] & valid].astype(np.float64))
            ring[channel].append(data[is_ring & valid].astype(np.float64))
    return [np.concatenate(one) for one in inside], [
        np.concatenate(one) for one in ring
    ]


def _grown(window: Window, pixels: int, size_hw: tuple[int, int]) -> Window:
    """Return a window that is larger on each side, as far as the image goes."""
    height, width = size_hw
    return Window(
        max(window.y0 - pixels, 0),
        max(window.x0 - pixels, 0),
        min(window.y1 + pixels, height),
        min(window.x1 + pixels, width),
    )


def _parts(window: Window) -> Iterator[Window]:
    """Yield the parts of a window, of at most `_SIDE` pixels a side."""
    for y0 in range(window.y0, window.y1, _SIDE):
        for x0 in range(window.x0, window.x1, _SIDE):
            yield Window(y0, x0, min(y0 + _SIDE, window.y1), min(x0 + _SIDE, window.x1))


class _Pixels:
    """An image of which the part read last is kept, for the next object in it."""

    def __init__(self, image: ImageReader) -> None:
        self.size_hw = image.size_hw
        self._image = image
        self._kept: tuple[Window, SensorImage] | None = None

    def read(self, window: Window) -> SensorImage:
        """Read a window, with the rest of the cells that it touches."""
        if isinstance(self._image, SensorImage):
            return self._image.read(window)
        if self._kept is None or self._kept[0].intersection(window) != window:
            height, width = self.size_hw
            cells = _cells(window)
            large = Window(
                cells.y0 * _SIDE,
                cells.x0 * _SIDE,
                min(cells.y1 * _SIDE, height),
                min(cells.x1 * _SIDE, width),
            )
            self._kept = large, self._image.read(large)
        place, part = self._kept
        return part.read(window.relative_to(place))

    def in_reading_order(self, objects: Sequence[Instance]) -> list[int]:
        """Return the indices of objects by the cell in which they begin; of one cell, the largest first."""

        def key(index: int) -> tuple[int, int, int]:
            cells = _cells(objects[index].window)
            return cells.y0, cells.x0, -math.prod(cells.size_hw)

        return sorted(range(len(objects)), key=key)


def _cells(window: Window) -> Window:
    """Return the rows and columns of cells that a window touches."""
    return Window(
        window.y0 // _SIDE,
        window.x0 // _SIDE,
        -(-window.y1 // _SIDE),
        -(-window.x1 // _SIDE),
    )


class _Neighbours:
    """Finds the objects that may lie in the ring of another one."""

    def __init__(self, objects: Sequence[Instance], reach: int) -> None:
        self._objects = objects
        self._reach = reach
        self._in_cell: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for index, instance in enumerate(objects):
            for cell in _each_cell(instance.window):
                self._in_cell[cell].append(index)

    def of(self, index: int) -> list[Instance]:
        """Return the other objects within reach of one, without those that contain more than half of it."""
        own = self._objects[index]
        height, width = own.window.y1, own.window.x1
        around = _grown(
            own.window, self._reach, (height + self._reach, width + self._reach)
        )
        near: dict[int, None] = {}
        for cell in _each_cell(around):
            near.update(dict.fromkeys(self._in_cell.get(cell, ())))
        found = []
        for number in near:
            other = self._objects[number]
            if number == index or around.intersection(other.window) is None:
                continue
            common = own.window.intersection(other.window)
            if common is not None:
                shared = np.count_nonzero(own.within(common) & other.within(common))
                if 2 * shared > own.area:
                    continue
            found.append(other)
        return found


def _each_cell(window: Window) -> Iterator[tuple[int, int]]:
    """Yield row and column of each cell that a window touches."""
    cells = _cells(window)
    for row in range(cells.y0, cells.y1):
        for column in range(cells.x0, cells.x1):
            yield row, column
