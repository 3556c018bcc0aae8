"""Draw a mask and a prompt, or many regions, over a picture, at its final size."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw, ImageFont

from simmat.data.instances import Instance, pixels_under_centres
from simmat.drawing.display import PictureArray
from simmat.errors import DataError
from simmat.types import BoolArray, Prompt

Colour = tuple[int, int, int]

MASK: Colour = (0, 200, 255)
POSITIVE: Colour = (0, 158, 60)
NEGATIVE: Colour = (214, 39, 40)
BOX: Colour = (255, 214, 10)
WHITE: Colour = (255, 255, 255)
HALO: Colour = (12, 14, 18)

FILL_ALPHA = 0.38
MIN_SIDE = 512
"""A picture whose longer side is shorter is enlarged by a whole factor."""


def draw_overlay(
    picture: PictureArray,
    mask: BoolArray | None = None,
    prompt: Prompt | None = None,
    *,
    colour: Colour = MASK,
    size_wh: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw a mask as translucent fill and contour, and a prompt's points and box, over a picture.

    Args:
        picture: (H, W, 3) uint8, see `display_rgb`.
        mask: (H, W) bool, or None.
        prompt: in pixels of the picture; positive points are green discs with a plus, negative ones red with a minus.
        colour: of the mask.
        size_wh: (width, height) of the result; None keeps the picture's size, or enlarges a small picture by a whole
            factor.

    Raises:
        DataError: mask and picture differ in size.
    """
    canvas = Canvas(picture, size_wh)
    if mask is not None:
        shown = canvas.scaled(mask)
        canvas.tint(shown, colour, FILL_ALPHA)
        canvas.outline(shown, colour)
    if prompt is not None:
        canvas.mark(prompt)
    return canvas.image


class Canvas:
    """A picture at its final size, to draw on.

    Attributes:
        image: the picture with what is drawn.
    """

    def __init__(
        self, picture: PictureArray, size_wh: tuple[int, int] | None = None
    ) -> None:
        """Scale a picture (H, W, 3); see `draw_overlay` for `size_wh`."""
        self._height, self._width = picture.shape[:2]
        self.image = scaled(picture, size_wh)

    def scaled(self, mask: BoolArray) -> BoolArray:
        """Return an (H, W) mask of the picture at the size of the canvas; DataError for one of another size."""
        height, width = mask.shape
        if mask.shape != (self._height, self._width):
            raise DataError(
                f"cannot draw a mask of {width}x{height} over a picture of {self._width}x{self._height}; give the mask "
                "at the original size"
            )
        if self.image.size == (width, height):
            return np.asarray(mask, dtype=np.bool_)
        # (height, width), the covered share of each pixel
        share = np.asarray(
            Image.fromarray(mask.astype(np.float32)).resize(
                self.image.size, Image.Resampling.BOX
            )
        )
        return np.asarray(
            share >= 0.5 if share.max() >= 0.5 else share > 0, dtype=np.bool_
        )

    def tint(self, where: BoolArray, colour: Colour, alpha: float) -> None:
        """Cover the pixels of a `scaled` mask with a colour, of which `alpha` is the share."""
        pixels = np.array(self.image)
        under = pixels[where].astype(np.float32)
        pixels[where] = np.rint(
            under * (1 - alpha) + np.asarray(colour, dtype=np.float32) * alpha
        ).astype(np.uint8)
        self.image = Image.fromarray(pixels)

    def outline(self, mask: BoolArray, colour: Colour) -> None:
        """Draw the inner edge of a `scaled` mask in a light tint, with a dark line outside it for any background."""
        edge = _edges(mask.astype(np.uint8), _line_width(self.image.size))
        pixels = np.array(self.image)
        pixels[edge & ~mask] = (
            pixels[edge & ~mask] * 0.35 + np.asarray(HALO) * 0.65
        ).astype(np.uint8)
        pixels[edge & mask] = np.asarray(colour) * 0.5 + np.asarray(WHITE) * 0.5
        self.image = Image.fromarray(pixels)

    def mark(self, prompt: Prompt) -> None:
        """Draw the box and points of a prompt, which are in pixels of the picture."""
        canvas = self.image
        scale = np.asarray(canvas.size) / (self._width, self._height)
        if prompt.box is not None:
            draw = ImageDraw.Draw(canvas)
            width = _line_width(canvas.size)
            x0, y0, x1, y1 = (
                float(v) for v in (prompt.box.reshape(2, 2) * scale).ravel()
            )
            x0 = max(x0, 0)
            y0 = max(y0, 0)
            # x1 and y1 are the far edges of the last pixels; a side on the image's border stays visible
            x1 = max(min(x1, canvas.width) - 1, x0)
            y1 = max(min(y1, canvas.height) - 1, y0)
            draw.rectangle(
                (x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=HALO, width=width + 2
            )
            draw.rectangle((x0, y0, x1, y1), outline=BOX, width=width)
        radius = max(5.0, max(canvas.size) / 90)
        for centre, label in zip(
            (prompt.point_coords + 0.5) * scale - 0.5, prompt.point_labels, strict=True
        ):
            _disc(
                canvas,
                (float(centre[0]), float(centre[1])),
                radius,
                positive=bool(label),
            )


@lru_cache(maxsize=8)
def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans as shipped with matplotlib, or Pillow's font of Latin letters if that is not installed."""
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size_px))
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(
        str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name), size_px
    )


