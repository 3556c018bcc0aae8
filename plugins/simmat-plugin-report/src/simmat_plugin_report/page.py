"""Write pages of pictures and tables: one HTML file with embedded pictures, from a jinja2 template."""

from __future__ import annotations

import base64
import io
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, PrefixLoader, StrictUndefined
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

import simmat
from simmat.errors import DataError
from simmat.io.files import atomic_write_text, read_bytes, require_file

Picture = Image.Image | Path | bytes
"""A PIL image, the path of a PNG or JPEG file, or the content of such a file."""

_JPEG: tuple[str, type[ImageFile]] = ("image/jpeg", JpegImageFile)
_FORMATS: dict[str, tuple[str, type[ImageFile]]] = {".png": ("image/png", PngImageFile), ".jpg": _JPEG, ".jpeg": _JPEG}
_MAX_BYTES = 2**30
"""Most bytes of a picture file."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture on a page."""

    picture: Picture
    alt: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts.

    Attributes:
        rows: one text per column; line feeds in numbers are kept.
        numbers_from: index of the first column of numbers.
        best: (row, column) of the cells to mark.
        tall: show a long table in a part of the page that scrolls.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int
    best: Container[tuple[int, int]] = ()
    tall: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A list of texts."""

    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Code:
    """Commands or code, shown verbatim."""

    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Pictures side by side as far as there is room.

    Attributes:
        legend: colours (red, green, blue), 0..255, and their meaning.
        columns: pictures that stay side by side on a narrow page; 0 for as many as fit.
    """

    figures: Sequence[Figure]
    legend: Sequence[tuple[tuple[int, int, int], str]] = ()
    columns: int = 0


Block = Text | Items | Code | Grid | Figure | Table


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page under a heading."""

    heading: str
    blocks: Sequence[Block]


def write_sections(out: Path | str, title: str, summary: str, sections: Sequence[Section]) -> Path:
    """Write a page of sections; all texts are escaped.

    Raises:
        DataError: a picture cannot be read, or is neither PNG nor JPEG.
        OutputError: the file cannot be written.
    """
    kinds = [
        (section.heading, [(type(block).__name__, block) for block in section.blocks])
        for section in sections
        if section.blocks
    ]
    template = Path(__file__).parent / "templates" / "sections.html.j2"
    return write_template(out, template, title=title, summary=summary, sections=kinds)


def write_template(out: Path | str, template: Path, **values: object) -> Path:
    """Write a page from a jinja2 template; all values are escaped.

    A template extends "simmat/page.html.j2", which shows `title` and `summary`, and fills its block "main". The macros
    of "simmat/parts.html.j2" show a `Figure` and a `Table`.

    Args:
        out: the HTML file, written completely or not at all.

    Raises:
        DataError: a picture cannot be read, or is neither PNG nor JPEG.
        OutputError: the file cannot be written.
    """
    shared = PrefixLoader({"simmat": PackageLoader("simmat_plugin_report")})
    environment = Environment(
        loader=ChoiceLoader([FileSystemLoader(template.parent), shared]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(data_uri=_data_uri, picture_size=_size)
    atomic_write_text(out, environment.get_template(template.name).render(version=simmat.__version__, **values))
    return Path(out)


def _data_uri(picture: Picture) -> str:
    """Return a picture as a data URI: a file unchanged, a drawn picture as PNG."""
    if isinstance(picture, bytes):
        mime, data = _format_of_bytes(picture)[0], picture
    elif isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        mime, data = "image/png", buffer.getvalue()
    else:
        mime, data = _format(picture)[0], read_bytes(picture, "picture", limit=_MAX_BYTES)
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _size(picture: Picture) -> tuple[int, int]:
    """Return (width, height) of a picture; of a file only the header is read."""
    if isinstance(picture, Image.Image):
        return picture.size
    content: Path | io.BytesIO
    if isinstance(picture, bytes):
        reader, content, name = _format_of_bytes(picture)[1], io.BytesIO(picture), "on a page"
    else:
        reader, content, name = _format(picture)[1], picture, str(picture)
        require_file(picture, "picture")
    try:
        # PIL.Image.open would warn of large pictures, and try formats that run programs
        with reader(content) as opened:
            return opened.size
    except Exception as error:  # Pillow raises various classes for damaged files
        raise DataError(f"cannot read the picture {name}: {error}; give a PNG or JPEG file") from error


def _format_of_bytes(picture: bytes) -> tuple[str, type[ImageFile]]:
    """Return the MIME type and the reader of a picture's content."""
    return _FORMATS[".png"] if picture.startswith(b"\x89PNG") else _JPEG


def _format(picture: Path) -> tuple[str, type[ImageFile]]:
    """Return the MIME type and the reader of a picture file."""
    try:
        return _FORMATS[picture.suffix.lower()]
    except KeyError:
        raise DataError(f"cannot put {picture} on a page; give a PNG or JPEG file") from None
