"""What `simmat align` finds outside of its search's limits, with and without values that the camera writes.

    python benchmarks/align_outside.py ../shared/data/rgb-thermal-pairs --rigs 10

The second images of registered pairs are moved by a scale of 2.2, or by a shift of 45 % of the longer side. The
camera's values are wrong by 2 % of the side, 2 degrees and 3 % in scale; or wrong altogether, for rigs within the
limits. Pairs of the test split are left out.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from align import corner_error_px, moved_pair, random_homography, similarity
from simmat_plugin_align.align import checked_search
from simmat_plugin_align.features import Matrix
from simmat_plugin_align.registration import Pair, refine

from simmat.errors import DataError
from simmat.io.images import read_image

PART_HW = (130, 230)
"""Part of each image that the first camera of a rig sees."""
WRONG_PX = 4.0
"""In pixels of the first camera."""


def error_px(pairs: list[Pair], true: Matrix, start: Matrix | None) -> float | None:
    """Return the corner error of what is found, in pixels of the first camera; None if the rig is refused."""
    try:
        found = checked_search(pairs, "rig", start)
    except DataError:
        return None
    matrix = refine(pairs, found.matrix, "homography", zoom=found.zoom)
    zoom = np.sqrt(abs(np.linalg.det(true[:2, :2])))
    return corner_error_px(matrix, true, PART_HW) / float(zoom)


def main() -> None:
    """Print, for each case, how many rigs are right, wrong and refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rigs", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=20)
    options = parser.parse_args()
    with (options.data / "manifest.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] != "test"]
    files = [(options.data / row["rgb"], options.data / row["thermal"]) for row in rows]
    large = []
    for number, (first, _) in enumerate(files):
        height, width = read_image(first).planes.shape[1:]
        if height >= 1.3 * PART_HW[0] and width >= 2 * PART_HW[1]:
            large.append(number)
    rng = np.random.default_rng(2)
    side = max(PART_HW)
    errors: dict[str, list[float | None]] = {}
    for number in range(options.rigs):
        chosen = rng.permutation(large)[: options.pairs]
        if number % 2:
            name, true = (
                "shift 45 %",
                similarity(PART_HW, 1, 2, np.array([0.45 * side, 4])),
            )
        else:
            name, true = "scale 2.2", similarity(PART_HW, 2.2, 2, np.array([5.0, 4]))
        off = similarity(PART_HW, 1.03, 2, np.array([0.02 * side, 0.02 * side]))
        pairs = [moved_pair(files[index], true, PART_HW) for index in chosen]
        for with_tags, start in (("without", None), ("with", off @ true)):
            key = f"{name}, {with_tags} camera values"
            errors.setdefault(key, []).append(error_px(pairs, true, start))
        true = random_homography(rng, PART_HW)
        pairs = [moved_pair(files[index], true, PART_HW) for index in chosen]
        wrong = similarity(PART_HW, 1.9, 20, np.array([-60.0, 30.0]))
        for with_tags, start in (("without", None), ("with wrong", wrong)):
            key = f"within the limits, {with_tags} camera values"
            errors.setdefault(key, []).append(error_px(pairs, true, start))
    results = {}
    for key, found in errors.items():
        known = [error for error in found if error is not None]
        right = [error for error in known if error < WRONG_PX]
        results[key] = {
            "rigs": len(found),
            "right": len(right),
            "wrong": len(known) - len(right),
            "refused": len(found) - len(known),
            "median_px": round(float(np.median(right)), 2) if right else None,
        }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
