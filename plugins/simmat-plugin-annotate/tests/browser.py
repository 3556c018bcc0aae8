"""Drive the annotator's page in Debian's Chromium, against the real server in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

TOKEN = "token-of-the-tests"
PATIENCE_S = 60.0
START = "import sys; from simmat_plugin_annotate.commands import annotate; annotate.main(sys.argv[1:])"
RUNS = "(await import('/static/runs.js')).runsOf"
CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser")
        if (found := shutil.which(name))
    ),
    None,
)


def need_browser() -> None:
    """Skip the test where the browser or its driver is missing."""
    if CHROMIUM is None:
        pytest.skip("no chromium here; Debian: apt-get install chromium")
    pytest.importorskip(
        "playwright.sync_api",
        reason="playwright, which drives the browser, is not installed",
    )


def until(check: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Return what `check` returns as soon as it is true.

    Raises:
        AssertionError: it is not within `patience_s`.
    """
    end = time.monotonic() + patience_s
    while not (found := check()):
        assert time.monotonic() < end, f"waited {patience_s} s in vain: {what}"
        time.sleep(0.02)
    return found


class Server:
    """`simmat annotate` on a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.folder = folder
        self.command = [
            sys.executable,
            "-c",
            START,
            str(folder),
            *options,
            "--port",
            str(self.port),
            "--no-browser",
        ]
        self.address = f"http://127.0.0.1:{self.port}/?token={TOKEN}"
        self.start()

    def start(self) -> None:
        """Start it, or start it again, and wait until it listens."""
        environment = os.environ | {
            "SIMMAT_ANNOTATE_TOKEN": TOKEN,
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if self.address in line:
                return
        raise AssertionError(
            f"the server ended with {self.process.wait()}: {''.join(lines)}"
        )

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Tab:
    """A tab with the page."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        # A refused request is said by the page; what the browser itself says of it is no problem of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.problems.append(message.text)

    def goto(self, address: str) -> None:
        """Open an address of the page, and wait until its image is drawn and encoded."""
        self.page.goto(address)
        self.page.wait_for_url(lambda url: "token=" not in url)
        self.ready()

    def open(self, name: str) -> None:
        """Open an image by its name, through the list."""
        key = self.run(
            "main.lists.images.find((image) => image.name === argument).key", name
        )
        self.page.click(f'button[data-row="{key}"]')
        until(lambda: self.state()["key"] == key, f"{name} is open")
        self.ready()

    def ready(self) -> None:
        """Wait until the image is drawn and encoded."""
        until(lambda: self.state().get("ready"), "the image is encoded")
        until(self.drawn, "the tiles are drawn")

    def state(self) -> dict[str, Any]:
        """Return what the page says of itself: key, version, objects, draft, waiting, walk, selected, ready, gone."""
        return self.page.evaluate("JSON.parse(document.body.dataset.state ?? '{}')")

    def drawn(self) -> bool:
        """Return whether no tile is missing."""
        return self.page.evaluate("document.body.dataset.missing") == "0"

    def run(self, script: str, argument: Any = None) -> Any:
        """Evaluate a JavaScript expression of the page's module as `main` and of `argument`."""
        return self.page.evaluate(
            f"async (argument) => {{ const main = await import('/static/main.js'); return {script}; }}",
            argument,
        )

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the place on the screen of an image position (edges at whole numbers)."""
        self.page.bring_to_front()
        script = (
            "(() => { const r = main.stage.canvas.getBoundingClientRect();"
            " const at = main.stage.view.toScreen(argument); return [at.x + r.left, at.y + r.top]; })()"
        )
        return tuple(self.run(script, {"x": x, "y": y}))

    def click(self, x: float, y: float, button: str = "left") -> None:
        """Click an image position and wait for the mask."""
        self.page.mouse.click(*self.place(x, y), button=button)
        until(lambda: not self.state()["waiting"], "the mask of a click")

    def drag(self, path: Sequence[tuple[float, float]], button: str = "left") -> None:
        """Drag along image positions, and wait for the mask where there is one to come."""
        self.page.mouse.move(*self.place(*path[0]))
        self.page.mouse.down(button=button)
        for x, y in path[1:]:
            self.page.mouse.move(*self.place(x, y), steps=4)
        self.page.mouse.up(button=button)
        until(lambda: not self.state()["waiting"], "the mask of a box")

    def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        for key in keys:
            self.page.keyboard.press(key)

    def saves(self, *keys: str) -> None:
        """Press keys that change what is on disk, and wait until it is there."""
        before = self.state()["version"]
        self.press(*keys)
        until(
            lambda: self.state()["version"] > before or self.text(".message"),
            f"{keys} are saved",
        )
        until(
            lambda: self.state()["version"] > before,
            f"the page says: {self.text('#messages')}",
            5,
        )

    def drafted(self) -> npt.NDArray[np.bool_] | None:
        """Return the mask (H, W) that is being drawn, or None."""
        return _pixels(
            self.run(f"main.app.draft?.mask ? {RUNS}(main.app.draft.mask) : null"),
            self.size_hw(),
        )

    def size_hw(self) -> tuple[int, int]:
        """Return the image's (height, width)."""
        return tuple(self.run("main.app.image.size_hw"))

    def shown(self) -> dict[int, npt.NDArray[np.bool_]]:
        """Return the masks (H, W) of the objects that are shown, by id."""
        runs = self.run(
            f"((runsOf) => [...main.app.labels.objects.values()].map(({{ id, mask }}) => [id, runsOf(mask)]))({RUNS})"
        )
        return {number: _pixels(mask, self.size_hw()) for number, mask in runs}

    def classes(self) -> dict[int, int | None]:
        """Return the classes of the objects that are shown, by id."""
        return dict(
            self.run(
                "[...main.app.labels.objects.values()].map((object) => [object.id, object.class])"
            )
        )

    def pixel(self, x: float, y: float) -> list[int]:
        """Return the sRGB that is drawn at an image position."""
        script = (
            "(() => { const at = main.stage.view.toScreen(argument);"
            " return [...main.stage.canvas.getContext('2d').getImageData(at.x, at.y, 1, 1).data].slice(0, 3); })()"
        )
        self.page.evaluate("new Promise(requestAnimationFrame)")
        return self.run(script, {"x": x, "y": y})

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return " ".join(self.page.locator(selector).all_inner_texts())


