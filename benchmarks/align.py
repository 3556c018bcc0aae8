"""Corner errors of `simmat align` on registered pairs, of which one image is moved by a known homography.

    python benchmarks/align.py ../shared/data/rgb-thermal-pairs --rigs 20 --singles 60

The homographies shift by up to 10 % of the longer side, rotate by up to 5 degrees, scale by up to 1.1, and tilt: the
perspective changes the scale by up to 2 % from the centre to a side. Pairs of the test split are left out.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from measuring import parser_of
from simmat_plugin_align.align import MAX_MOVED, checked_search, moved_px
from simmat_plugin_align.features import Matrix, Picture
from simmat_plugin_align.registration import refine, search

from simmat.errors import DataError
from simmat.io.images import read_image
from simmat.sensors.warp import Warp
from simmat.types import Channel, SensorImage, Window

RIG_HW = (220, 400)
"""Part of each image of a rig; the images of the set differ in size."""
MARGIN = 1.2
SINGLE_PX = 4
"""Corner error below which a single pair counts as right."""


def similarity(
    size_hw: tuple[int, int], scale: float, angle_deg: float, shift_px: np.ndarray
) -> Matrix:
    """Return a scaling and rotation about the centre of an image, then a shift along x and y."""
    height, width = size_hw
    angle = np.deg2rad(angle_deg)
    matrix = np.eye(3)
    matrix[:2, :2] = scale * np.asarray(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    centre = np.asarray([(width - 1) / 2, (height - 1) / 2])
    matrix[:2, 2] = centre - matrix[:2, :2] @ centre + shift_px
    return matrix


def random_homography(rng: np.random.Generator, size_hw: tuple[int, int]) -> Matrix:
    """Return a matrix from pixels of the first image to those of the moved one."""
    height, width = size_hw
    angle_deg = rng.uniform(-5, 5)
    scale = 1.1 ** rng.uniform(-1, 1)
    shift_px = rng.uniform(-0.1, 0.1, 2) * max(size_hw)
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-0.04, 0.04, 2) / (width, height)
    to_centre = similarity(size_hw, 1, 0, np.asarray([1 - width, 1 - height]) / 2)
    tilted = np.linalg.inv(to_centre) @ tilt @ to_centre
    found = similarity(size_hw, scale, angle_deg, shift_px) @ tilted
    return np.asarray(found / found[2, 2])


def corner_error_px(found: Matrix, true: Matrix, size_hw: tuple[int, int]) -> float:
    """Return the mean distance of the four corners in pixels of the moved image."""
    height, width = size_hw
    corners = [(x, y, 1.0) for x in (0, width - 1) for y in (0, height - 1)]
    one, other = found @ np.transpose(corners), true @ np.transpose(corners)
    return float(np.hypot(*(one[:2] / one[2] - other[:2] / other[2])).mean())


def moved_pair(
    files: tuple[Path, Path], true: Matrix, part_hw: tuple[int, int]
) -> tuple[Picture, Picture]:
    """Return the middle part of the first image, and the second as a moved camera would see that part."""
    images = []
    for file in files:
        planes = read_image(file).planes.astype(np.float32)
        channels = tuple(
            Channel(f"c{n}", "counts", "count") for n in range(len(planes))
        )
        images.append(SensorImage.from_planes(planes, channels))
    height, width = images[0].size_hw
    y0, x0 = (height - part_hw[0]) // 2, (width - part_hw[1]) // 2
    first = images[0].cut(Window(y0, x0, y0 + part_hw[0], x0 + part_hw[1]))
    to_part = np.eye(3)
    to_part[:2, 2] = -x0, -y0
    warp = Warp(np.linalg.inv(true @ to_part), images[1].size_hw)
    second = warp(
        images[1],
        Window(0, 0, *part_hw),
        Window(0, 0, height, width),
        [True] * len(images[1].channels),
    )
    return Picture.of(first), Picture.of(second)


def main() -> None:
    """Print the errors of rigs and of single pairs as json."""
    parser = parser_of(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rigs", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--singles", type=int, default=60)
    options = parser.parse_args()
    with (options.data / "manifest.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] != "test"]
    files = [(options.data / row["rgb"], options.data / row["thermal"]) for row in rows]
    sizes = [read_image(one).planes.shape[1:] for one, _ in files]
    rng = np.random.default_rng(0)
    large = [
        number
        for number, (height, width) in enumerate(sizes)
        if height >= MARGIN * RIG_HW[0] and width >= MARGIN * RIG_HW[1]
    ]
    of_rigs = []
    for _ in range(options.rigs):
        true = random_homography(rng, RIG_HW)
        chosen = rng.permutation(large)[: options.pairs]
        pairs = [moved_pair(files[number], true, RIG_HW) for number in chosen]
        found = refine(pairs, search(pairs).matrix, "homography")
        of_rigs.append(corner_error_px(found, true, RIG_HW))
    rng = np.random.default_rng(1)
    of_singles, of_sure, of_truth, refused = [], [], [], 0
    scores_of_right, scores_of_wrong = [], []
    for number in rng.permutation(len(files))[: options.singles]:
        height, width = sizes[number]
        part_hw = int(height / MARGIN), int(width / MARGIN)
        true = random_homography(rng, part_hw)
        pair = [moved_pair(files[number], true, part_hw)]
        try:
            start = checked_search(pair, files[number][1].name)
        except DataError:
            refused += 1
            continue
        found = refine(pair, start.matrix, "homography")
        error = corner_error_px(found, true, part_hw)
        of_singles.append(error)
        if moved_px(pair[0], start.matrix, found) <= MAX_MOVED * max(part_hw):
            of_sure.append(error)
        of_truth.append(
            corner_error_px(refine(pair, true, "homography"), true, part_hw)
        )
        if error >= SINGLE_PX:
            scores_of_wrong.append(start.score)
        else:
            scores_of_right.append(start.score)
    results: dict[str, dict[str, float]] = {}
    if options.singles:
        results["single pairs, refused"] = {
            "share": round(refused / options.singles, 3)
        }
    for name, errors, limit in (
        ("rigs", of_rigs, 2),
        ("single pairs, not refused", of_singles, SINGLE_PX),
        ("single pairs, neither refused nor doubtful", of_sure, SINGLE_PX),
        ("single pairs, refined from the true matrix", of_truth, SINGLE_PX),
    ):
        if errors:
            results[name] = {
                "pairs": len(errors),
                "median_px": round(float(np.median(errors)), 2),
                "90_percent_px": round(float(np.quantile(errors, 0.9)), 2),
                f"below_{limit}_px": round(float(np.mean(np.array(errors) < limit)), 3),
            }
    for name, scores in (
        ("correlation of right single pairs", scores_of_right),
        ("correlation of wrong single pairs", scores_of_wrong),
    ):
        if scores:
            results[name] = {"median": round(float(np.median(scores)), 3)}
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
