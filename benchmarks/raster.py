"""Measure what a raster larger than memory costs: forward passes, reading alone, memory and MB/s, all of one run.

    python benchmarks/raster.py [--side 20000] [--ask semantic,everything] [--bundle DIR] [--tile PX] [--out DIR]
                                [--json FILE]

Seven bands of 16 bits, tiled from `shared/data/multispectral-water` where it is there (else from noise), in a GeoTIFF
of deflated blocks. Without --bundle a model with a dense head is trained for a few steps on mosaics of the same tiles;
what it finds does not matter. Each question is a fresh process that runs `simmat predict` and times the calls of its
network (encode, dense head, decode), after it has read all windows once without a network. A run into the same --out
continues.

Seen with OMP_NUM_THREADS=1 on 2 busy cores (AMD EPYC), seconds of CPU, semantic / everything: 1500 px 5.5 / 20.8,
forward passes 80 / 94 %, 0.44 / 0.62 GiB; 4000 px 32.9 / 119.1, 86 / 96 %, 0.66 / 0.86 GiB, reading alone 1.4;
8000 px, semantic, 139.7, 86 %, 0.81 GiB, reading alone 4.8; 20,000 px 924 / 2862, 87 / 95 %, 0.86 / 1.12 GiB, reading
alone 25 to 29, of the wall 1062 / 2895 s, 5.3 / 1.9 MB/s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from measuring import DATA, Line, in_own_process, parser_of, peak_mib, report

WATER = DATA / "multispectral-water"
TILE, BANDS, BLOCK = 128, 7, 512
MEASURE = "--measure"


def source_tiles() -> list[tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]]:
    """Return (7, 128, 128) bands and (128, 128) water masks: real ones, or noise with round ponds."""
    if WATER.is_dir():
        import tifffile
        from PIL import Image

        return [
            (
                np.moveaxis(tifffile.imread(file), -1, 0)[:BANDS].astype(np.int16),
                _mask(Image.open(_mask_of(file))),
            )
            for file in sorted((WATER / "images").glob("*.tif"))
        ]
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:TILE, :TILE]
    tiles = []
    for _ in range(20):
        water = np.zeros((TILE, TILE), np.bool_)
        for cy, cx, radius in rng.integers(
            (10, 10, 8), (TILE - 10, TILE - 10, 25), (3, 3)
        ):
            water |= (y - cy) ** 2 + (x - cx) ** 2 < radius**2
        bands = rng.normal(2000, 300, (BANDS, TILE, TILE)) - 1500 * water
        tiles.append((bands.astype(np.int16), water.astype(np.uint8)))
    return tiles


def _mask_of(file: Path) -> Path:
    return WATER / "masks" / f"{file.stem}.png"


def _mask(image: object) -> npt.NDArray[np.uint8]:
    return (np.asarray(image) > 0).astype(np.uint8)


def write_raster(path: Path, side: int) -> None:
    """Write a GeoTIFF of `side` x `side` pixels, block row by block row."""
    import rasterio

    tiles = source_tiles()
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff",
        "count": BANDS,
        "height": side,
        "width": side,
        "dtype": "int16",
        "crs": "EPSG:32632",
    }
    blocks = {
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "zlevel": 1,
    }
    place = rasterio.Affine(10, 0, 500_000, 0, -10, 5_500_000)
    with rasterio.open(
        path, "w", **profile, **blocks, BIGTIFF="YES", transform=place
    ) as file:
        for y0 in range(0, side, BLOCK):
            rows = []
            for _ in range(BLOCK // TILE):
                chosen = rng.integers(0, len(tiles), -(-side // TILE))
                rows.append(
                    np.concatenate([tiles[index][0] for index in chosen], axis=2)[
                        :, :, :side
                    ]
                )
            strip = np.concatenate(rows, axis=1)[:, : side - y0]
            file.write(
                strip, window=rasterio.windows.Window(0, y0, side, strip.shape[1])
            )


def train_bundle(folder: Path) -> Path:
    """Return a model with a dense head, trained for a few steps on mosaics of 2 x 2 tiles if it is not there yet."""
    bundle = folder / "run/bundle.safetensors"
    if bundle.is_file():
        return bundle
    import rasterio
    from PIL import Image

    tiles, data = source_tiles(), folder / "set"
    rows = ["id,split,image,mask"]
    for name in ("images", "masks"):
        (data / name).mkdir(parents=True, exist_ok=True)
    for number in range(len(tiles) // 2):
        four = [tiles[(2 * number + step) % len(tiles)] for step in range(4)]
        bands, water = (
            np.concatenate(
                [np.concatenate([a, b], axis=-1), np.concatenate([c, d], axis=-1)],
                axis=-2,
            )
            for a, b, c, d in zip(*four, strict=True)
        )
        profile = {
            "driver": "GTiff",
            "count": BANDS,
            "height": 2 * TILE,
            "width": 2 * TILE,
            "dtype": "int16",
        }
        with rasterio.open(data / f"images/m{number}.tif", "w", **profile) as file:
            file.write(bands)
        Image.fromarray(water).save(data / f"masks/m{number}.png")
        rows.append(
            f"m{number},{'val' if number % 5 == 4 else 'train'},images/m{number}.tif,masks/m{number}.png"
        )
    (data / "manifest.csv").write_text("\n".join(rows) + "\n")
    options = "--modality multispectral --regions components --min-region 100 --heads prompt,dense --image-size 256"
    call = [
        sys.executable,
        "-m",
        "simmat",
        "train",
        *options.split(),
        "--steps",
        "40",
        "--no-pictures",
    ]
    call += ["--device", "cpu", "--data", str(data), "--out", str(folder / "run")]
    subprocess.run(call, check=True, capture_output=True)
    return bundle


def measure(bundle: str, raster: str, ask: str, out: str, tile: str) -> None:
    """Read all windows, then segment; print what both took as json."""
    import torch

    import simmat
    from simmat.cli import run

    image = simmat.load(bundle, device="cpu").open_image(raster, tile=int(tile) or None)
    begin = time.perf_counter(), time.process_time()
    for window in image.windows:
        image.reader.read(window)
    reading = time.perf_counter() - begin[0], time.process_time() - begin[1]
    cut = {"windows": len(image.windows), "tile": image.tile}
    del image

    spent = spent_in_network()
    begin = time.perf_counter(), time.process_time()
    formats = "geotiff" if ask == "semantic" else "geotiff,coco,gpkg"
    call = [
        "predict",
        bundle,
        raster,
        f"--{ask}",
        "--format",
        formats,
        "--device",
        "cpu",
        "--out",
        out,
    ]
    code = run([*call, *(["--tile", tile] if int(tile) else [])])
    total = time.perf_counter() - begin[0], time.process_time() - begin[1]
    found = {"code": code, "reading": reading, "spent": spent, "total": total, **cut}
    print(json.dumps(found | {"threads": torch.get_num_threads(), "peak": peak_mib()}))


def spent_in_network(
    cpu: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Time the calls of every network from now on; return part -> seconds of the wall and of a CPU clock."""
    from simmat.model import SimMAT
    from simmat.nn.dense_head import DenseHead

    spent = {"encode": [0.0, 0.0], "dense head": [0.0, 0.0], "decode": [0.0, 0.0]}
    _time_calls(SimMAT, "encode", spent["encode"], cpu)
    _time_calls(DenseHead, "forward", spent["dense head"], cpu)
    _time_calls(SimMAT, "decode", spent["decode"], cpu)
    return spent


