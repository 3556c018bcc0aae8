"""Draw many regions over a picture, each in a colour of its own or of its class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from simmat.report.colour_maps import PictureArray
from simmat.report.overlay import HALO, WHITE, Colour

if TYPE_CHECKING:
    from simmat.data.instances import Instance

FILL_ALPHA = 0.45

BACKGROUND: Colour = (150, 150, 150)
"""Colour of label value 0, and of what has no class."""

# Okabe and Ito (2008), distinct under every common colour blindness, without black; then the same, paler and darker.
_CLASS_COLOURS: tuple[Colour, ...] = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
_GOLDEN = 0.61803398875  # turns of the colour wheel from one object to the next, which never come near an earlier one


def object_colour(index: int) -> Colour:
    """Return a bright colour for an object; those of neighbouring indices are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb((0.55 + index * _GOLDEN) % 1, (0.9, 0.6)[index % 2], 1)
    return round(red * 255), round(green * 255), round(blue * 255)


def class_colour(value: int) -> Colour:
    """Return the colour of a class in every picture and page, by its label value.

    Those of 1 to 7 are distinct under colour blindness, those of 1 to 28 differ; 0 is grey.
    """
    if value == 0:
        return BACKGROUND
    turn, place = divmod(value - 1, len(_CLASS_COLOURS))
    if not 0 <= turn < 4:
        return object_colour(value)
    toward, share = (255 if turn % 2 else 0), min((turn + 1) // 2 * 0.45, 0.8)
    red, green, blue = (round(one + (toward - one) * share) for one in _CLASS_COLOURS[place])
    return red, green, blue


def region_colours(instances: Sequence[Instance]) -> list[Colour]:
    """Return the colour of each object: that of its class, or where it has none, one of its own."""
    return [
        object_colour(index) if one.class_id is None else class_colour(one.class_id)
        for index, one in enumerate(instances)
    ]


def source_pixels(size: int, shown: int) -> npt.NDArray[np.int64]:
    """Return the (shown,) pixel of the image along one side that the centre of each drawn pixel lies in."""
    return ((np.arange(shown) + 0.5) * size / shown).astype(np.int64)


def region_map(
    instances: Sequence[Instance], size_hw: tuple[int, int], size_wh: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Return the (h, w) number of the region at each drawn pixel, from 1; the first of two that overlap is in front.

    A region that lies between the centres of the drawn pixels gets one.

    Args:
        instances: objects of the image.
        size_hw: (height, width) of the image.
        size_wh: (width, height) of the drawn picture.
    """
    (height, width), (shown_width, shown_height) = size_hw, size_wh
    rows, columns = source_pixels(height, shown_height), source_pixels(width, shown_width)
    numbers = np.zeros((shown_height, shown_width), np.int64)
    for number in range(len(instances), 0, -1):
        instance = instances[number - 1]
        y0, x0, y1, x1 = instance.window
        top, bottom = np.searchsorted(rows, (y0, y1)).tolist()
        left, right = np.searchsorted(columns, (x0, x1)).tolist()
        part = instance.crop[np.ix_(rows[top:bottom] - y0, columns[left:right] - x0)]
        if part.any():
            numbers[top:bottom, left:right][part] = number
        else:
            numbers[(y0 + y1) * shown_height // (2 * height), (x0 + x1) * shown_width // (2 * width)] = number
    return numbers


def paint_regions(
    picture: PictureArray,
    numbers: npt.NDArray[np.int64],
    colours: Sequence[Colour],
    *,
    fill: float = FILL_ALPHA,
) -> PictureArray:
    """Return the picture with regions 1, 2, … filled in their colours, and light lines with dark ones outside.

    Args:
        picture: (h, w, 3).
        numbers: (h, w), 0 is no region.
        colours: colour of each region, from region 1.
        fill: how much of a colour covers the picture, from 0 to 1.
    """
    table = np.asarray([(0, 0, 0), *colours], np.float32)  # (N + 1, 3)
    inside, edge = numbers > 0, _differs(numbers)
    ring, halo = edge & inside, edge & ~inside
    painted = picture.copy()
    painted[inside] = np.rint(picture[inside] * (1 - fill) + (table * fill)[numbers[inside]])
    painted[ring] = np.rint(table * 0.6 + np.asarray(WHITE) * 0.4)[numbers[ring]]
    painted[halo] = np.rint(picture[halo] * 0.35 + np.asarray(HALO) * 0.65)
    return painted


def _differs(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return (h, w), True where one of the four neighbours is another region."""
    edge = np.zeros(numbers.shape, np.bool_)
    for one, other in ((edge[1:], edge[:-1]), (edge[:, 1:], edge[:, :-1])):
        axis = 0 if one.shape[1] == numbers.shape[1] else 1
        changed = np.diff(numbers, axis=axis) != 0
        one |= changed
        other |= changed
    return edge