def _pixels(mask: dict[str, list[int]] | None, size_hw: tuple[int, int]) -> Any:
    if mask is None:
        return None
    x0, y0, x1, y1 = mask["box"]
    values = np.arange(len(mask["runs"])) % 2 == 1
    pixels = np.zeros(size_hw, dtype=np.bool_)
    pixels[y0:y1, x0:x1] = np.repeat(values, mask["runs"]).reshape(y1 - y0, x1 - x0)
    return pixels


@contextmanager
def browser(width: int = 1280, height: int = 720) -> Iterator[Callable[[], Tab]]:
    """Start Chromium; yields a function that opens a tab. No tab may have an error at the end."""
    from playwright.sync_api import sync_playwright

    tabs = []
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        context = chromium.new_context(viewport={"width": width, "height": height})

        def tab() -> Tab:
            tabs.append(Tab(context.new_page()))
            return tabs[-1]

        try:
            yield tab
            assert not [problem for tab in tabs for problem in tab.problems]
        finally:
            chromium.close()


def blobs(
    size: int = 96, count: int = 6
) -> tuple[npt.NDArray[np.uint8], list[tuple[int, int]]]:
    """Return a gray image (size, size) with bright discs, and their centres as (x, y)."""
    y, x = np.mgrid[:size, :size]
    image = np.random.default_rng(0).integers(20, 34, (size, size)).astype(np.uint8)
    side = int(np.ceil(np.sqrt(count)))
    centres = [
        (int((i % side + 0.5) * size / side), int((i // side + 0.5) * size / side))
        for i in range(count)
    ]
    for i, (cx, cy) in enumerate(centres):
        image[(x - cx) ** 2 + (y - cy) ** 2 <= (size / side / 3.2) ** 2] = 150 + 12 * i
    return image, centres


def folder_of(
    root: Path, names: Sequence[str], size: int = 96
) -> list[tuple[int, int]]:
    """Write a data set of equal images of `blobs`; returns the centres."""
    image, centres = blobs(size)
    for name in names:
        path = root / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return centres


def same_on_disk(tab: Tab, mask: Path) -> bool:
    """Return whether a mask file holds the objects that the tab shows, pixel by pixel, and nothing else."""
    values = np.asarray(Image.open(mask))
    left = values != 0
    for pixels in tab.shown().values():
        own = np.unique(values[pixels])
        if len(own) != 1 or own[0] == 0 or not np.array_equal(values == own[0], pixels):
            return False
        left &= ~pixels
    return not left.any()