def _time_calls(
    owner: type, name: str, spent: list[float], cpu: Callable[[], float]
) -> None:
    """Replace a method by one that adds its seconds, of the wall and of a CPU clock, to `spent`."""
    inner = getattr(owner, name)

    def timed(*args: object, **kwargs: object) -> object:
        begin = time.perf_counter(), cpu()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[0] += time.perf_counter() - begin[0]
            spent[1] += cpu() - begin[1]

    setattr(owner, name, timed)


def main() -> None:
    """Measure and print."""
    parser = parser_of(__doc__, json_file=True)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--ask", default="semantic,everything")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--tile", type=int, default=0, help="0 takes that of training")
    parser.add_argument(
        "--out", type=Path, help="keeps raster and results, and continues with them"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bundle = given.bundle or train_bundle(folder)
        raster = folder / f"raster{given.side}.tif"
        if not raster.exists():
            write_raster(raster, given.side)
        lines = []
        for ask in given.ask.split(","):
            out = folder / f"{ask}{given.side}"
            found = in_own_process(
                __file__, MEASURE, bundle, raster, ask, out, given.tile
            )
            lines.append(line_of(ask, given.side, raster, found))
    report(lines, given.json)


def line_of(ask: str, side: int, raster: Path, found: dict[str, Any]) -> Line:
    """Print one run, and return its CPU time beside that of the forward passes."""
    (wall, cpu), (read_wall, read_cpu), spent = (
        found["total"],
        found["reading"],
        found["spent"],
    )
    ours = [sum(times[kind] for times in spent.values()) for kind in (0, 1)]
    size = side * side * BANDS * 2 / 1e6
    print(
        f"{ask}: {side} x {side} x {BANDS}, {found['windows']} windows of {found['tile']}, ",
        end="",
    )
    print(
        f"{size:.0f} MB in a file of {raster.stat().st_size / 1e6:.0f}, {found['threads']} threads"
    )
    print(
        f"  total            {wall:8.1f} s  {cpu:8.1f} s CPU  {size / wall:6.2f} MB/s  exit code {found['code']}"
    )
    for name, (one, other) in {**spent, "forward passes": ours}.items():
        print(
            f"  {name:<16} {one:8.1f} s  {other:8.1f} s CPU  {one / wall:6.1%}  {other / cpu:6.1%} of CPU"
        )
    print(
        f"  reading alone    {read_wall:8.1f} s  {read_cpu:8.1f} s CPU  {size / read_wall:6.1f} MB/s"
    )
    print(f"  peak memory      {found['peak'] / 1024:8.2f} GiB\n", flush=True)
    return Line(
        f"predict a raster of {side} px, {ask}",
        "CPU s",
        [cpu],
        "forward passes",
        [ours[1]],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == [MEASURE]:
        measure(*sys.argv[2:])
    else:
        main()
