"""Draw masks and prompts over a picture.

Contours and clicks are drawn after image and masks are scaled to the final size, so they are easy to see at any size.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from simmat.errors import DataError
from simmat.report.colour_maps import PictureArray
from simmat.types import BoolArray, Prompt

Colour = tuple[int, int, int]

MASK: Colour = (0, 200, 255)
POSITIVE: Colour = (0, 158, 60)
NEGATIVE: Colour = (214, 39, 40)
BOX: Colour = (255, 214, 10)
WHITE: Colour = (255, 255, 255)
HALO: Colour = (12, 14, 18)

FILL_ALPHA = 0.38
SMALLEST_SIDE = 512
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
        size_wh: (width, height) of the result; None keeps the picture's size, or a whole multiple where it is small.

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

    def __init__(self, picture: PictureArray, size_wh: tuple[int, int] | None = None) -> None:
        """Scale a picture (H, W, 3); see `draw_overlay` for `size_wh`."""
        self._height, self._width = picture.shape[:2]
        self.image = _scaled(picture, size_wh)

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
        share = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(self.image.size, Image.Resampling.BOX))
        return np.asarray(share >= 0.5 if share.max() >= 0.5 else share > 0, dtype=np.bool_)

    def tint(self, where: BoolArray, colour: Colour, alpha: float) -> None:
        """Cover the pixels of a `scaled` mask with a colour, of which `alpha` is the share."""
        pixels = np.array(self.image)
        under = pixels[where].astype(np.float32)
        pixels[where] = np.rint(under * (1 - alpha) + np.asarray(colour, dtype=np.float32) * alpha).astype(np.uint8)
        self.image = Image.fromarray(pixels)

    def outline(self, mask: BoolArray, colour: Colour) -> None:
        """Draw the inner edge of a `scaled` mask in a light tint and a dark line outside it: seen on any ground."""
        width = _line_width(self.image.size)
        ring = mask & _grown(~mask, width)
        halo = _grown(mask, max(width // 2, 1)) & ~mask
        pixels = np.array(self.image)
        pixels[halo] = (pixels[halo] * 0.35 + np.asarray(HALO) * 0.65).astype(np.uint8)
        pixels[ring] = np.asarray(colour) * 0.5 + np.asarray(WHITE) * 0.5
        self.image = Image.fromarray(pixels)

    def mark(self, prompt: Prompt) -> None:
        """Draw the box and points of a prompt, which are in pixels of the picture."""
        canvas = self.image
        scale = np.asarray(canvas.size) / (self._width, self._height)
        if prompt.box is not None:
            draw, width = ImageDraw.Draw(canvas), _line_width(canvas.size)
            x0, y0, x1, y1 = (float(v) for v in (prompt.box.reshape(2, 2) * scale).ravel())
            x0, y0 = max(x0, 0), max(y0, 0)
            # x1 and y1 are the far edges of the last pixels; a side on the image's border stays visible
            x1, y1 = max(min(x1, canvas.width) - 1, x0), max(min(y1, canvas.height) - 1, y0)
            draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=HALO, width=width + 2)
            draw.rectangle((x0, y0, x1, y1), outline=BOX, width=width)
        radius = max(5.0, max(canvas.size) / 90)
        for centre, label in zip((prompt.point_coords + 0.5) * scale - 0.5, prompt.point_labels, strict=True):
            _disc(canvas, (float(centre[0]), float(centre[1])), radius, positive=bool(label))


@lru_cache(maxsize=8)
def font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans as shipped with matplotlib, or where that is not installed Pillow's font of Latin letters."""
    spec = find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size_px))
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name), size_px)


def _scaled(picture: PictureArray, size_wh: tuple[int, int] | None) -> Image.Image:
    image = Image.fromarray(picture)
    if size_wh is None:
        factor = max(-(-SMALLEST_SIDE // max(image.size)), 1)
        size_wh = (image.width * factor, image.height * factor)
    if size_wh == image.size:
        return image
    return image.resize(size_wh, Image.Resampling.BICUBIC if size_wh[0] >= image.width else Image.Resampling.BOX)


def _grown(mask: BoolArray, steps: int) -> BoolArray:
    """Dilate an (H, W) mask `steps` times by the four neighbours of each pixel; scipy is slow to import."""
    for _ in range(steps):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def _line_width(size_wh: tuple[int, int]) -> int:
    """Return the width of a line in pixels: 1 on a thumbnail, 2 from 400 to 1500, then in proportion."""
    longest = max(size_wh)
    return 1 if longest < 400 else max(2, round(longest / 600))


def _disc(canvas: Image.Image, centre_xy: tuple[float, float], radius: float, *, positive: bool) -> None:
    """Paste an antialiased disc with a white ring and a plus or minus, which does not depend on colour alone."""
    fine = 4
    half = int(np.ceil(radius * 1.7))
    size = 2 * half + 1
    stamp = Image.new("RGBA", (size * fine, size * fine), (0, 0, 0, 0))
    draw = ImageDraw.Draw(stamp)
    shift = np.asarray(centre_xy) - np.round(centre_xy)
    cx, cy = (float(v) for v in (half + 0.5 + shift) * fine)

    def circle(r: float, fill: tuple[int, int, int, int]) -> None:
        r *= fine
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)

    circle(radius * 1.5, (*HALO, 150))
    circle(radius * 1.32, (*WHITE, 255))
    circle(radius, (*(POSITIVE if positive else NEGATIVE), 255))
    bar, arm = radius * 0.16 * fine, radius * 0.58 * fine
    draw.rectangle((cx - arm, cy - bar, cx + arm, cy + bar), fill=(*WHITE, 255))
    if positive:
        draw.rectangle((cx - bar, cy - arm, cx + bar, cy + arm), fill=(*WHITE, 255))
    small = stamp.resize((size, size), Image.Resampling.LANCZOS)
    corner = (round(centre_xy[0]) - half, round(centre_xy[1]) - half)
    canvas.paste(small, corner, small)
