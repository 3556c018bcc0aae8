"""Drive the page of an exported model in Chromium, with an engine that finds circles without a model."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

WEB = Path(__file__).parents[1] / "web"
WIDTH = 640
HEIGHT = 480
"""Size of each image of the engine."""
PATIENCE_S = 20.0
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def need_browser() -> None:
    """Skip the test where the browser, its driver, or the bundler is missing."""
    if CHROMIUM is None:
        pytest.skip("no chromium here; Debian: apt-get install chromium")
    if not (WEB / "node_modules/esbuild").is_dir():
        pytest.skip(f"no node_modules here; run npm ci in {WEB}")
    pytest.importorskip(
        "playwright.sync_api",
        reason="playwright, which drives the browser, is not installed",
    )


def built_page(folder: Path) -> Path:
    """Write the page with the engine of the tests, and a policy as strict as that of an exported page."""
    bundle = folder / "mock.js"
    command = [
        WEB / "node_modules/.bin/esbuild",
        "src/page/mock/mock.ts",
        "--bundle",
        "--format=iife",
        "--target=es2022",
        "--charset=utf8",
        f"--outfile={bundle}",
        "--log-level=warning",
    ]
    subprocess.run(command, cwd=WEB, check=True)
    script = bundle.read_text(encoding="utf-8")
    style = (WEB / "src/page/style.css").read_text(encoding="utf-8")
    html = (WEB / "src/page/index.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; "
        f"style-src '{_digest(style)}'; img-src data: blob:"
    )
    parts = {
        "<!-- policy -->": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "<!-- style -->": f"<style>{style}</style>",
        "<!-- script -->": f"<script>{script}</script>",
    }
    for place, part in parts.items():
        assert html.count(place) == 1
        html = html.replace(place, part)
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    return page


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


class MockPage:
    """The page in a tab; a place is x, y in pixels of the image, (0, 0) the corner of the first one."""

    def __init__(self, tab: Any, problems: list[str]) -> None:
        self.tab = tab
        self.problems = problems

    def run(self, script: str, argument: Any = None) -> Any:
        """Evaluate a JavaScript expression of `workspace`, `stage`, `mock` and `argument`."""
        return self.tab.evaluate(
            f"(argument) => {{ const {{ workspace, stage }} = mock; return {script}; }}",
            argument,
        )

    def until(self, script: str) -> None:
        """Wait until an expression of `workspace` is true."""
        end = time.monotonic() + PATIENCE_S
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"waited {PATIENCE_S} s in vain: {script}"
            time.sleep(0.02)
        # what follows a change is drawn in the next frame
        self.tab.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def choose(self, *names: str) -> None:
        """Choose files of these names, whose content the engine does not read."""
        files = [
            {"name": name, "mimeType": "image/png", "buffer": b"x"} for name in names
        ]
        self.tab.set_input_files("#file-input", files)

    def open(self, *names: str) -> None:
        """Choose files, and wait until the first is open."""
        self.choose(*names)
        self.until("workspace.opened && !workspace.task")

    def circles(self) -> list[tuple[int, int, int]]:
        """Return x, y of the centre pixel and the radius of the circles of the open image."""
        found = self.run(f"mock.mockCircles(workspace.current.name, {WIDTH}, {HEIGHT})")
        return [(one["x"], one["y"], one["radius"]) for one in found]

    def on_screen(self, x: float, y: float) -> tuple[float, float]:
        """Return where a place of the image is in the window."""
        at = self.run("stage.view.toScreen(argument)", {"x": x, "y": y})
        box = self.tab.locator("#canvas").bounding_box()
        return box["x"] + at["x"], box["y"] + at["y"]

    def click(self, x: float, y: float, button: str = "left") -> None:
        """Click a place of the image, and wait for the mask."""
        self.tab.mouse.click(*self.on_screen(x, y), button=button)
        self.until("!workspace.labels.draft?.isWaiting")

    def drag(self, *places: tuple[float, float], button: str = "left") -> None:
        """Drag along places of the image, and wait for the mask."""
        self.tab.mouse.move(*self.on_screen(*places[0]))
        self.tab.mouse.down(button=button)
        for place in places[1:]:
            self.tab.mouse.move(*self.on_screen(*place), steps=5)
        self.tab.mouse.up(button=button)
        self.until("!workspace.labels.draft?.isWaiting")

    def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        for key in keys:
            self.tab.keyboard.press(key)
        self.until("true")

    def find_everything(self) -> None:
        """Find every object, and wait until they are measured."""
        self.press("s")
        self.until("!workspace.task && workspace.current.isSearched")
        self.until("workspace.isMeasured && !workspace.isMeasuring")

    def draft(self) -> npt.NDArray[np.bool_] | None:
        """Return the mask (H, W) that is being drawn."""
        mask = self.run(f"({_PLAIN})(workspace.labels.draft?.mask)")
        return None if mask is None else _pixels(mask)

    def objects(self) -> dict[int, npt.NDArray[np.bool_]]:
        """Return the masks (H, W) of the objects of the open image, by number."""
        found = self.run(
            f"workspace.labels.objects.map(({{ number, mask }}) => [number, ({_PLAIN})(mask)])"
        )
        return {number: _pixels(mask) for number, mask in found}

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return self.tab.locator(selector).inner_text()

    def save(self, button: str, folder: Path) -> Path:
        """Press a button that saves; returns the downloaded file."""
        with self.tab.expect_download() as download:
            self.tab.click(button)
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path


_PLAIN = "(mask) => mask && ({ ...mask, inside: [...mask.inside] })"


def _pixels(mask: dict[str, Any]) -> npt.NDArray[np.bool_]:
    pixels = np.zeros((HEIGHT, WIDTH), np.bool_)
    rows = slice(mask["y"], mask["y"] + mask["height"])
    columns = slice(mask["x"], mask["x"] + mask["width"])
    inside = np.array(mask["inside"], np.bool_)
    pixels[rows, columns] = inside.reshape(mask["height"], mask["width"])
    return pixels


def disc(circle: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return the pixels (H, W) of a circle of `MockPage.circles`."""
    x, y, radius = circle
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.hypot(columns - x, rows - y) <= radius


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; yields it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@contextmanager
def opened_page(
    browser: Any, page: Path, kind: str, **options: Any
) -> Iterator[MockPage]:
    """Open the page in a tab of its own, without a network; it may have no error at the end.

    Args:
        browser: of `chromium`.
        page: of `built_page`.
        kind: "thermal", without classes, or "classes".
        **options: of playwright's `new_context`, such as `viewport`.
    """
    context = browser.new_context(offline=True, **options)
    tab = context.new_page()
    problems: list[str] = []
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("console", lambda said: said.type == "error" and problems.append(said.text))
    tab.goto(f"{page.as_uri()}#{kind}")
    shown = MockPage(tab, problems)
    shown.until("workspace.backend")
    yield shown
    assert not problems
    context.close()
