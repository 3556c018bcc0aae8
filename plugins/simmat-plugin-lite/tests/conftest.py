"""A tiny rgb-regions set and a random `lite`, made here."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from simmat_plugin_lite.model import LiteModel, build_lite
from simmat_plugin_lite.spec import LITE

SIZE = 64

# pretraining/, which no package holds
sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(scope="session")
def model() -> LiteModel:
    """`lite` with random weights."""
    return build_lite(LITE, image_size=SIZE, weights=None, seed=3)


@pytest.fixture(scope="session")
def regions_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two discs on noise: two photographs for each source in train, four in val."""
    root = tmp_path_factory.mktemp("rgb-regions")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    rows = []
    rng = np.random.default_rng(0)
    meanings = {
        "coco": "unlabelled",
        "bsds": "none",
        "ccp": "background",
        "horses": "background",
        "cats": "background",
    }
    for split, sources in (("train", meanings), ("val", ["coco", "ccp"])):
        for source in sources:
            for number in range(2):
                name = f"{source}-{split}-{number}"
                image, mask = _discs(rng)
                Image.fromarray(image).save(root / "images" / f"{name}.jpg")
                Image.fromarray(mask).save(root / "masks" / f"{name}.png")
                rows.append(
                    [
                        name,
                        split,
                        f"images/{name}.jpg",
                        f"masks/{name}.png",
                        source,
                        meanings[source],
                    ]
                )
    with (root / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "split", "image", "mask", "source", "zero_means"], *rows]
        )
    return root


def _discs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:64, :96]
    mask = np.zeros((64, 96), np.uint8)
    image = rng.integers(0, 60, (64, 96, 3)).astype(np.uint8)
    for value, centre in ((1, 25), (2, 70)):
        disc = (y - 32) ** 2 + (x - centre) ** 2 < 15**2
        mask[disc] = value
        image[disc] = 100 * value
    return image, mask
