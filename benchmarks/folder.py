"""Measure what a folder of small images costs, as a ratio to the bare forward passes of the same run.

    python benchmarks/folder.py [--images 300] [--ask semantic,everything] [--bundle DIR] [--json FILE]

Images of 256 x 256 pixels in 7 bands, mosaics of the tiles of `benchmarks/raster.py`, with its bundle. Each question is
a fresh process of one torch thread that runs `simmat predict FOLDER` with the files it writes by default, and times the
calls of its network (encode, dense head, decode). Time counts from the first image on; loading the model is start-up.
Files are written by a second thread, so there are three ratios to the forward passes: of the wall, which others on the
machine change; of the CPU time of the thread that segments, which is the wall's where a second core is free; and of the
CPU time of both.

Seen on 2 busy cores (AMD EPYC): semantic 1.17, 1.16 and 1.54 times (107 ms of forward passes an image); everything, of
40 images, 1.06, 1.06 and 1.18 times (342 ms).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import Line, in_own_process, parser_of, report
from raster import BANDS, MEASURE, TILE, source_tiles, spent_in_network, train_bundle


def write_images(folder: Path, count: int) -> None:
    """Write mosaics of 2 x 2 tiles as GeoTIFF."""
    import rasterio

    folder.mkdir(parents=True, exist_ok=True)
    tiles, rng = source_tiles(), np.random.default_rng(1)
    profile = {
        "driver": "GTiff",
        "count": BANDS,
        "height": 2 * TILE,
        "width": 2 * TILE,
        "dtype": "int16",
    }
    place = {
        "crs": "EPSG:32632",
        "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_500_000),
    }
    for number in range(count):
        a, b, c, d = (tiles[index][0] for index in rng.integers(0, len(tiles), 4))
        with rasterio.open(
            folder / f"i{number:03d}.tif", "w", **profile, **place, compress="deflate"
        ) as file:
            file.write(
                np.concatenate(
                    [np.concatenate([a, b], axis=2), np.concatenate([c, d], axis=2)],
                    axis=1,
                )
            )


def measure(bundle: str, images: str, ask: str, out: str) -> None:
    """Segment a folder; print what it took from the first image on as json."""
    from simmat.cli import run
    from simmat.cli.predict import ConsoleProgress

    spent = spent_in_network(time.thread_time)
    begin: list[float] = []
    inner = ConsoleProgress.started

    def started(*args: object) -> object:
        begin[:] = time.perf_counter(), time.thread_time(), time.process_time()
        return inner(*args)  # type: ignore[arg-type]

    ConsoleProgress.started = started  # type: ignore[assignment,method-assign]
    code = run(["predict", bundle, images, f"--{ask}", "--device", "cpu", "--out", out])
    ends = time.perf_counter(), time.thread_time(), time.process_time()
    total = [end - start for end, start in zip(ends, begin, strict=True)]
    print(json.dumps({"code": code, "spent": spent, "total": total}))


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--ask", default="semantic,everything")
    parser.add_argument("--bundle", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bundle = given.bundle or train_bundle(folder)
        write_images(folder / "images", given.images)
        lines = []
        print(f"{given.images} images of {2 * TILE} x {2 * TILE} x {BANDS}")
        for ask in given.ask.split(","):
            call = (MEASURE, bundle, folder / "images", ask, folder / ask)
            found = in_own_process(__file__, *call, OMP_NUM_THREADS="1")
            (wall, own, both), spent = found["total"], found["spent"]
            walls, cpu = (
                sum(times[kind] for times in spent.values()) for kind in (0, 1)
            )
            shown = f"{cpu / given.images * 1000:.0f} ms CPU of forward passes an image"
            print(f"{ask}: exit code {found['code']}, {shown}\n")
            for name, total, bare in (
                ("wall", wall, walls),
                ("CPU of its thread", own, cpu),
                ("CPU", both, cpu),
            ):
                path = f"predict a folder of {given.images}, {ask}, {name}"
                lines.append(Line(path, "s", [total], "forward passes", [bare]))
    report(lines, given.json)


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURE]:
        measure(*sys.argv[2:])
    else:
        main()
