"""A picture of what a mask hits, misses and adds."""

from __future__ import annotations

import numpy as np
from PIL import Image

from simmat.report.colour_maps import PictureArray
from simmat.report.overlay import WHITE, Canvas, Colour
from simmat.types import BoolArray, Prompt

# Okabe and Ito (2008): distinct under every common colour blindness; drawn over grey.
HIT: Colour = (86, 180, 233)
MISS: Colour = (230, 159, 0)
FALSE_ALARM: Colour = (204, 94, 167)

_ALPHA = 0.6


def draw_comparison(
    picture: PictureArray,
    truth: BoolArray,
    prediction: BoolArray,
    prompt: Prompt | None = None,
    *,
    ignore: BoolArray | None = None,
    size_wh: tuple[int, int] | None = None,
) -> Image.Image:
    """Draw hits, misses and false alarms of a prediction over the picture in grey.

    Args:
        picture: (H, W, 3) uint8.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        prompt: drawn on top, in pixels of the picture.
        ignore: (H, W) bool, True where nothing is scored; not coloured.
        size_wh: as for `draw_overlay`.

    Raises:
        DataError: a mask and the picture differ in size.
    """
    canvas = Canvas(picture, size_wh)
    canvas.image = canvas.image.convert("L").convert("RGB")
    true, found = canvas.scaled(truth), canvas.scaled(prediction)
    scored = np.True_ if ignore is None else ~canvas.scaled(ignore)
    for region, colour in ((true & found, HIT), (true & ~found, MISS), (found & ~true, FALSE_ALARM)):
        canvas.tint(region & scored, colour, _ALPHA)
    canvas.outline(true, WHITE)
    if prompt is not None:
        canvas.mark(prompt)
    return canvas.image
