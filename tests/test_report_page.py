"""The page that shows a run."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from simmat.errors import DataError
from simmat.report.page import Figure, PageContent, ScoreRow, Step, write_page
from simmat.types import Channel

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


def content(picture: Path) -> PageContent:
    drawn = Image.new("RGB", (20, 10), (200, 10, 10))
    return PageContent(
        title="Thermal <scenes> & more",
        summary="What it shows.",
        scores=[ScoreRow("zero-shot", 0.21249, None, 0.5), ScoreRow("tuned", 0.7, 0.6, float("nan"))],
        scores_note="8 objects.",
        curves=Figure(picture, "curves", dark=drawn),
        sheet=Figure(drawn, 'a "sheet"'),
        predictions=[Figure(drawn, "prediction", "scene-1, IoU 0.8")],
        compared=True,
        steps=[Step("simmat train --out '<b>' && x &lt; y", "train", 75.2)],
        channels=[Channel("thermal", "brightness_temperature", "K", 10.5, None, 293.15, 4.25)],
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "curves.png"
    Image.new("RGB", (30, 15), (10, 200, 10)).save(path)
    return path


def test_the_page_needs_nothing_but_itself(tmp_path: Path, picture: Path) -> None:
    """It must open from disk, offline and after it was sent to somebody."""
    page = read(write_page(tmp_path / "index.html", content(picture)))
    picture.unlink()
    links = [v for _, attrs in page.attributes for k, v in attrs.items() if k in ("src", "href", "srcset") and v]
    assert len(links) == 4
    for link in links:
        kind, _, data = link.partition(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(data, validate=True))).verify()
    assert not re.search(r"https?://|@import|url\(", (tmp_path / "index.html").read_text())


def test_texts_are_shown_as_they_are_written(tmp_path: Path, picture: Path) -> None:
    """A command with < or a file name with quotes must neither vanish nor become markup."""
    page = read(write_page(tmp_path / "index.html", content(picture)))
    for text in (
        "Thermal <scenes> & more",
        "simmat train --out '<b>' && x &lt; y",
        "train, 1 min 15 s",
        "scene-1, IoU 0.8",
    ):
        assert text in page.text
    assert 'a "sheet"' in [attrs.get("alt") for tag, attrs in page.attributes if tag == "img"]


def test_no_text_becomes_markup(tmp_path: Path) -> None:
    """Names of files, classes and channels come from strangers; one of them must not run a script."""
    hostile = """x"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"""
    drawn = Image.new("RGB", (2, 2))
    shown = Figure(drawn, hostile, hostile)
    page = read(
        write_page(
            tmp_path / "index.html",
            PageContent(
                hostile,
                hostile,
                [ScoreRow(hostile, 0.5, 0.5, 0.5)],
                hostile,
                shown,
                shown,
                [shown],
                steps=[Step(hostile, hostile)],
                channels=[Channel(hostile, hostile, hostile)],
            ),
        )
    )
    tags = {tag for tag, _ in page.attributes}
    assert "script" not in tags
    assert not [attrs for _, attrs in page.attributes if "onerror" in attrs]
    assert {attrs["alt"] for tag, attrs in page.attributes if tag == "img"} == {hostile}
    assert page.text.count(hostile) == 13


def test_scores_and_channels_are_tables(tmp_path: Path, picture: Path) -> None:
    """Figures are read off, three digits each; what is missing is a dash, never nan or None."""
    text = " ".join(read(write_page(tmp_path / "index.html", content(picture))).text.split())
    assert "by object by image by class" in text.replace("by", " by").replace("  ", " ")
    for shown in ("0.212", "0.500", "0.700", "0.600", "brightness temperature", "10.5", "293.15", "4.25"):
        assert shown in text
    assert "nan" not in text
    assert "None" not in text
    assert text.count("\u2013") == 2


def test_every_picture_has_words_for_those_who_cannot_see_it(tmp_path: Path, picture: Path) -> None:
    """Screen readers read the alt text."""
    page = read(write_page(tmp_path / "index.html", content(picture)))
    images = [attrs for tag, attrs in page.attributes if tag == "img"]
    assert len(images) == 3
    assert all(image.get("alt") for image in images)


def test_what_is_empty_leaves_no_heading(tmp_path: Path) -> None:
    """An empty section looks like a failure."""
    page = read(write_page(tmp_path / "index.html", PageContent("Title", "Summary.")))
    assert not any(tag == "h2" for tag, _ in page.attributes)
    assert "Summary." in page.text


def test_a_picture_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    """And no page with a hole is left behind."""
    with pytest.raises(DataError, match="nowhere"):
        write_page(tmp_path / "index.html", PageContent("T", "S", sheet=Figure(tmp_path / "nowhere.png", "x")))
    assert list(tmp_path.iterdir()) == []


def test_a_large_picture_is_shown_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Pillow takes more than 89 million pixels for an attack; a contact sheet of many samples may have them."""
    Image.new("1", (10_000, 10_000)).save(tmp_path / "sheet.png")
    page = read(write_page(tmp_path / "index.html", PageContent("T", "S", sheet=Figure(tmp_path / "sheet.png", "x"))))
    assert [attrs["width"] for tag, attrs in page.attributes if tag == "img"] == ["10000"]
    assert [str(warning.message) for warning in recwarn] == []


def test_only_pictures_of_the_named_format_are_opened(tmp_path: Path) -> None:
    """Pillow would run a program on a PostScript file of any name, and wait at a pipe."""
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    for name in ("eps.png", "cut.jpg", "zero.png"):
        with pytest.raises(DataError, match=name):
            write_page(tmp_path / "index.html", PageContent("T", "S", sheet=Figure(tmp_path / name, "x")))
    assert not (tmp_path / "index.html").exists()
