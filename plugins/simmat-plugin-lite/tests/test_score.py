"""The RGB scores: what is averaged, and that asking works end to end."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from simmat_plugin_lite.model import LiteModel
from simmat_plugin_lite.regions import read_photos
from simmat_plugin_lite.score import RegionScore, corrected, iou_of, score, table


def test_every_region_of_a_photograph_is_scored(model: LiteModel, regions_folder: Path) -> None:
    """Two discs and, as zero is a region here, what lies around them; for each photograph."""
    options = argparse.Namespace(device="cpu", precision="no", image_size=64, noc=[])
    scores = score(model, read_photos(regions_folder, "test"), options)
    assert len(scores) == 6
    assert all(len(s.clicks) == 8 and min(s.clicks) >= 0 and s.noc85 is None for s in scores)


def test_rows_are_means_over_regions_large_enough() -> None:
    """Small regions are in the first row of a source only."""
    small, large = (
        RegionScore("davis", area, (iou,) * 8, iou, iou, iou, noc) for area, iou, noc in ((120, 0.2, 20), (900, 0.9, 1))
    )
    first, second = table([small, large])
    assert (first["regions"], first["miou_1"], first["noc85"]) == (2, 0.55, 10.5)
    assert (second["regions"], second["miou_8"], second["noc85"]) == (1, 0.9, 1)


def test_iou_of_a_mask_with_itself_is_one() -> None:
    """And of one with its complement 0."""
    truth = np.zeros((1, 4, 4), bool)
    truth[0, :2] = True
    both = torch.from_numpy(np.stack([truth[0], ~truth[0]]))[None]
    assert iou_of(both, truth).tolist() == [[1.0, 0.0]]


def test_a_right_mask_gets_no_further_click() -> None:
    """Its next point counts as none."""
    truth = np.zeros((1, 8, 8), bool)
    truth[0, 2:5, 2:5] = True
    _, labels = corrected(np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.int64), truth, truth)
    assert labels.tolist() == [[1, -1]]