def scaled(
    picture: PictureArray, size_wh: tuple[int, int] | None = None
) -> Image.Image:
    """Return a picture at a (width, height), or by default enlarged by a whole factor if it is small."""
    image = Image.fromarray(picture)
    if size_wh is None:
        factor = max(-(-MIN_SIDE // max(image.size)), 1)
        size_wh = (image.width * factor, image.height * factor)
    if size_wh == image.size:
        return image
    return image.resize(
        size_wh,
        Image.Resampling.BICUBIC if size_wh[0] >= image.width else Image.Resampling.BOX,
    )


def _line_width(size_wh: tuple[int, int]) -> int:
    """Return the width of a line in pixels: 1 on a thumbnail, 2 from 400 to 1500, then in proportion."""
    longest = max(size_wh)
    if longest < 400:
        return 1
    return max(2, round(longest / 600))


def _disc(
    canvas: Image.Image,
    centre_xy: tuple[float, float],
    radius: float,
    *,
    positive: bool,
) -> None:
    """Draw a disc with a white ring and a plus or minus, which does not depend on colour alone."""
    draw, (x, y) = ImageDraw.Draw(canvas), centre_xy
    colours = {1.5: HALO, 1.32: WHITE, 1.0: POSITIVE if positive else NEGATIVE}
    for share, colour in colours.items():
        reach = radius * share
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=colour)
    bar = radius * 0.16
    arm = radius * 0.58
    draw.rectangle((x - arm, y - bar, x + arm, y + bar), fill=WHITE)
    if positive:
        draw.rectangle((x - bar, y - arm, x + bar, y + arm), fill=WHITE)


REGION_ALPHA = 0.45

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
# turns of the colour wheel from one object to the next, which never come near an earlier one
_GOLDEN = 0.61803398875


def object_colour(index: int) -> Colour:
    """Return a bright colour for an object; those of neighbouring indices are far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb(
        (0.55 + index * _GOLDEN) % 1, (0.9, 0.6)[index % 2], 1
    )
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
    toward = 255 if turn % 2 else 0
    share = min((turn + 1) // 2 * 0.45, 0.8)
    red, green, blue = (
        round(one + (toward - one) * share) for one in _CLASS_COLOURS[place]
    )
    return red, green, blue


def region_colours(instances: Sequence[Instance]) -> list[Colour]:
    """Return the colour of each object: that of its class, or its own colour if it has no class."""
    return [
        object_colour(index) if one.class_id is None else class_colour(one.class_id)
        for index, one in enumerate(instances)
    ]


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
    rows = pixels_under_centres(height, shown_height)
    columns = pixels_under_centres(width, shown_width)
    numbers = np.zeros((shown_height, shown_width), np.int64)
    for number in range(len(instances), 0, -1):
        part = instances[number - 1].picked(rows, columns)
        if part.crop.any():
            numbers[part.window.slices][part.crop] = number
        else:
            y0, x0, y1, x1 = instances[number - 1].window
            numbers[
                (y0 + y1) * shown_height // (2 * height),
                (x0 + x1) * shown_width // (2 * width),
            ] = number
    return numbers


def paint_regions(
    picture: PictureArray,
    numbers: npt.NDArray[np.int64],
    colours: Sequence[Colour],
    *,
    fill: float = REGION_ALPHA,
    line_px: int = 1,
) -> PictureArray:
    """Return the picture with regions 1, 2, … filled in their colours, and light lines with dark ones outside.

    Args:
        picture: (h, w, 3).
        numbers: (h, w), 0 is no region.
        colours: colour of each region, from region 1.
        fill: how much of a colour covers the picture, from 0 to 1.
        line_px: width of the light lines, and of the dark ones.
    """
    table = np.asarray([(0, 0, 0), *colours], np.float32)  # (N + 1, 3)
    inside = numbers > 0
    edge = _edges(numbers, line_px)
    ring = edge & inside
    halo = edge & ~inside
    painted = picture.copy()
    painted[inside] = np.rint(
        picture[inside] * (1 - fill) + (table * fill)[numbers[inside]]
    )
    painted[ring] = np.rint(table * 0.6 + np.asarray(WHITE) * 0.4)[numbers[ring]]
    painted[halo] = np.rint(picture[halo] * 0.35 + np.asarray(HALO) * 0.65)
    return painted


def _edges(numbers: npt.NDArray[np.integer[Any]], width: int) -> BoolArray:
    """Return (h, w), True within `width` pixels of another number."""
    size = 2 * width + 1
    low = high = np.pad(numbers, width, mode="edge")
    for axis in (0, 1):
        low = sliding_window_view(low, size, axis).min(-1)
        high = sliding_window_view(high, size, axis).max(-1)
    return np.asarray(low != high)
