"""The pages of reports."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image
from simmat_plugin_report.page import (
    Block,
    Code,
    Figure,
    FigureGrid,
    Table,
    write_sections,
)

VOID = {"meta", "img", "source", "br"}


class Checker(HTMLParser):
    """Collects tags and text, and fails where tags do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def drawn(kind: str = "PNG") -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 10, 10)).save(buffer, kind)
    return buffer.getvalue()


def write(folder: Path, *blocks: Block, title: str = "Title") -> Checker:
    """Write a page of some blocks, and read it."""
    path = write_sections(
        folder / "out" / "index.html",
        title,
        "Summary.",
        [(title, blocks), ("Empty", [])],
    )
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    """It must open from disk, offline and after it was sent to somebody."""
    page = write(
        tmp_path,
        Figure(drawn("JPEG"), "curves"),
        FigureGrid([Figure(drawn(), "sheet")]),
    )
    links = [
        v
        for _, attrs in page.attributes
        for k, v in attrs.items()
        if k in ("src", "href", "srcset") and v
    ]
    for link, expected in zip(links, ("jpeg", "png"), strict=True):
        kind, _, data = link.partition(",")
        assert kind == f"data:image/{expected};base64"
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()
    assert not re.search(
        r"https?://|@import|url\(", (tmp_path / "out" / "index.html").read_text()
    )
    assert "Empty" not in page.text


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    """Names of files, classes and channels come from strangers; one of them must not run a script."""
    hostile = """x"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"""
    blocks: list[Block] = [
        Figure(drawn(), hostile, hostile),
        FigureGrid([Figure(drawn(), hostile, hostile)], [((0, 0, 0), hostile)]),
        Table([hostile, hostile], [[hostile, hostile]], 1),
        *(hostile, [hostile], Code(hostile)),
    ]
    page = write(tmp_path, *blocks, title=hostile)
    tags = {tag for tag, _ in page.attributes}
    assert "script" not in tags
    assert not [attrs for _, attrs in page.attributes if "onerror" in attrs]
    assert {attrs["alt"] for tag, attrs in page.attributes if tag == "img"} == {hostile}
    assert page.text.count(hostile) == 13
