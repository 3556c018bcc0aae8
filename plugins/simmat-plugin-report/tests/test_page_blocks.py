"""The page that shows a run."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from PIL import Image
from simmat_plugin_report.page import Figure, Table, write_template

TEMPLATE = """
{% extends "simmat/page.html.j2" %}
{% import "simmat/parts.html.j2" as parts %}
{% block main %}
{% if note is defined %}<p>{{ note }}</p>{% endif %}
{% for figure in figures %}{{ parts.figure(figure, wide=loop.last) }}{% endfor %}
{% for table in tables %}{{ parts.table(table) }}{% endfor %}
{% endblock %}
"""
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


def read(path: Path) -> Checker:
    checker = Checker()
    checker.feed(path.read_text(encoding="utf-8"))
    assert checker.open == []
    return checker


def drawn(kind: str = "PNG") -> bytes:
    """A picture file."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (200, 10, 10)).save(buffer, kind)
    return buffer.getvalue()


def write(folder: Path, *figures: Figure, tables: Sequence[Table] = (), title: str = "Title", **values: str) -> Checker:
    """Write a page of some figures and tables, and read it."""
    template = folder / "templates" / "a.html.j2"
    template.parent.mkdir()
    template.write_text(TEMPLATE, encoding="utf-8")
    values = {"title": title, "summary": "Summary.", **values}
    return read(write_template(folder / "out" / "index.html", template, figures=figures, tables=tables, **values))


def test_the_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    """It must open from disk, offline and after it was sent to somebody."""
    page = write(tmp_path, Figure(drawn("JPEG"), "curves"), Figure(drawn(), "sheet"))
    links = [v for _, attrs in page.attributes for k, v in attrs.items() if k in ("src", "href", "srcset") and v]
    assert len(links) == 2
    for link, expected in zip(links, ("jpeg", "png"), strict=True):
        kind, _, data = link.partition(",")
        assert kind == f"data:image/{expected};base64"
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()
    assert not re.search(r"https?://|@import|url\(", (tmp_path / "out" / "index.html").read_text())


def test_texts_are_shown_as_they_are_written(tmp_path: Path) -> None:
    """A command with < or a file name with quotes must neither vanish nor become markup."""
    texts = ("Thermal <scenes> & more", "simmat train --out '<b>' && x &lt; y", "scene-1, IoU 0.8")
    page = write(tmp_path, Figure(drawn(), 'a "sheet"', texts[2]), title=texts[0], note=texts[1])
    for text in texts:
        assert text in page.text
    assert 'a "sheet"' in [attrs.get("alt") for tag, attrs in page.attributes if tag == "img"]


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    """Names of files, classes and channels come from strangers; one of them must not run a script."""
    hostile = """x"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"""
    table = Table([hostile, hostile], [[hostile, hostile]], 1)
    page = write(
        tmp_path, Figure(drawn(), hostile, hostile), tables=[table], title=hostile, summary=hostile, note=hostile
    )
    tags = {tag for tag, _ in page.attributes}
    assert "script" not in tags
    assert not [attrs for _, attrs in page.attributes if "onerror" in attrs]
    assert {attrs["alt"] for tag, attrs in page.attributes if tag == "img"} == {hostile}
    assert page.text.count(hostile) == 9


def test_a_table_marks_its_best_and_aligns_numbers(tmp_path: Path) -> None:
    """Figures are read off in columns."""
    page = write(tmp_path, tables=[Table(("model", "mIoU"), [("zero-shot", "0.2"), ("tuned", "0.7")], 1, {(1, 1)})])
    classes = [(attrs.get("class") or "").split() for tag, attrs in page.attributes if tag in ("th", "td")]
    assert classes == [[], ["number"], [], ["number"], [], ["number", "best"]]


def test_a_value_that_the_template_lacks_is_refused(tmp_path: Path) -> None:
    """An empty place on a page looks like a failure of what it shows."""
    (tmp_path / "a.html.j2").write_text('{% extends "simmat/page.html.j2" %}', encoding="utf-8")
    with pytest.raises(UndefinedError, match="summary"):
        write_template(tmp_path / "index.html", tmp_path / "a.html.j2", title="T")
