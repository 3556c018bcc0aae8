"""The page of an exported model beside simmat-runtime: the same logits, and how long it takes.

    python benchmarks/page.py RUN IMAGES [RUN IMAGES ...] [--files 4] [--large] [--json FILE]

Each RUN, of one sensor, is exported as a page, which opens from the disk in headless Chromium without a network. Of
IMAGES, a folder, some files are opened in it; the logits of a click in the middle are compared with those of
simmat-runtime on the values that SimMAT reads from the same file. Seconds by the clock: `start` until the model is
loaded, `open` until an image is ready for clicks, `click`, `everything`; the first ones of a page are given apart,
because a browser compiles WebAssembly then. --large also opens a made image of 4000 x 4000 and asks for every object.
Needs the built page (`make page`), Debian's chromium, and playwright.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import simmat_runtime
from playwright.sync_api import Page, sync_playwright
from simmat_plugin_export import html
from simmat_plugin_export.export import export

import simmat
from simmat.io.files import atomic_write_json
from simmat.predictor import Predictor

TESTING_PAGE = (
    Path(__file__).parents[1] / "plugins/simmat-plugin-export/web/build/page.json"
)
"""The engine without anything to see; `make page` writes it, too."""
LARGE = 4000
OPEN = """async () => {
  const begin = performance.now();
  const image = await simmatEngine.open([...document.getElementById("file").files], {});
  return { seconds: (performance.now() - begin) / 1000, width: image.width, height: image.height };
}"""
CLICK = """async ([x, y]) => {
  const prompt = { points: [{ x, y, onObject: true }] };
  const begin = performance.now();
  await simmatEngine.predict(prompt);
  const seconds = (performance.now() - begin) / 1000;
  const { values } = await simmatEngine.logits(prompt);
  return { seconds, logits: [...values] };
}"""
EVERYTHING = """async () => {
  const begin = performance.now();
  const found = await simmatEngine.everything();
  return { seconds: (performance.now() - begin) / 1000, found: found.length };
}"""


@dataclass
class Measured:
    """What was measured of a page; seconds by the clock."""

    modality: str
    size_mb: float
    files: int
    difference: float
    start_s: float
    first_open_s: float
    first_click_s: float
    open_s: float
    click_s: float
    everything_s: float
    everything_found: int
    large_open_s: float | None = None
    large_everything_s: float | None = None
    large_found: int | None = None


def open_file(tab: Page, file: Path) -> dict[str, Any]:
    """Open a file in the page."""
    tab.set_input_files("#file", file)
    found: dict[str, Any] = tab.evaluate(OPEN)
    return found


def expected(
    predictor: Predictor, model: simmat_runtime.Model, file: Path
) -> tuple[tuple[float, float], np.ndarray]:
    """Return the click in the middle of an image, and the runtime's logits."""
    image = predictor.set_image(file)
    planes = np.where(image.valid, image.data, np.nan).astype(np.float32)
    model.set_image(planes)
    height, width = model.size_hw
    click = (float(width // 2), float(height // 2))
    return click, model.predict(points=[click]).low_res_logits


def measure(
    tab: Page, run: Path, files: Sequence[Path], work: Path, large: bool
) -> Measured:
    """Export a run, open its page, and compare."""
    predictor = simmat.load(run, device="cpu")
    bundle = predictor.bundle
    assert bundle is not None
    folder = work / "exported"
    page = work / "page.html"
    export(bundle, folder)
    size = html.write_page(
        bundle, folder, page, shown=json.loads(TESTING_PAGE.read_text())
    )
    model = simmat_runtime.load(folder)
    begin = time.perf_counter()
    tab.goto(page.as_uri())
    tab.evaluate("simmatEngine.start()")
    start = time.perf_counter() - begin
    tab.evaluate(
        """() => {
          const input = document.createElement("input");
          input.type = "file";
          input.id = "file";
          document.body.append(input);
        }"""
    )
    opened, clicks, everything = [], [], []
    difference = 0.0
    found: dict[str, Any] = {}
    for file in files:
        click, logits = expected(predictor, model, file)
        opened.append(open_file(tab, file)["seconds"])
        answer = tab.evaluate(CLICK, click)
        clicks.append(answer["seconds"])
        theirs = np.reshape(answer["logits"], logits.shape)
        difference = max(difference, float(np.abs(theirs - logits).max()))
        found = tab.evaluate(EVERYTHING)
        everything.append(found["seconds"])
    result = Measured(
        modality=bundle.spec.modality,
        size_mb=size / 1e6,
        files=len(files),
        difference=difference,
        start_s=start,
        first_open_s=opened[0],
        first_click_s=clicks[0],
        open_s=median(opened[1:]),
        click_s=median(clicks[1:]),
        everything_s=median(everything[1:]),
        everything_found=found["found"],
    )
    if large:
        file = work / "large.npy"
        image = predictor.set_image(files[0])
        repeats = -(-LARGE // min(image.size_hw))
        tiled = np.tile(image.data, (1, repeats, repeats))[:, :LARGE, :LARGE]
        np.save(file, tiled)
        result.large_open_s = open_file(tab, file)["seconds"]
        answer = tab.evaluate(EVERYTHING)
        result.large_everything_s = answer["seconds"]
        result.large_found = answer["found"]
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN IMAGES")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if len(given.runs) % 2:
        parser.error("give a folder of images behind each run")
    results = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        for run, images in zip(given.runs[::2], given.runs[1::2], strict=True):
            files = sorted(images.iterdir())[: given.files]
            context = browser.new_context(offline=True)
            tab = context.new_page()
            tab.set_default_timeout(600_000)
            with tempfile.TemporaryDirectory() as work:
                done = measure(tab, run, files, Path(work), given.large)
            context.close()
            results.append(asdict(done))
            print(json.dumps(results[-1]), flush=True)
        browser.close()
    if given.json:
        atomic_write_json(given.json, results)


if __name__ == "__main__":
    main()
