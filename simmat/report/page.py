"""A page that shows a run: one HTML file with its pictures inside, which opens from disk on any device."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

import simmat
from simmat.errors import DataError
from simmat.files import atomic_write_text, read_bytes, require_file
from simmat.report import overlay
from simmat.report.page_template import PAGE, STYLE
from simmat.types import Channel

Picture = Image.Image | Path
"""A drawn picture, or a PNG or JPEG file."""

_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_CLASSES = {"image/png": PngImageFile, "image/jpeg": JpegImageFile}
_MOST_BYTES = 2**30
"""Of a picture's file."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One line of the table of scores; mIoU in 0..1, None where there is none.

    Attributes:
        name: of the model ("zero-shot", "tuned").
        by_object: mean over objects.
        by_image: mean over images, of the mean of their objects.
        by_class: mean over classes, of the mean of their objects.
    """

    name: str
    by_object: float | None
    by_image: float | None
    by_class: float | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture on the page.

    Attributes:
        picture: shown on a light page, and on a dark one where `dark` is None.
        alt: what it shows, in words, for those who cannot see it.
        caption: written below it.
        dark: shown instead where the reader prefers dark pages.
    """

    picture: Picture
    alt: str
    caption: str = ""
    dark: Picture | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A command that was run.

    Attributes:
        command: as a user types it.
        purpose: what it does, in a few words.
        seconds: how long it took, or None.
    """

    command: str
    purpose: str = ""
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PageContent:
    """What a page shows; what is empty is left out.

    Attributes:
        title: of the page.
        summary: one or two sentences on what it shows.
        scores: the table, one row a model.
        scores_note: what was scored, below the table.
        curves: the curves of training.
        sheet: a contact sheet.
        predictions: overlays of single predictions.
        compared: whether `predictions` show hit, miss and false alarm, so that the colours are explained.
        steps: the commands, in order.
        channels: the channels the bundle was trained on.
    """

    title: str
    summary: str
    scores: Sequence[ScoreRow] = ()
    scores_note: str = ""
    curves: Figure | None = None
    sheet: Figure | None = None
    predictions: Sequence[Figure] = ()
    compared: bool = False
    steps: Sequence[Step] = ()
    channels: Sequence[Channel] = field(default=())


def write_page(out: Path | str, content: PageContent) -> Path:
    """Write the page as one file without outside resources.

    Args:
        out: the HTML file; written whole or not at all.
        content: what it shows; texts are escaped.

    Returns:
        `out` as a path.

    Raises:
        DataError: a picture cannot be read, or is neither PNG nor JPEG.
        OutputError: the file cannot be written.
    """
    scores = section_html("Scores on the test images", _scores(content.scores, content.scores_note), content.scores)
    curves = section_html("Training", figure_html(content.curves), content.curves)
    beside = f'<div class="beside">\n{scores}\n{curves}\n</div>' if scores and curves else scores + curves
    sections = [
        beside,
        section_html("Predictions on test images", _predictions(content), content.predictions),
        section_html("Validation samples", figure_html(content.sheet, wide=True), content.sheet),
        section_html("What was run", _steps(content.steps), content.steps),
        section_html("Channels of the bundle", _channels(content.channels), content.channels),
    ]
    return write_sections(out, content.title, content.summary, sections)


def write_sections(out: Path | str, title: str, summary: str, sections: Iterable[str]) -> Path:
    """Write a page from sections that are HTML already; see `section_html`.

    Args:
        out: the HTML file; written whole or not at all.
        title: plain text.
        summary: plain text, below the title.
        sections: in order; "" is left out.

    Raises:
        OutputError: the file cannot be written.
    """
    page = PAGE.substitute(
        title=escape(title),
        summary=escape(summary),
        style=STYLE,
        sections="\n".join(section for section in sections if section),
        footer=f"SimMAT {escape(simmat.__version__)}",
    )
    atomic_write_text(out, page)
    return Path(out)


def section_html(heading: str, body: str, content: object = True) -> str:
    """Return a section of a page; "" where `content` is empty."""
    return f"<section>\n<h2>{escape(heading)}</h2>\n{body}\n</section>" if content else ""


def _scores(rows: Sequence[ScoreRow], note: str) -> str:
    if not rows:
        return ""
    best = max((row.by_object for row in rows if row.by_object is not None), default=None)
    body = [
        f"<tr{_best(row, best)}><td>{escape(row.name)}</td>"
        + "".join(f'<td class="number">{_score(value)}</td>' for value in (row.by_object, row.by_image, row.by_class))
        + "</tr>"
        for row in rows
    ]
    head = ("mIoU, one click", *(f"by {what}" for what in ("object", "image", "class")))
    return table_html(head, body, numbers_from=1) + (f'\n<p class="faint">{escape(note)}</p>' if note else "")


def _best(row: ScoreRow, best: float | None) -> str:
    return ' class="best"' if best is not None and row.by_object == best else ""


def _score(value: float | None) -> str:
    return "&ndash;" if value is None or not math.isfinite(value) else f"{value:.3f}"


def table_html(head: Sequence[str], body: Iterable[str], *, numbers_from: int) -> str:
    """Return a table: plain texts of its head, rows of HTML, and the column from which on numbers stand."""
    cells = "".join(
        f'<th scope="col"{" class=number" if index >= numbers_from else ""}>{escape(text)}</th>'
        for index, text in enumerate(head)
    )
    return f"<table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n" + "\n".join(body) + "\n</tbody>\n</table>"


def _predictions(content: PageContent) -> str:
    figures = "\n".join(figure_html(figure) for figure in content.predictions)
    return (_legend() if content.compared else "") + f'<div class="grid">\n{figures}\n</div>'


def _legend() -> str:
    entries = (
        (overlay.HIT, "hit"),
        (overlay.MISS, "miss"),
        (overlay.FALSE_ALARM, "false alarm"),
        (overlay.WHITE, "outline of the truth"),
        (overlay.POSITIVE, "click"),
    )
    items = "".join(
        f'<li><span style="background:rgb({",".join(map(str, colour))})"></span>{text}</li>' for colour, text in entries
    )
    return f'<ul class="legend">{items}</ul>\n'


def figure_html(figure: Figure | None, *, wide: bool = False) -> str:
    """Return a picture with its caption; a wide one scrolls on a narrow page."""
    if figure is None:
        return ""
    width, height = _size(figure.picture)
    image = (
        f'<img src="{data_uri(figure.picture)}" alt="{escape(figure.alt, quote=True)}" width="{width}" '
        f'height="{height}">'
    )
    if figure.dark is not None:
        source = f'<source media="(prefers-color-scheme: dark)" srcset="{data_uri(figure.dark)}">'
        image = f"<picture>{source}{image}</picture>"
    if wide:
        image = f'<div class="wide" tabindex="0">{image}</div>'
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return f"<figure>{image}{caption}</figure>"


def _steps(steps: Sequence[Step]) -> str:
    items = []
    for step in steps:
        time = "" if step.seconds is None else _seconds(step.seconds)
        said = ", ".join(text for text in (step.purpose, time) if text)
        above = f'<p class="faint">{escape(said)}</p>' if said else ""
        items.append(f"<li>{above}<pre><code>{escape(step.command)}</code></pre></li>")
    return "<ol>\n" + "\n".join(items) + "\n</ol>"


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _channels(channels: Sequence[Channel]) -> str:
    body = [
        f"<tr><td>{escape(channel.name)}</td><td>{escape(channel.quantity.replace('_', ' '))}</td>"
        f"<td>{escape(channel.unit)}</td>"
        + "".join(f'<td class="number">{_number(v)}</td>' for v in (channel.wavelength_um, channel.mean, channel.std))
        + "</tr>"
        for channel in channels
    ]
    head = ("name", "quantity", "unit", "wavelength, µm", "mean", "std")
    return f'<div class="wide" tabindex="0">{table_html(head, body, numbers_from=3)}</div>'


def _number(value: float | None) -> str:
    return "&ndash;" if value is None else f"{value:.5g}"


def data_uri(picture: Picture) -> str:
    """Return a picture as a data URI: files as they are, drawn pictures as PNG.

    Raises:
        DataError: the file cannot be read, or is neither PNG nor JPEG.
    """
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        mime, data = "image/png", buffer.getvalue()
    else:
        mime, data = _mime(picture), read_bytes(picture, "picture", limit=_MOST_BYTES)
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _mime(picture: Path) -> str:
    if picture.suffix.lower() not in _MIME:
        raise DataError(f"cannot put {picture} on a page; give a PNG or JPEG file")
    return _MIME[picture.suffix.lower()]


def _size(picture: Picture) -> tuple[int, int]:
    if isinstance(picture, Image.Image):
        return picture.size
    mime = _mime(picture)
    require_file(picture, "picture")
    try:
        # Only the header is read. PIL.Image.open would warn of large pictures, which are not decoded here, and would
        # try formats that run programs.
        with _CLASSES[mime](picture) as opened:
            return opened.size
    except Exception as error:  # of a damaged file Pillow raises whatever comes
        raise DataError(f"cannot read the picture {picture}: {error}; give a PNG or JPEG file") from error
