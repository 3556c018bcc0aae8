"""Draw found objects, or a class map, over a picture, with a legend of the classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from simmat.data.instances import Instance, pixels_under_centres
from simmat.drawing.display import PictureArray
from simmat.drawing.overlay import (
    HALO,
    WHITE,
    Colour,
    class_colour,
    font,
    paint_regions,
    region_colours,
    region_map,
    scaled,
)

MAX_SIDE = 2048
"""Longest side of the drawn picture in pixels, without the legend."""

_MIN_TEXT_PX = 14


def draw_objects(
    picture: PictureArray,
    instances: Sequence[Instance],
    size_hw: tuple[int, int],
    class_names: Mapping[int, str] | None = None,
) -> Image.Image:
    """Draw objects in the colours of their classes; one without a class has its own.

    Args:
        picture: (h, w, 3), which may be smaller than the image.
        instances: the first of two that overlap is in front.
        size_hw: (height, width) of the image.
        class_names: names for the legend; None draws none.
    """
    shown = _fitted(picture)
    numbers = region_map(instances, size_hw, shown.size)
    colours = region_colours(instances)
    present = sorted({one.class_id for one in instances if one.class_id is not None})
    return _painted(shown, numbers, colours, present, class_names)


def draw_classes(
    picture: PictureArray,
    labels: npt.NDArray[np.integer[Any]],
    ignored: Collection[int],
    class_names: Mapping[int, str] | None = None,
) -> Image.Image:
    """Draw a class map.

    Args:
        picture: (h, w, 3), which may be smaller than the image.
        labels: (H, W) label values, an array or a np.memmap.
        ignored: values that are no class: the background, and where nothing was measured.
        class_names: names for the legend; None draws none.
    """
    shown = _fitted(picture)
    (height, width), (shown_width, shown_height) = labels.shape, shown.size
    columns = pixels_under_centres(width, shown_width)
    # (h, w)
    values = np.stack(
        [
            labels[row][columns]
            for row in pixels_under_centres(height, shown_height).tolist()
        ]
    )
    present = [value for value in np.unique(values).tolist() if value not in ignored]
    numbers = np.zeros(values.shape, np.int64)
    for number, value in enumerate(present, start=1):
        numbers[values == value] = number
    return _painted(
        shown, numbers, [class_colour(value) for value in present], present, class_names
    )


def _painted(
    picture: Image.Image,
    numbers: npt.NDArray[np.int64],
    colours: Sequence[Colour],
    present: Sequence[int],
    class_names: Mapping[int, str] | None,
) -> Image.Image:
    drawn = Image.fromarray(paint_regions(np.asarray(picture), numbers, colours))
    if class_names is None:
        return drawn
    return with_legend(
        drawn,
        [
            (class_colour(value), class_names.get(value, str(value)))
            for value in present
        ],
    )


def _fitted(picture: PictureArray) -> Image.Image:
    """Scale a picture down to `MAX_SIDE`, or up by a whole factor if it is small."""
    sides_wh = picture.shape[1::-1]
    longest = max(picture.shape[:2])
    width, height = (max(round(side * MAX_SIDE / longest), 1) for side in sides_wh)
    return scaled(picture, (width, height) if longest > MAX_SIDE else None)


def with_legend(
    picture: Image.Image, entries: Sequence[tuple[Colour, str]]
) -> Image.Image:
    """Return a picture with a strip below that names the colours; the same picture without entries."""
    if not entries:
        return picture
    text_px = max(_MIN_TEXT_PX, max(picture.size) // 90)
    gap = text_px // 2
    letters = font(text_px)
    places: list[tuple[int, int]] = []
    x = gap
    y = gap
    for _, text in entries:
        long = text_px + gap + round(letters.getlength(text))
        if x > gap and x + long > picture.width - gap:
            x = gap
            y = y + text_px + gap
        places.append((x, y))
        x += long + 2 * gap
    sheet = Image.new(
        "RGB", (picture.width, picture.height + y + text_px + 2 * gap), HALO
    )
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for (left, top), (colour, text) in zip(places, entries, strict=True):
        middle = picture.height + top + text_px // 2
        draw.rectangle(
            (left, middle - text_px // 2, left + text_px, middle + text_px // 2),
            fill=colour,
        )
        draw.text(
            (left + text_px + gap, middle), text, fill=WHITE, font=letters, anchor="lm"
        )
    return sheet
