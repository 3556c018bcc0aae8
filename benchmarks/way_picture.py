"""Draw the picture at the top of the README: sensor image -> MAT -> foundation model -> masks.

    python benchmarks/way_picture.py --out way.png BUNDLE IMAGE TEXT [BUNDLE IMAGE TEXT ...]

A row for each bundle, whose transfer layer must make an image. The second picture is what the layer makes of the sensor
image, its three planes stretched for the eye; the last has every object that the model finds without prompts.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps

import simmat
from simmat.data.pipeline import restore_logits
from simmat.drawing.display import PictureArray, display_rgb
from simmat.drawing.overlay import font, object_colour
from simmat.io.files import atomic_path
from simmat.predictor import Predictor

CELL = 300
ARROW = 62
TOP = 62
BELOW = 40
BETWEEN = 16
INK, PALE, LINE, GROUND = (35, 38, 45), (100, 106, 118), (70, 96, 180), (255, 255, 255)
HEADS = (
    "sensor image",
    "what the MAT makes of it",
    "foundation model",
    "masks of every object",
)


def shown_by_mat(model: Predictor) -> PictureArray:
    """Return what the transfer layer makes of the current image, (H, W, 3) uint8, in the size of the image."""
    assert model.image is not None
    prepared = model.pipeline(model.image)
    with torch.inference_mode():
        planes = model.model.mat(prepared.planes[None])
        planes = restore_logits(planes, prepared.letterbox)[0].numpy()
    low, high = np.percentile(planes, (1, 99.5), axis=(1, 2))
    scaled = (planes - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]
    return (scaled.clip(0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def painted(picture: PictureArray, model: Predictor) -> PictureArray:
    """Return the picture with every object in a colour of its own."""
    found = model.segment_everything()
    grey = picture.mean(axis=2, keepdims=True).repeat(3, axis=2) * 0.8
    for index, one in enumerate(found[::-1]):
        mask, colour = one.instance.mask(picture.shape[:2]), object_colour(index)
        inner = (
            mask
            & np.roll(mask, 1, 0)
            & np.roll(mask, -1, 0)
            & np.roll(mask, 1, 1)
            & np.roll(mask, -1, 1)
        )
        grey[mask] = 0.45 * grey[mask] + 0.55 * np.array(colour)
        grey[mask & ~inner] = colour
    return grey.clip(0, 255).astype(np.uint8)


def squared(picture: PictureArray) -> Image.Image:
    """Cut a picture to the square in its middle, in the size of a cell."""
    return ImageOps.fit(
        Image.fromarray(picture), (CELL, CELL), Image.Resampling.LANCZOS
    )


def draw_arrow(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """Draw an arrow to the right between two cells."""
    draw.line([(x + 8, y), (x + ARROW - 22, y)], fill=LINE, width=5)
    draw.polygon(
        [(x + ARROW - 26, y - 12), (x + ARROW - 8, y), (x + ARROW - 26, y + 12)],
        fill=LINE,
    )


def draw_model(
    draw: ImageDraw.ImageDraw, x: int, top: int, bottom: int, words: list[str]
) -> None:
    """Draw the foundation model as one box beside all rows."""
    draw.rounded_rectangle(
        [x, top, x + CELL, bottom],
        radius=22,
        fill=(232, 237, 250),
        outline=LINE,
        width=3,
    )
    y = (top + bottom) // 2 - 26 * len(words) // 2
    for index, line in enumerate(words):
        draw.text(
            (x + CELL / 2, y),
            line,
            INK if index == 0 else PALE,
            font(22 if index == 0 else 19),
            anchor="ma",
        )
        y += 30


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("rows", nargs="+", metavar="BUNDLE IMAGE TEXT")
    asked = parser.parse_args()
    rows = [asked.rows[start : start + 3] for start in range(0, len(asked.rows), 3)]
    step = CELL + BELOW + BETWEEN
    canvas = Image.new(
        "RGB", (4 * CELL + 3 * ARROW + 40, TOP + len(rows) * step), GROUND
    )
    draw = ImageDraw.Draw(canvas)
    columns = [20 + index * (CELL + ARROW) for index in range(4)]
    for x, head in zip(columns, HEADS, strict=True):
        draw.text((x + CELL / 2, 20), head, INK, font(22, bold=True), anchor="ma")
    for index, (bundle, image, words) in enumerate(rows):
        top = TOP + index * step
        model = simmat.load(bundle)
        picture = display_rgb(model.set_image(image))
        for column, shown in (
            (0, picture),
            (1, shown_by_mat(model)),
            (3, painted(picture, model)),
        ):
            canvas.paste(squared(shown), (columns[column], top))
        draw.text(
            (columns[0] + CELL / 2, top + CELL + 8), words, PALE, font(18), anchor="ma"
        )
        for column in (0, 1, 2):
            draw_arrow(draw, columns[column] + CELL, top + CELL // 2)
    middle = [
        "trained on photographs",
        "encodes the image once,",
        "answers any number",
        "of clicks and boxes",
    ]
    draw_model(draw, columns[2], TOP, TOP + len(rows) * step - BELOW - BETWEEN, middle)
    with atomic_path(asked.out) as temporary:
        canvas.quantize(255).save(temporary, "png", optimize=True)


if __name__ == "__main__":
    main()
