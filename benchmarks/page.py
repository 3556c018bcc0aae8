"""Compare exported web pages with simmat-runtime in what they read and predict, and measure their size and time.

    python benchmarks/page.py runs/thermal=DATA/images runs/gray=DATA/images … [--images 4] [--large 4000]

Each RUN=FOLDER is exported (lite takes 10 s) and opened in Debian's Chromium from file://, with the network off. The
images of the folder are read by the page and by SimMAT: the largest difference of the planes, of the decoder's logits
to a click in the middle, and of the score. Seconds are by the clock, and (in brackets) of the processor in the tab's
process, which others on the machine do not lengthen; compilation of WebAssembly uses several threads. The page is built
with `make page`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import simmat_runtime
from measuring import parser_of
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from simmat_plugin_export.export import export
from simmat_plugin_export.html import write_page

import simmat

WEB = Path(__file__).parents[1] / "plugins/simmat-plugin-export/web"
OPEN = """async () => {
  const image = await simmatEngine.open([...document.getElementById("file").files], {});
  const planes = image.planes.map((plane) => {
    let sum = 0, missing = 0;
    for (const value of plane) { if (Number.isNaN(value)) missing++; else sum += value; }
    return [sum, missing];
  });
  return { width: image.width, height: image.height, planes, warnings: image.warnings };
}"""
LOGITS = """async ([x, y]) => {
  const { values, score } = await simmatEngine.logits({ points: [{ x, y, onObject: true }] });
  return { values: [...values], score };
}"""


class Clock:
    """Seconds since the last lap, by the clock and of the processor in the tab's process."""

    def __init__(self) -> None:
        self.lap()

    def lap(self) -> str:
        """Return the seconds since the last lap."""
        now, used = time.perf_counter(), _tab_seconds()
        before = getattr(self, "_before", (now, used))
        self._before = now, used
        return f"{now - before[0]:.2f} s ({used - before[1]:.2f})"


def _tab_seconds() -> float:
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                total += sum(process.cpu_times()[:2])
        except psutil.Error:
            continue
    return total


def main() -> None:
    """Print a row for each image, and the times of each page."""
    parser = parser_of(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN=FOLDER")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--large", type=int, default=0)
    options = parser.parse_args()
    shown = json.loads((WEB / "build" / "page.json").read_text(encoding="utf-8"))
    print("| run | image | planes | logits | score |\n|---|---|---|---|---|")
    times = []
    for item in options.runs:
        run, _, images = item.partition("=")
        with tempfile.TemporaryDirectory() as folder:
            times.append(_compare(run, Path(images), Path(folder), shown, options))
    for rows in times:
        print("\n" + "\n".join(rows))


def _compare(
    run: str, images: Path, folder: Path, shown: Any, options: argparse.Namespace
) -> list[str]:
    predictor = simmat.load(run, device="cpu")
    assert predictor.bundle is not None
    export(predictor.bundle, folder / "exported")
    size = write_page(
        predictor.bundle, folder / "exported", folder / "model.html", shown=shown
    )
    runtime = simmat_runtime.load(folder / "exported", threads=1)
    files = sorted(one for one in images.iterdir() if one.is_file())
    files = files[:: max(len(files) // options.images, 1)][: options.images]
    rows = [f"{run}: page of {size / 1e6:.1f} MB"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_context(offline=True).new_page()
        page.goto("about:blank")
        clock = Clock()
        page.goto((folder / "model.html").as_uri())
        rows.append(f"page parsed: {clock.lap()}")
        page.evaluate("simmatEngine.start()")
        rows.append(f"graphs loaded: {clock.lap()}")
        page.evaluate(
            "document.body.append(Object.assign(document.createElement('input'), {type: 'file', id: 'file'}))"
        )
        for number, file in enumerate(files):
            # two numbers of each plane, since playwright would take seconds to return every value
            _print_row(run, page, predictor, runtime, file, rows, timed=number == 0)
        height, width = runtime.size_hw
        clock.lap()
        found = page.evaluate("simmatEngine.everything().then((found) => found.length)")
        rows.append(
            f"everything in {width}x{height}: {clock.lap()}, {found} objects; runtime {len(runtime.everything())}"
        )
        if options.large:
            rows += _large(page, files[0], folder, options.large)
        browser.close()
    return rows


def _print_row(
    run: str,
    page: Page,
    predictor: Any,
    runtime: simmat_runtime.Model,
    file: Path,
    rows: list[str],
    *,
    timed: bool,
) -> None:
    page.set_input_files("#file", str(file))
    clock = Clock()
    opened = page.evaluate(OPEN)
    seconds = clock.lap()
    x, y = opened["width"] // 2, opened["height"] // 2
    found = page.evaluate(LOGITS, [x, y])
    if timed:
        rows.append(f"image opened: {seconds}, first mask: {clock.lap()}")
        for _ in range(2):
            page.evaluate(
                "([x, y]) => simmatEngine.predict({points: [{x, y, onObject: true}]}).then(() => 0)",
                [x, y],
            )
            rows.append(f"click: {clock.lap()}")
    image = predictor.image_loader.load(file, ())
    planes = np.where(image.valid, image.data, np.float32(np.nan))
    runtime.set_image(planes)
    ours = runtime.predict([(x, y)])
    logits = np.asarray(found["values"], np.float32).reshape(ours.low_res_logits.shape)
    differences = [
        abs(total - float(np.nansum(plane, dtype=np.float64)))
        + abs(missing - int(np.isnan(plane).sum()))
        for plane, (total, missing) in zip(planes, opened["planes"], strict=True)
    ]
    print(
        f"| {Path(run).name} | {file.name} | {max(differences):.2g} | "
        f"{np.abs(logits - ours.low_res_logits).max():.2g} | {abs(ours.score - found['score']):.2g} |",
        flush=True,
    )


def _large(page: Page, file: Path, folder: Path, side: int) -> list[str]:
    """Measure an image of side x side pixels, tiled from a small one."""
    with Image.open(file) as small:
        values = np.asarray(small)
    repeats = [-(-side // length) for length in values.shape[:2]]
    tiled = np.tile(values, [*repeats, 1][: values.ndim])[:side, :side]
    Image.fromarray(tiled).save(folder / "large.png")
    page.set_input_files("#file", str(folder / "large.png"))
    clock = Clock()
    page.evaluate(OPEN)
    rows = [f"{side}x{side} opened: {clock.lap()}"]
    page.evaluate(LOGITS, [side // 2, side // 2])
    rows.append(f"{side}x{side} click: {clock.lap()}")
    found = page.evaluate("simmatEngine.everything().then((found) => found.length)")
    rows.append(f"{side}x{side} everything: {clock.lap()}, {found} objects")
    return rows


if __name__ == "__main__":
    main()
