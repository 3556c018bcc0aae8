"""The built site: pages that open from disk, without a server."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="`make docs` installs it")
pytest.importorskip("material", reason="`make docs` installs it")

ROOT = Path(__file__).parents[2]


class Links(HTMLParser):
    """Collect the paths that a page links to or loads, without those of other hosts and of anchors on itself."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                url = urlsplit(value)
                if url.path and not (url.scheme or url.netloc):
                    self.paths.append(unquote(url.path))


@pytest.mark.slow
def test_every_link_of_the_site_is_a_file(tmp_path: Path) -> None:
    """A link to a folder works on a server; from disk, a browser shows a listing of the folder in its place."""
    site = tmp_path / "site"
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        str(site),
    ]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = []
    for page in site.rglob("*.html"):
        # shown by a server alone, for an address of any depth: its links are absolute
        if page.name == "404.html":
            continue
        links = Links()
        links.feed(page.read_text(encoding="utf-8"))
        assert links.paths
        wrong += [
            f"{page.name}: {path}"
            for path in links.paths
            if not (page.parent / path).is_file()
        ]
    assert wrong == []
