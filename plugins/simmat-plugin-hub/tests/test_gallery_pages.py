"""The web pages of a gallery: a list of its bundles, and a page for each that a browser can run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from bundles import METRICS, tiny_bundle
from PIL import Image
from simmat_plugin_hub import push_bundle
from simmat_plugin_hub.gallery import GalleryEntry
from simmat_plugin_hub.pages import write_list

from simmat.bundle import Bundle
from simmat.cli import run
from simmat.errors import ConfigError

html = pytest.importorskip("simmat_plugin_export.html")


@pytest.fixture
def gallery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gallery of two bundles, one with a picture, whose pages are made without a model."""
    metrics = {**METRICS, "val": {**METRICS["val"], "everything": {"ap50": 0.25}}}
    bundle = tiny_bundle(tmp_path / "b", metrics=metrics)
    for name in ("squares", "circles"):
        push_bundle(
            bundle, str(tmp_path / f"gallery/{name}.safetensors"), licence="cc0-1.0"
        )
    Image.new("RGB", (8, 6)).save(tmp_path / "gallery/squares.png")

    def export_page(bundle: Bundle, file: Path, **shown: Any) -> int:
        if "circles" in str(bundle.path):
            raise ConfigError("a browser cannot run it")
        file.write_text(f"{shown['title']} {shown['picture'][:15]}")
        return 1

    monkeypatch.setattr(html, "check_built", lambda: None)
    monkeypatch.setattr(html, "export_page", export_page)
    return tmp_path / "gallery"


def test_each_bundle_that_a_browser_can_run_gets_a_page(
    gallery: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Others are listed, and whoever makes the gallery learns why they cannot be tried."""
    assert run(["bundle", "index", str(gallery), "--html"]) == 0
    said = capsys.readouterr()
    assert "circles is listed without a page to try it: a browser cannot" in said.err
    assert "to try in a browser: squares" in said.out
    assert (gallery / "squares.html").read_text() == "squares data:image/jpeg"
    assert not (gallery / "circles.html").exists()
    text = (gallery / "index.html").read_text()
    for name in ("squares", "circles", "cc0-1.0", "0.512", "0.250", "made up"):
        assert name in text
    links = re.findall(r'(?:href|src)="([^"]*)"', text)
    assert "squares.html" in links
    assert "circles.html" not in links
    assert [one for one in links if not (gallery / one).is_file()] == []
    assert run(["bundle", "index", str(gallery), "--html"]) == 0  # again


@pytest.mark.parametrize(
    "said", ["rename", "move it away", "make page", "simmat-plugin-hub[html]"]
)
def test_what_cannot_become_pages_is_refused_before_anything_is_written(
    gallery: Path,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bundle called index would replace the list, which must replace no page of somebody else.

    A clone has no built page, and the exporter may be missing.
    """
    if said == "rename":
        (gallery / "squares.safetensors").rename(gallery / "Index.safetensors")
    elif said == "move it away":
        (gallery / "index.html").write_text("<h1>Our laboratory</h1>")
    elif said == "make page":
        monkeypatch.undo()
        monkeypatch.setattr(html, "_built", lambda name: gallery / name)
    else:
        monkeypatch.setitem(sys.modules, "simmat_plugin_export.html", None)
    before = sorted(gallery.iterdir())
    assert run(["bundle", "index", str(gallery), "--html"]) == 2
    assert said in capsys.readouterr().err
    assert sorted(gallery.iterdir()) == before


def test_texts_of_strangers_are_no_html(tmp_path: Path) -> None:
    """A bundle says of itself what its maker likes."""
    entry = GalleryEntry(
        name="a/b+c",
        file="a.safetensors",
        sensor="gray",
        classes={1: "<script>"},
        foundation="lite",
        data='"><b>',
        sha256="0" * 64,
        size=1,
    )
    text = write_list(tmp_path, [entry]).read_text()
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text
    assert 'href="a/b%2Bc.html"' in text
