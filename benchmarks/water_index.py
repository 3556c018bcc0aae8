"""Score a threshold on a water index for one click: the modified NDWI (Xu 2006), as usual in remote sensing.

    python benchmarks/water_index.py [--data ../shared/data/multispectral-water] [--split test]

Water is where (green - swir1) / (green + swir1) > 0; the answer is its connected component under the click, and nothing
where the click is on dry land. Regions and clicks are those of transfer.toml.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean

import numpy as np
from scipy import ndimage

from simmat.data.dataset import open_dataset
from simmat.data.instances import EIGHT, center_click
from simmat.plugins.loader import load_plugins
from simmat.types import BoolArray

GREEN, SWIR1 = 2, 5
REGIONS = {"regions": "components", "min_region": 100}
DATA = Path(__file__).parents[2] / "shared" / "data" / "multispectral-water"


def under_click(water: BoolArray, click_xy: tuple[float, float]) -> BoolArray:
    """Return the component of a (H, W) mask that holds the clicked pixel; empty where the pixel is not in the mask."""
    numbers, _ = ndimage.label(water, EIGHT)
    number = numbers[int(click_xy[1]), int(click_xy[0])]
    component: BoolArray = (numbers == number) & (number > 0)
    return component


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder of the data set"
    )
    parser.add_argument("--split", default="test", help="train, val or test")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(
            f"{options.data} is not there; name the folder of multispectral-water with --data"
        )
    dataset = open_dataset(options.data, load_plugins().modality("raster"), REGIONS)
    ious: list[float] = []
    for sample in dataset.split(options.split):
        image = dataset.image(sample)
        green, swir1 = image.data[GREEN], image.data[SWIR1]
        # digital numbers, 10000 a reflectance of 1
        water = (green - swir1) / np.maximum(green + swir1, 1) > 0
        label = dataset.label(sample, image)
        for region in label.regions:
            truth = region.mask(label.size_hw)
            answer = under_click(water, center_click(truth))
            ious.append(float((answer & truth).sum() / (answer | truth).sum()))
    missed = sum(iou == 0 for iou in ious)
    print(
        f"{options.split}: mIoU {fmean(ious):.3f} over {len(ious)} objects, {missed} of them missed altogether"
    )


if __name__ == "__main__":
    main()
