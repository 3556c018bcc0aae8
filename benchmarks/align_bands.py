"""Write a rig of cameras with a file for each band, and measure the matrices that `simmat align` finds.

    python benchmarks/align_bands.py ../shared/data/multispectral-water rig

The bands of registered tiles become files `IMG_0001_1.tif`, `IMG_0001_2.tif`, … in one folder. Every band but the first
is moved by a homography of its own: a shift of up to 8 % of the side, a rotation of up to 3 degrees, a scale of up to
1.05. Tiles of the test split are left out. Values that no pixel of a tile shows are 0.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from align import corner_error_px, similarity

from simmat.io.images import read_image, write_image
from simmat.sensors.warp import Warp
from simmat.types import Channel, SensorImage, Window

BANDS = {"blue": 1, "green": 2, "red": 3, "nir": 4, "swir": 5}
"""Name of a band -> plane of the tiles."""
NODATA = -32768


def moved_by(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return a matrix from pixels of the first band to those of a moved one."""
    angle_deg = rng.uniform(-3, 3)
    scale = 1.05 ** rng.uniform(-1, 1)
    shift_px = rng.uniform(-0.08, 0.08, 2) * side
    return similarity((side, side), scale, angle_deg, shift_px)


def sensor_toml() -> str:
    """Return the description of the rig."""
    lines = ["format = 1", 'name = "rig"', ""]
    for number, name in enumerate(BANDS, start=1):
        lines += ["[[source]]", f'name = "{name}"', f'files = "*_{number}.tif"', ""]
    lines += [
        "[defaults]",
        'quantity = "reflectance"',
        'unit = "1"',
        "scale = 1e-4",
        f"nodata = {NODATA}",
    ]
    for name in BANDS:
        lines += ["", "[[channel]]", f'name = "{name}"', f'source = "{name}"']
    return "\n".join(lines) + "\n"


def write_rig(data: Path, out: Path, seed: int) -> dict[str, np.ndarray]:
    """Write the folder of a rig; return the true matrix of each further band."""
    with (data / "manifest.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] != "test"]
    rng = np.random.default_rng(seed)
    side = read_image(data / rows[0]["image"]).planes.shape[1]
    true = {name: moved_by(rng, side) for name in list(BANDS)[1:]}
    for row in rows:
        planes = read_image(data / row["image"]).planes
        images = out / "images" / row["split"]
        masks = out / "masks" / row["split"]
        images.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        shutil.copy(data / row["mask"], masks / f"IMG_{row['id']}.png")
        for number, (name, plane) in enumerate(BANDS.items(), start=1):
            image = SensorImage.from_planes(
                planes[plane : plane + 1].astype(np.float32),
                (Channel(name, "reflectance", "1"),),
            )
            whole = Window(0, 0, side, side)
            matrix = np.linalg.inv(true.get(name, np.eye(3)))
            seen = Warp(matrix, image.size_hw)(image, whole, whole, [True])
            values = np.where(seen.valid, seen.data, NODATA).round().astype(np.int16)
            write_image(images / f"IMG_{row['id']}_{number}.tif", values)
    (out / "card.toml").write_text('regions = "components"\nmin_region = 100\n')
    (out / "rig.toml").write_text(sensor_toml())
    return true


def main() -> None:
    """Print the corner errors of all bands of some rigs as json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rigs", type=int, default=5)
    options = parser.parse_args()
    errors: dict[str, list[float]] = {name: [] for name in list(BANDS)[1:]}
    for seed in range(options.rigs):
        folder = options.out / str(seed)
        true = write_rig(options.data, folder, seed)
        command = [sys.executable, "-m", "simmat", "align", str(folder)]
        command += ["--modality", str(folder / "rig.toml"), "--json"]
        printed = subprocess.run(command, check=True, capture_output=True).stdout
        for name, found in json.loads(printed)["sources"].items():
            matrix = np.asarray(found["matrix"])
            errors[name].append(corner_error_px(matrix, true[name], (128, 128)))
    every = [error for own in errors.values() for error in own]
    results = {name: np.round(own, 2).tolist() for name, own in errors.items()}
    print(json.dumps({"corner_error_px": results}))
    print(json.dumps({"median_px": round(float(np.median(every)), 2)}))


if __name__ == "__main__":
    main()
