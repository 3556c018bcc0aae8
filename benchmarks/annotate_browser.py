"""Label objects in the annotator's page with a driven browser: clicks an object, masks on disk, click to mask in ms.

    python benchmarks/annotate_browser.py --data DIR [--bundle RUN] [--split test] [--objects 20] [--iou 0.8]
        [--alternatives] [--picture PNG]

DIR is a gray data set with a manifest.csv; the images of a split are copied, its masks are the truth. Objects are drawn
at random, an image each while there are enough. The first click is the centre of the object; while the mask that the
page shows is worse than --iou, the next one is the centre of its largest error, left where something is missing and
right where there is too much. With --alternatives the key for the next alternative mask is pressed before another
click, once for each mask that the model has; keys are counted by themselves. Then Enter. Without --bundle the model is
the untuned `lite`.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from simmat.data.instances import center_click, corrective_click, region_from_mask

sys.path.insert(
    0, str(Path(__file__).parents[1] / "plugins/simmat-plugin-annotate/tests")
)
from browser import Server, Tab, browser, same_on_disk, until


def drawn(
    data: Path, split: str, count: int, smallest_px: int, rng: np.random.Generator
) -> list[tuple[str, Path, int]]:
    """Return (id, mask file, value) of objects of at least `smallest_px` pixels, spread over the images of a split."""
    with (data / "manifest.csv").open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["split"] == split]
    ranked = []
    for row in rng.permutation(np.array(rows, dtype=object)):
        values, areas = np.unique(
            np.asarray(Image.open(data / row["mask"])), return_counts=True
        )
        fit = [
            int(value)
            for value, area in zip(values, areas, strict=True)
            if value and area >= smallest_px
        ]
        ranked += [
            (turn, row["id"], data / row["mask"], int(value))
            for turn, value in enumerate(rng.permutation(fit))
        ]
    # the first of each image, then the second of each
    ranked.sort(key=lambda item: item[0])
    return sorted(item[1:] for item in ranked[:count])


def overlap(mask: np.ndarray | None, truth: np.ndarray) -> float:
    """Return the IoU of the mask that is shown, which may be none, with the truth."""
    return 0.0 if mask is None else float((mask & truth).sum() / (mask | truth).sum())


def label(
    tab: Tab, truth: np.ndarray, options: argparse.Namespace
) -> tuple[int, int, float, list[float]]:
    """Label one object; returns clicks, keys for alternatives, IoU of what was accepted, and times to a mask in ms."""
    rows, columns = np.nonzero(truth)
    box = {
        "x": int(columns.min()),
        "y": int(rows.min()),
        "w": int(np.ptp(columns)) + 1,
        "h": int(np.ptp(rows)) + 1,
    }
    tab.run("(main.stage.view.show(argument), main.stage.redraw())", box)
    until(tab.drawn, "the tiles are drawn")
    (x, y), positive, times, keys = center_click(truth), 1, [], 0
    for clicks in range(1, options.most + 1):
        tab.click(x + 0.5, y + 0.5, button="left" if positive else "right")
        until(
            lambda: tab.page.evaluate("document.body.dataset.clickMs"),
            "the mask is drawn",
        )
        times.append(float(tab.page.evaluate("document.body.dataset.clickMs")))
        tab.page.evaluate("delete document.body.dataset.clickMs")
        for _ in range(
            tab.run("main.app.draft.state.masks.length") if options.alternatives else 0
        ):
            if overlap(tab.drafted(), truth) >= options.iou:
                break
            tab.press("a")
            keys += 1
        mask = tab.drafted()
        drafted = None if mask is None else region_from_mask(mask, None)
        following = corrective_click(
            region_from_mask(truth, None), drafted, np.zeros_like(truth)
        )
        if (
            overlap(mask, truth) >= options.iou
            or following is None
            or clicks == options.most
        ):
            break
        (x, y), positive = following
    if mask is None:  # the model answered nothing, for all clicks
        tab.press("Escape")
    else:
        tab.saves("Enter")
    return clicks, keys, overlap(mask, truth), times


def main() -> None:
    """Run the benchmark and print what it found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument(
        "--smallest",
        type=int,
        default=30,
        help="pixels of the smallest object  [default: 30]",
    )
    parser.add_argument("--iou", type=float, default=0.8)
    parser.add_argument(
        "--most", type=int, default=5, help="clicks an object at most  [default: 5]"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--alternatives",
        action="store_true",
        help="look at the model's other masks before a click",
    )
    parser.add_argument("--picture", type=Path, help="screenshot of the last image")
    options = parser.parse_args()

    chosen = drawn(
        options.data,
        options.split,
        options.objects,
        options.smallest,
        np.random.default_rng(options.seed),
    )
    model = (
        ["--bundle", str(options.bundle)]
        if options.bundle
        else ["--foundation", "lite"]
    )
    clicks, keys, ious, times, equal = [], [], [], [], True
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "images").mkdir()
        names = sorted({name for name, _, _ in chosen})
        for name in names:
            shutil.copy(options.data / "images" / f"{name}.png", folder / "images")
        server = Server(folder, "--modality", "gray", *model)
        try:
            with browser() as new_tab:
                tab = new_tab()
                tab.goto(server.address)
                for name in names:
                    tab.open(name)
                    for _, mask, value in (item for item in chosen if item[0] == name):
                        truth = np.asarray(Image.open(mask)) == value
                        used, pressed, iou, took = label(tab, truth, options)
                        said = f"{used} clicks, {pressed} keys, IoU {iou:.2f}"
                        print(
                            f"{name} object {value} ({truth.sum()} px): {said}",
                            flush=True,
                        )
                        clicks.append(used)
                        keys.append(pressed)
                        ious.append(iou)
                        times += took
                    mask = folder / "masks" / f"{name}.png"
                    equal &= (
                        same_on_disk(tab, mask) if mask.exists() else not tab.shown()
                    )
                if options.picture:
                    tab.page.screenshot(path=options.picture)
        finally:
            server.kill()
    reached = sum(iou >= options.iou for iou in ious)
    print(
        f"{len(clicks)} objects in {len(names)} images, model {options.bundle or 'lite, untuned'}"
    )
    alternatives = (
        f", keys for alternatives: {statistics.mean(keys):.2f}"
        if options.alternatives
        else ""
    )
    print(f"clicks an object: {statistics.mean(clicks):.2f}{alternatives}")
    print(f"IoU {options.iou} reached: {reached} of {len(ious)}")
    print(f"masks on disk equal to those shown: {'yes' if equal else 'NO'}")
    print(
        f"click to mask drawn, median of {len(times)}: {statistics.median(times):.0f} ms"
    )


if __name__ == "__main__":
    main()
