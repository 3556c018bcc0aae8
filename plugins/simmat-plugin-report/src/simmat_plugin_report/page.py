"""Write pages of pictures and tables: one HTML file with embedded pictures, from a jinja2 template."""

from __future__ import annotations

import base64
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import simmat
from simmat.io.files import atomic_write_text


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture on a page: the content of a PNG or JPEG file."""

    picture: bytes
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
class FigureGrid:
    """Pictures side by side as far as there is room.

    Attributes:
        legend: colours (red, green, blue), 0..255, and their meaning.
        columns: pictures that stay side by side on a narrow page.
    """

    figures: Sequence[Figure]
    legend: Sequence[tuple[tuple[int, int, int], str]] = ()
    columns: int = 2


class Code(str):
    """Commands or code, shown verbatim."""

    __slots__ = ()


Block = str | Code | list[str] | Figure | Table | FigureGrid
"""A paragraph, code, a list of texts, a picture, a table, or several pictures."""


def write_sections(
    out: Path | str,
    title: str,
    summary: str,
    sections: Iterable[tuple[str, Sequence[Block]]],
    folded: Container[str] = (),
) -> Path:
    """Write a page of sections, (heading, blocks) each; all texts are escaped, and sections without blocks left out.

    Args:
        folded: headings of sections that a reader opens first.

    Raises:
        OutputError: the file cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("simmat_plugin_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    shown = [
        (heading, [(type(one).__name__, one) for one in blocks])
        for heading, blocks in sections
        if blocks
    ]
    page = environment.get_template("page.html.j2").render(
        title=title,
        summary=summary,
        sections=shown,
        folded=folded,
        version=simmat.__version__,
    )
    atomic_write_text(out, page)
    return Path(out)


def _data_uri(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"
