"""Measure how many clicks label an object through `simmat annotate`, and how long a click takes.

    python benchmarks/annotate_clicks.py --bundle RUN [--data DATA/fluorescence-nuclei] [--modality gray] [--images 3]

The real server labels a copy of some test images, over HTTP as the page does. An object is clicked at the centre of
its true mask, then at the centre of its largest error, until the IoU of the shown mask is at least --iou or there were
--most clicks; then it is accepted. Printed: clicks an object, the share that reached the IoU, the median time from a
click to its mask after the image was encoded, and whether the masks on disk are those that were shown.

With --foundation NAME instead of --bundle, the untuned model.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.data.card import DataCard
from simmat.data.clicks import center_click, corrective_click
from simmat.data.instances import Instance, label_from_mask, read_mask

SHARED = Path(os.environ.get("SIMMAT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
COMMAND = "from simmat_plugin_annotate.command import command; command()"


@dataclass(frozen=True)
class Api:
    """Asks a server.

    Attributes:
        address: without a path.
        token: of the session.
    """

    address: str
    token: str

    def ask(self, path: str, body: Any = None) -> Any:
        """Return the json of a GET, or of a POST where there is a body."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.address + path, data, headers)) as answer:
            return json.load(answer)


@contextmanager
def server(folder: Path, arguments: list[str]) -> Iterator[Api]:
    """Run `simmat annotate` while the block runs."""
    token = secrets.token_urlsafe(16)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(folder), "--no-browser", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SIMMAT_ANNOTATE_TOKEN": token},
    )
    try:
        assert process.stdout is not None
        address = next((line for line in process.stdout if line.startswith("http://")), None)
        if address is None:
            sys.exit("the server did not start")
        yield Api(address.split("/?")[0], token)
    finally:
        process.terminate()
        process.wait()


def copied(data: Path, folder: Path, count: int) -> dict[str, Path]:
    """Copy the first test images without their masks; return name -> true mask."""
    (folder / "images").mkdir(parents=True)
    truth: dict[str, Path] = {}
    with (data / "manifest.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "test" and len(truth) < count:
                image = data / row["image"]
                shutil.copyfile(image, folder / "images" / f"{row['id']}{image.suffix}")
                truth[row["id"]] = data / row["mask"]
    return truth


def mask_of(document: dict[str, Any] | None, size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the (H, W) mask of an answer."""
    full = np.zeros(size_hw, np.bool_)
    if document is not None:
        x0, y0, x1, y1 = document["box"]
        runs = document["runs"]
        full[y0:y1, x0:x1] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(y1 - y0, x1 - x0)
    return full


def iou(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks."""
    return float((one & other).sum() / max((one | other).sum(), 1))


def label_object(
    api: Api, key: str, truth: Instance, size_hw: tuple[int, int], options: argparse.Namespace, times: list[float]
) -> tuple[int, float, dict[str, Any] | None]:
    """Click an object; return the number of clicks, the IoU and the mask that was shown last."""
    whole = truth.mask(size_hw)
    points = [[*center_click(truth), 1]]
    while True:
        start = time.perf_counter()
        shown = api.ask(f"/api/images/{key}/predict", {"points": points})["masks"][0]["mask"]
        times.append(time.perf_counter() - start)
        mask = mask_of(shown, size_hw)
        value = iou(mask, whole)
        if value >= options.iou or len(points) >= options.most:
            return len(points), value, shown
        found = corrective_click(whole, mask)
        if found is None:
            return len(points), value, shown
        points.append([*found[0], found[1]])


def main() -> None:
    """Label, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--foundation")
    parser.add_argument("--data", type=Path, default=SHARED / "fluorescence-nuclei")
    parser.add_argument("--modality", default="gray")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--objects", type=int, default=20, help="objects labelled at most, over all images")
    parser.add_argument("--smallest", type=int, default=30, help="smallest object in pixels")
    parser.add_argument("--most", type=int, default=5, help="clicks an object at most")
    parser.add_argument("--iou", type=float, default=0.8)
    options = parser.parse_args()
    if (options.bundle is None) == (options.foundation is None):
        parser.error("give --bundle or --foundation")
    model = ["--bundle", str(options.bundle)] if options.bundle else ["--foundation", options.foundation]
    clicks: list[int] = []
    values: list[float] = []
    times: list[float] = []
    equal = True
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "set"
        truths = copied(options.data, folder, options.images)
        each = -(-options.objects // max(len(truths), 1))
        with server(folder, ["--modality", options.modality, *model]) as api:
            keys = {image["name"]: image["key"] for image in api.ask("/api/images")["images"]}
            for name, path in truths.items():
                label = label_from_mask(read_mask(path), DataCard(regions="instances", min_region=options.smallest))
                key = keys[name]
                api.ask(f"/api/images/{key}/encode", {})
                version = 0
                for truth in label.regions[: min(each, options.objects - len(clicks))]:
                    count, value, shown = label_object(api, key, truth, label.size_hw, options, times)
                    clicks.append(count)
                    values.append(value)
                    if shown is not None:
                        edit = {"op": "add", "mask": shown, "overlap": "take"}
                        change = api.ask(f"/api/images/{key}/edits", {"version": version, "edits": [edit]})
                        version = change["version"]
                drawn = np.zeros(label.size_hw, np.int64)
                for one in api.ask(f"/api/images/{key}")["objects"]:
                    drawn[mask_of(one["mask"], label.size_hw)] = one["id"]
                equal &= bool(np.array_equal(read_mask(folder / "masks" / f"{name}.png"), drawn))
    reached = sum(value >= options.iou for value in values)
    print(f"{len(clicks)} objects in {len(truths)} images of {options.data.name}, model {model[1]}")
    print(f"clicks an object: {statistics.mean(clicks):.2f}; {reached} of {len(values)} reached IoU {options.iou:g}")
    print(f"IoU of the accepted masks: mean {statistics.mean(values):.3f}")
    print(f"click to mask: median {1000 * statistics.median(times):.0f} ms of {len(times)}")
    print(f"masks on disk are those shown: {'yes' if equal else 'NO'}")


if __name__ == "__main__":
    main()
