"""A page that shows a run: one HTML file with its pictures inside, which opens from disk on any device."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, PrefixLoader, StrictUndefined
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

import simmat
from simmat.errors import DataError
from simmat.io.files import atomic_write_text, read_bytes, require_file
from simmat.report import overlay
from simmat.types import Channel

Picture = Image.Image | Path
"""A drawn picture, or a PNG or JPEG file."""

_MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg"}
_CLASSES = {"image/png": PngImageFile, "image/jpeg": JpegImageFile}
_MOST_BYTES = 2**30
"""Of a picture's file."""
_NONE = "–"
"""In place of a number that is not there."""
_LEGEND = (
    (overlay.HIT, "hit"),
    (overlay.MISS, "miss"),
    (overlay.FALSE_ALARM, "false alarm"),
    (overlay.WHITE, "outline of the truth"),
    (overlay.POSITIVE, "click"),
)


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

    @property
    def about(self) -> str:
        """Purpose and time, as "train, 1 min 15 s"."""
        return ", ".join(text for text in (self.purpose, "" if self.seconds is None else _time(self.seconds)) if text)


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
    channels: Sequence[Channel] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Attributes:
        head: one text a column.
        rows: one text a column each; a line feed in a number is kept.
        numbers_from: the column, counted from 0, from which on numbers stand.
        best: (row, column) of the cells that are marked.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int
    best: Container[tuple[int, int]] = ()


def write_page(out: Path | str, content: PageContent) -> Path:
    """Write the page of a run as one file without outside resources.

    Args:
        out: the HTML file; written whole or not at all.
        content: what it shows; texts are escaped.

    Returns:
        `out` as a path.

    Raises:
        DataError: a picture cannot be read, or is neither PNG nor JPEG.
        OutputError: the file cannot be written.
    """
    return write_template(
        out,
        "simmat.report",
        "run.html.j2",
        title=content.title,
        summary=content.summary,
        content=content,
        scores=_scores(content.scores),
        legend=_LEGEND,
        channels=_channels(content.channels),
    )


def write_template(out: Path | str, package: str, name: str, **values: object) -> Path:
    """Write a page from a jinja2 template; all values are escaped.

    A template extends "simmat/page.html.j2", which shows `title` and `summary`, and fills its block "main". The macros
    of "simmat/parts.html.j2" show a `Figure` and a `Table`.

    Args:
        out: the HTML file; written whole or not at all.
        package: the template lies in its folder `templates`.
        name: of the template's file.
        values: what the template shows.

    Returns:
        `out` as a path.

    Raises:
        DataError: a picture cannot be read, or is neither PNG nor JPEG.
        OutputError: the file cannot be written.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PrefixLoader({"simmat": PackageLoader("simmat.report")})]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(data_uri=data_uri, picture_size=_size)
    page = environment.get_template(name).render(version=simmat.__version__, **values)
    atomic_write_text(out, page)
    return Path(out)


def _scores(rows: Sequence[ScoreRow]) -> Table:
    best = max((row.by_object for row in rows if row.by_object is not None), default=None)
    return Table(
        ("mIoU, one click", "by object", "by image", "by class"),
        [(row.name, *(_score(value) for value in (row.by_object, row.by_image, row.by_class))) for row in rows],
        1,
        {(index, column) for index, row in enumerate(rows) if row.by_object == best is not None for column in range(4)},
    )


def _score(value: float | None) -> str:
    return _NONE if value is None or not math.isfinite(value) else f"{value:.3f}"


def _channels(channels: Sequence[Channel]) -> Table:
    return Table(
        ("name", "quantity", "unit", "wavelength, µm", "mean", "std"),
        [
            (
                channel.name,
                channel.quantity.replace("_", " "),
                channel.unit,
                *(_number(value) for value in (channel.wavelength_um, channel.mean, channel.std)),
            )
            for channel in channels
        ],
        3,
    )


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.5g}"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


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
