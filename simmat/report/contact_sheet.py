"""A contact sheet: one row per sample, with sensor image, truth, click and prediction side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from simmat.errors import DataError
from simmat.report.display import describe_display, display_rgb
from simmat.report.overlay import Colour, draw_overlay, font
from simmat.types import BoolArray, Prompt, SensorImage

COLUMNS = ("sensor image", "truth", "click", "prediction")

GROUND: Colour = (22, 24, 29)
CELL_GROUND: Colour = (34, 37, 44)
TEXT: Colour = (236, 238, 242)
FAINT: Colour = (160, 166, 178)

GAP = 10
MARGIN = 18
LINE = 24


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One sample of a contact sheet; masks have the image's own size.

    Attributes:
        sample_id: written above the row.
        image: (C, H, W) in physical units.
        truth: (H, W) bool, the region that was prompted for.
        prompt: in pixels of the image.
        prediction: (H, W) bool.
        iou: of truth and prediction; written above the prediction.
        more: (name, picture) of further columns, the same names in every row.
    """

    sample_id: str
    image: SensorImage
    truth: BoolArray
    prompt: Prompt
    prediction: BoolArray
    iou: float
    more: tuple[tuple[str, Image.Image], ...] = ()


def contact_sheet(rows: Sequence[SheetRow], title: str, *, cell_px: int = 240) -> Image.Image:
    """Draw the rows below each other, every picture fitted into a cell of the same size.

    Args:
        rows: at least one.
        title: written on top.
        cell_px: width of a cell in pixels; its height follows the tallest image, up to a square.

    Raises:
        DataError: there are no rows, or a mask does not fit its image.
    """
    if not rows:
        raise DataError("a contact sheet needs at least one row")
    tallest = max(row.image.size_hw[0] / row.image.size_hw[1] for row in rows)
    cell = (cell_px, max(round(cell_px * min(tallest, 1.0)), cell_px // 3))
    head = MARGIN + LINE + 8 + LINE
    step = LINE + cell[1] + GAP
    names = (*COLUMNS, *(name for name, _ in rows[0].more))
    width = 2 * MARGIN + len(names) * cell_px + (len(names) - 1) * GAP
    sheet = Image.new("RGB", (width, head + step * len(rows) + MARGIN - GAP), GROUND)
    draw = ImageDraw.Draw(sheet)
    face = font(17, bold=True)
    draw.text((MARGIN, MARGIN), shorten(title, face, width - 2 * MARGIN), font=face, fill=TEXT)
    for index, name in enumerate(names):
        draw.text((_left(index, cell_px), head - LINE), name, font=font(13, bold=True), fill=FAINT)
    for index, row in enumerate(rows):
        _draw_row(sheet, draw, row, head + index * step, cell)
    return sheet


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: SheetRow, top: int, cell: tuple[int, int]) -> None:
    """Draw one row; `cell` is the (width, height) of its cells."""
    _write_label(draw, row, top + 4, cell[0])
    draw.text((_left(3, cell[0]), top + 4), f"IoU {row.iou:.3f}", font=font(13, bold=True), fill=TEXT)
    picture = display_rgb(row.image)
    height, width = row.image.size_hw
    scale = min(cell[0] / width, cell[1] / height)
    inner = (max(round(width * scale), 1), max(round(height * scale), 1))
    shown = ((None, None), (row.truth, None), (None, row.prompt), (row.prediction, None))
    pictures = [draw_overlay(picture, mask, prompt, size_wh=inner) for mask, prompt in shown]
    pictures += [more.resize(inner, Image.Resampling.BOX) for _, more in row.more]
    for index, drawn in enumerate(pictures):
        left, upper = _left(index, cell[0]), top + LINE
        draw.rectangle((left, upper, left + cell[0] - 1, upper + cell[1] - 1), fill=CELL_GROUND)
        corner = (left + (cell[0] - inner[0]) // 2, upper + (cell[1] - inner[1]) // 2)
        sheet.paste(drawn, corner)


def _write_label(draw: ImageDraw.ImageDraw, row: SheetRow, top: int, cell_px: int) -> None:
    """Write the sample's name and which channels are shown, within the first two columns."""
    face = font(13)
    room = 2 * cell_px + GAP - 8
    name = shorten(row.sample_id, face, room)
    draw.text((MARGIN, top), name, font=face, fill=TEXT)
    used = int(face.getlength(name + "   "))
    if room - used > 60:
        note = shorten(describe_display(row.image.channels), face, room - used)
        draw.text((MARGIN + used, top), note, font=face, fill=FAINT)


def _left(column: int, cell_px: int) -> int:
    return MARGIN + column * (cell_px + GAP)


def shorten(text: str, face: ImageFont.FreeTypeFont, room: int) -> str:
    """Shorten a text in the middle until it is at most `room` pixels wide."""
    if face.getlength(text) <= room:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = text[: (keep + 1) // 2] + "…" + text[-(keep // 2) :]
        if face.getlength(short) <= room:
            return short
    return "…"
