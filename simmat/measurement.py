"""What was measured of objects, and the interface to what measures them: a module that a plugin names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from simmat.errors import ConfigError
from simmat.plugins.loader import installed
from simmat.types import Channel, FloatArray, ImageReader, SensorImage

if TYPE_CHECKING:
    from simmat.data.instances import Instance
    from simmat.geo import Coords

Values = npt.NDArray[np.float64]
Row = dict[str, int | float | None]
"""Column -> number; None where there is nothing to measure."""

SHAPE = (
    "area",
    "area_m2",
    "area_um2",
    "bbox-0",
    "bbox-1",
    "bbox-2",
    "bbox-3",
    "centroid-0",
    "centroid-1",
    "axis_major_length",
    "axis_minor_length",
    "orientation",
    "perimeter",
    "solidity",
)
"""Columns of the shape, by the names of `skimage.measure.regionprops_table`; 0 are rows and 1 columns, in pixels."""
WHOLE_NUMBERS = frozenset(("area", "bbox-0", "bbox-1", "bbox-2", "bbox-3"))
"""Columns that hold whole numbers."""


@dataclass(frozen=True)
class Measurements:
    """The numbers of N objects.

    Attributes:
        columns: K names.
        values: (N, K), a row for each object; NaN where there is nothing to measure.
    """

    columns: tuple[str, ...]
    values: Values

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.values)

    def row(self, index: int) -> Row:
        """Return the numbers of one object."""
        found: Row = {}
        numbers = self.values[index].tolist()
        for column, number in zip(self.columns, numbers, strict=True):
            if not math.isfinite(number):
                found[column] = None
            elif column in WHOLE_NUMBERS:
                found[column] = int(number)
            else:
                found[column] = number
        return found

    def rows(self) -> Iterator[Row]:
        """Yield the numbers of one object after the other."""
        for index in range(len(self)):
            yield self.row(index)


@dataclass(frozen=True)
class PixelAreas:
    """The area of a pixel in a unit of length.

    Attributes:
        column: "area_m2" or "area_um2".
        of: from (N, 2) xy in pixels, the corner of the first one at 0, 0, to their (N,) areas.
    """

    column: str
    of: Callable[[Coords], Coords]


def rectangular_pixels(height_um: float, width_um: float) -> PixelAreas:
    """Return the area of pixels that all have this height and width."""
    area = height_um * width_um
    return PixelAreas("area_um2", lambda xy: np.full(len(xy), area))


def channel_column(statistic: str, channel: Channel) -> str:
    """Return the column of a statistic of a channel: "intensity_mean-thermal [K]"."""
    return f"{statistic}-{channel.name} [{channel.unit}]"


class Measurer(Protocol):
    """The functions of the module that a measurer names.

    Attributes:
        reach_px: pixels around an object in which another object changes its numbers.
    """

    reach_px: int

    def columns_of(self, channels: Sequence[Channel]) -> tuple[str, ...]:
        """Return all columns of an image with these channels; `SHAPE` first."""

    def pixel_areas(
        self, image: ImageReader, pixel_size_um: float | None = None
    ) -> tuple[PixelAreas | None, str]:
        """Return the area of a pixel, None if it is not known; and what contradicts itself, "" if nothing does."""

    def measure(
        self,
        image: ImageReader,
        objects: Sequence[Instance],
        areas: PixelAreas | None = None,
        *,
        only: Sequence[int] | None = None,
    ) -> Measurements:
        """Measure objects in an image in physical units; `only` has the indices of those to measure, None for all."""

    def mean_intervals(
        self, image: SensorImage, probability: FloatArray, measured: Row
    ) -> Row:
        """Return where the true means lie if the mask is not sure, as further columns of each channel.

        `probability` is (H, W), NaN where it is not known; `measured` is what `measure` found of the mask.
        """


def measurer() -> Measurer:
    """Return the functions of the first measurer by name; raise ConfigError if no plugin brings one."""
    registry = installed()
    found = registry.all("measurer")
    if not found:
        hint = registry.hint("measurer", "measure", ())
        raise ConfigError(f"no loaded plugin measures objects. {hint}")
    return cast(Measurer, import_module(found[0].function))
