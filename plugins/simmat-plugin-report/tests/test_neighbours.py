"""Tiles of one map, split at random, are told apart from scenes of different places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import one_square, save_mask
from simmat_plugin_report.checks import check_dataset
from simmat_plugin_report.data_warnings import neighbour_warning

from simmat.data.dataset import open_dataset
from simmat.data.index import read_index
from simmat.sensors.builtin import Raster

rasterio = pytest.importorskip("rasterio")


def tiles(
    root: Path,
    count: int,
    *,
    step: int,
    crs: str | None = "EPSG:32632",
    splits: bool = False,
) -> Path:
    """Tiles of 8 x 8 pixels of 10 m from west to east, `step` metres apart."""
    for number in range(count):
        split = ("train", "val", "test")[number % 3] if splits else ""
        path = root / "images" / split / f"t{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        place: dict[str, Any] = {}
        if crs:
            place = {
                "crs": crs,
                "transform": rasterio.Affine(
                    10, 0, 500_000 + step * number, 0, -10, 6_000_000
                ),
            }
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=1,
            height=8,
            width=8,
            dtype="uint16",
            **place,
        ) as file:
            file.write(
                np.random.default_rng(number).integers(1, 99, (1, 8, 8), np.uint16)
            )
        save_mask(root / "masks" / split / f"t{number}.png", one_square())
    return root


def warning(root: Path, **card: Any) -> str:
    return neighbour_warning(
        read_index(open_dataset(root, Raster(), {"regions": "instances", **card}))
    )


@pytest.mark.parametrize("step", [80, 40])
def test_touching_and_overlapping_tiles_are_warned_of(
    tmp_path: Path, step: int
) -> None:
    """Their scores are those of images that are almost the training images."""
    found = warning(tiles(tmp_path, 12, step=step))
    assert "--crop" in found
    assert "manifest.csv" in found
    report = check_dataset(open_dataset(tmp_path, Raster(), {"regions": "instances"}))
    assert found in [one.text for one in report.findings]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"step": 200}, id="scenes apart"),
        pytest.param({"step": 80, "splits": True}, id="splits named by the user"),
        pytest.param({"step": 80, "crs": None}, id="images without a place"),
    ],
)
def test_other_images_are_fine(tmp_path: Path, changes: dict[str, Any]) -> None:
    """A warning that always comes is none, and who names splits may know why neighbours are in two of them."""
    assert warning(tiles(tmp_path, 12, **changes)) == ""
