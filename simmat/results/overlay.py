"""Found objects or a class map drawn over the display picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from simmat.report.overlay import HALO, SMALLEST_SIDE, WHITE, Colour, font
from simmat.report.regions import class_colours, object_colours, paint_regions, region_map, source_pixels
from simmat.results.result import ImageResult

LARGEST_SIDE = 2048
"""Longest side of the drawn picture in pixels, without the legend."""


_SMALLEST_TEXT_PX = 14


def draw_result(result: ImageResult, *, words: bool = True) -> Image.Image:
    """Draw each object in a colour of its own, or each class in its own, over the picture.

    `words` writes the classes on objects that are large enough, if there are several, or a legend below.
    """
    picture = _fitted(Image.fromarray(result.picture()))
    if result.classes is None:
        instances = [found.instance for found in result.ranked]
        numbers = region_map(instances, result.size_hw, picture.size)
        drawn = Image.fromarray(paint_regions(np.asarray(picture), numbers, object_colours(len(instances))))
        if words and len(result.class_names) > 1:
            _write_classes(drawn, result, numbers)
        return drawn
    values = _sampled(result, picture.size)
    unseen = result.unseen
    present = [value for value in np.unique(values).tolist() if value not in unseen]
    every = sorted({*result.class_names, *present} - unseen)  # so that a class has one colour in all images
    colours = class_colours(len(every))
    numbers = np.zeros(values.shape, np.int64)
    for number, value in enumerate(every, start=1):
        numbers[values == value] = number
    drawn = Image.fromarray(paint_regions(np.asarray(picture), numbers, colours))
    if not words:
        return drawn
    return _with_legend(drawn, [(colours[every.index(value)], result.class_name(value) or "") for value in present])


def _fitted(picture: Image.Image) -> Image.Image:
    """Scale a picture down to `LARGEST_SIDE`, or up by a whole factor where it is small."""
    longest = max(picture.size)
    if longest > LARGEST_SIDE:
        size = [max(round(side * LARGEST_SIDE / longest), 1) for side in picture.size]
        return picture.resize((size[0], size[1]), Image.Resampling.BOX)
    factor = max(-(-SMALLEST_SIDE // longest), 1)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def _sampled(result: ImageResult, size_wh: tuple[int, int]) -> npt.NDArray[np.integer[Any]]:
    """Return the (h, w) label values at the centres of the drawn pixels."""
    assert result.classes is not None
    (height, width), (shown_width, shown_height) = result.size_hw, size_wh
    columns = source_pixels(width, shown_width)
    return np.stack([result.classes[row][columns] for row in source_pixels(height, shown_height).tolist()])


def _write_classes(picture: Image.Image, result: ImageResult, numbers: npt.NDArray[np.int64]) -> None:
    """Write the class on each object if its middle is visible and its box is wider than the name."""
    (height, width), draw = result.size_hw, ImageDraw.Draw(picture)
    text_px = _text_px(picture)
    letters = font(text_px)
    scale_x, scale_y = picture.width / width, picture.height / height
    for number, found in enumerate(result.ranked, start=1):
        y0, x0, y1, x1 = found.instance.box
        name = result.class_name(found.instance.class_id)
        if name is None or (y1 - y0) * scale_y < 1.5 * text_px:
            continue
        x, y = (x0 + x1) * scale_x / 2, (y0 + y1) * scale_y / 2
        if numbers[int(y), int(x)] == number and letters.getlength(name) < (x1 - x0) * scale_x:
            draw.text((x, y), name, fill=WHITE, font=letters, anchor="mm", stroke_width=2, stroke_fill=HALO)


def _text_px(picture: Image.Image) -> int:
    return max(_SMALLEST_TEXT_PX, max(picture.size) // 90)


def _with_legend(picture: Image.Image, entries: Sequence[tuple[Colour, str]]) -> Image.Image:
    """Return a picture with a strip below that names the colours."""
    if not entries:
        return picture
    text_px = _text_px(picture)
    gap, letters = text_px // 2, font(text_px)
    places: list[tuple[int, int]] = []
    x, y = gap, gap
    for _, text in entries:
        long = text_px + gap + round(letters.getlength(text))
        if x > gap and x + long > picture.width - gap:
            x, y = gap, y + text_px + gap
        places.append((x, y))
        x += long + 2 * gap
    sheet = Image.new("RGB", (picture.width, picture.height + y + text_px + 2 * gap), HALO)
    sheet.paste(picture, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for (left, top), (colour, text) in zip(places, entries, strict=True):
        middle = picture.height + top + text_px // 2
        draw.rectangle((left, middle - text_px // 2, left + text_px, middle + text_px // 2), fill=colour)
        draw.text((left + text_px + gap, middle), text, fill=WHITE, font=letters, anchor="lm")
    return sheet
