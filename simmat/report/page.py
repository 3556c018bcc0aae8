"""Pages of pictures and tables: one HTML file with its pictures inside, from a jinja2 template."""

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

Picture = Image.Image | Path
"""A drawn picture, or a PNG or JPEG file."""

_JPEG: tuple[str, type[ImageFile]] = ("image/jpeg", JpegImageFile)
_FORMATS: dict[str, tuple[str, type[ImageFile]]] = {".png": ("image/png", PngImageFile), ".jpg": _JPEG, ".jpeg": _JPEG}
_MOST_BYTES = 2**30
"""Largest picture file."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture on a page.

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
class Table:
    """A table of texts.

    Attributes:
        head: one text per column.
        rows: one text per column each; a line feed in a number is kept.
        numbers_from: the first column of numbers, counted from 0.
        best: (row, column) of the cells that are marked.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers_from: int
    best: Container[tuple[int, int]] = ()


def write_template(out: Path | str, template: Path, **values: object) -> Path:
    """Write a page from a jinja2 template; all values are escaped.

    A template extends "simmat/page.html.j2", which shows `title` and `summary`, and fills its block "main". The macros
    of "simmat/parts.html.j2" show a `Figure` and a `Table`.

    Args:
        out: the HTML file; written as a whole or not at all.
        template: the file of the template.
        values: what the template shows.

    Returns:
        `out` as a path.

    Raises:
        DataError: a picture cannot be read, or is neither PNG nor JPEG.
        OutputError: the file cannot be written.
    """
    shared = PrefixLoader({"simmat": PackageLoader("simmat.report")})
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
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        mime, data = "image/png", buffer.getvalue()
    else:
        mime, data = _format(picture)[0], read_bytes(picture, "picture", limit=_MOST_BYTES)
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _size(picture: Picture) -> tuple[int, int]:
    """Return (width, height) of a picture; of a file only the header is read."""
    if isinstance(picture, Image.Image):
        return picture.size
    reader = _format(picture)[1]
    require_file(picture, "picture")
    try:
        # PIL.Image.open would warn of large pictures, and try formats that run programs
        with reader(picture) as opened:
            return opened.size
    except Exception as error:  # Pillow raises errors of many types for a damaged file
        raise DataError(f"cannot read the picture {picture}: {error}; give a PNG or JPEG file") from error


def _format(picture: Path) -> tuple[str, type[ImageFile]]:
    """Return the MIME type and the reader of a picture file."""
    try:
        return _FORMATS[picture.suffix.lower()]
    except KeyError:
        raise DataError(f"cannot put {picture} on a page; give a PNG or JPEG file") from None
