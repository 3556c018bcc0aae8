"""Found objects or a class map drawn over the display picture."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from simmat.report.display import PictureArray
from simmat.report.overlay import HALO, SMALLEST_SIDE, WHITE, Colour, font
from simmat.results.result import ImageResult

LARGEST_SIDE = 2048
"""Longest side of the drawn picture in pixels, without the legend."""
FILL_ALPHA = 0.45

# Okabe and Ito (2008), distinct under every common colour blindness, without black; then the same, paler and darker.
_CLASS_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_GOLDEN = 0.61803398875  # turns of the colour wheel from one object to the next, which never come near an earlier one

_SMALLEST_TEXT_PX = 14


def draw_result(result: ImageResult, *, words: bool = True) -> Image.Image:
    """Draw each object in a colour of its own, or each class in its own, over the picture.

    Args:
        result: what was found.
        words: write the class on objects that are large enough, where there are several, or a legend of classes below.
    """
    picture = _fitted(Image.fromarray(result.picture()))
    if result.classes is None:
        numbers = _object_map(result, picture.size)
        drawn = Image.fromarray(_painted(np.asarray(picture), numbers, object_colours(len(result.ranked))))
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
    drawn = Image.fromarray(_painted(np.asarray(picture), numbers, colours))
    if not words:
        return drawn
    return _with_legend(drawn, [(colours[every.index(value)], result.class_name(value) or "") for value in present])


def object_colours(count: int) -> list[Colour]:
    """Return a bright colour for each of `count` objects, neighbours in the order far apart in hue."""
    found = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb((0.55 + index * _GOLDEN) % 1, (0.9, 0.6)[index % 2], 1)
        found.append((round(red * 255), round(green * 255), round(blue * 255)))
    return found


def class_colours(count: int) -> list[Colour]:
    """Return a colour for each of `count` classes; the first seven are distinct under colour blindness."""
    found: list[Colour] = []
    for index in range(count):
        red, green, blue = _CLASS_COLOURS[index % len(_CLASS_COLOURS)]
        turn = index // len(_CLASS_COLOURS)
        toward, share = (255 if turn % 2 else 0), min((turn + 1) // 2 * 0.45, 0.8)
        mixed = [round(value + (toward - value) * share) for value in (red, green, blue)]
        found.append((mixed[0], mixed[1], mixed[2]))
    return found


def _fitted(picture: Image.Image) -> Image.Image:
    """Scale a picture down to `LARGEST_SIDE`, or up by a whole factor where it is small."""
    longest = max(picture.size)
    if longest > LARGEST_SIDE:
        size = [max(round(side * LARGEST_SIDE / longest), 1) for side in picture.size]
        return picture.resize((size[0], size[1]), Image.Resampling.BOX)
    factor = max(-(-SMALLEST_SIDE // longest), 1)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def _sources(size: int, shown: int) -> npt.NDArray[np.int64]:
    """Return the (shown,) pixel of the image along one side that the centre of each drawn pixel lies in."""
    return ((np.arange(shown) + 0.5) * size / shown).astype(np.int64)


def _object_map(result: ImageResult, size_wh: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the (h, w) instance ids of the drawn pixels; an object that lies between their centres gets one."""
    (height, width), (shown_width, shown_height) = result.size_hw, size_wh
    rows, columns = _sources(height, shown_height), _sources(width, shown_width)
    numbers = np.zeros((shown_height, shown_width), np.int64)
    for number in range(len(result.ranked), 0, -1):
        instance = result.ranked[number - 1].instance
        y0, x0, y1, x1 = instance.box
        top, bottom = np.searchsorted(rows, (y0, y1)).tolist()
        left, right = np.searchsorted(columns, (x0, x1)).tolist()
        part = instance.crop[np.ix_(rows[top:bottom] - y0, columns[left:right] - x0)]
        if part.any():
            numbers[top:bottom, left:right][part] = number
        else:
            numbers[(y0 + y1) * shown_height // (2 * height), (x0 + x1) * shown_width // (2 * width)] = number
    return numbers


def _sampled(result: ImageResult, size_wh: tuple[int, int]) -> npt.NDArray[np.integer[Any]]:
    """Return the (h, w) label values at the centres of the drawn pixels."""
    assert result.classes is not None
    (height, width), (shown_width, shown_height) = result.size_hw, size_wh
    columns = _sources(width, shown_width)
    return np.stack([result.classes[row][columns] for row in _sources(height, shown_height).tolist()])


def _painted(picture: PictureArray, numbers: npt.NDArray[np.int64], colours: Sequence[Colour]) -> PictureArray:
    """Return the picture with regions 1, 2, … filled in their colours, and light lines with dark ones outside.

    Args:
        picture: (h, w, 3).
        numbers: (h, w), 0 is no region.
        colours: of the regions from 1.
    """
    table = np.asarray([(0, 0, 0), *colours], np.float32)  # (N + 1, 3)
    inside, edge = numbers > 0, _differs(numbers)
    ring, halo = edge & inside, edge & ~inside
    painted = picture.copy()
    painted[inside] = np.rint(picture[inside] * (1 - FILL_ALPHA) + (table * FILL_ALPHA)[numbers[inside]])
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


def _write_classes(picture: Image.Image, result: ImageResult, numbers: npt.NDArray[np.int64]) -> None:
    """Write the class on each object whose middle is seen and whose box is wider than the name."""
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
