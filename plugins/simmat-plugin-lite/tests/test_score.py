"""The RGB scores: what is averaged, and that asking works end to end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simmat_plugin_lite import score as scoring
from simmat_plugin_lite.command import run_command
from simmat_plugin_lite.model import LiteModel
from simmat_plugin_lite.regions import read_photos
from simmat_plugin_lite.score import EncodedPhoto, RegionScore, corrected, iou_of, score, table


def test_every_region_of_a_photograph_is_scored(model: LiteModel, regions_folder: Path) -> None:
    """Two discs and, as zero is a region here, what lies around them; for each photograph."""
    options = argparse.Namespace(device="cpu", precision="no", image_size=64, noc=[])
    scores = score(model, read_photos(regions_folder, "test"), options)
    assert len(scores) == 6
    assert all(len(s.clicks) == 8 and min(s.clicks) >= 0 and s.noc85 is None for s in scores)


@pytest.mark.parametrize(("good", "asked"), [(0.0, 8), (2.0, 20)])
def test_past_eight_clicks_only_what_is_not_solved_is_asked(
    model: LiteModel, regions_folder: Path, monkeypatch: pytest.MonkeyPatch, good: float, asked: int
) -> None:
    """Up to there every region is, for its curve."""
    regions: list[int] = []
    plain = EncodedPhoto.ask

    def counted(self: EncodedPhoto, points: np.ndarray, *args: Any, **more: Any) -> Any:
        regions.append(len(points) if points.shape[1] else 0)
        return plain(self, points, *args, **more)

    monkeypatch.setattr(EncodedPhoto, "ask", counted)
    monkeypatch.setattr(scoring, "GOOD_IOU", good)
    photos = read_photos(regions_folder, "test")
    options = argparse.Namespace(device="cpu", precision="no", image_size=64, noc=[photo.source for photo in photos])
    scores = score(model, photos, options)
    assert sum(regions) == asked * len(scores)
    assert {s.noc85 for s in scores} == {1 if good == 0 else 20}
    assert {len(s.clicks) for s in scores} == {8}


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sources", "davsi"], "--sources names davsi; split 'test' has bsds"),
        (["--noc", "davsi"], "--noc names davsi; split 'test' has bsds"),
        (["--split", "val", "--weights", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["--image-size", "100"], "multiple of 32, got --image-size 100"),
        (["--device", "gpu"], "no device 'gpu'"),
    ],
)
def test_what_cannot_be_scored_is_said_in_one_line(
    regions_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    """A misspelt source must not end as a table without rows."""
    monkeypatch.setattr("sys.argv", ["score", "--data", str(regions_folder), *options])
    with pytest.raises(SystemExit) as stopped:
        run_command(scoring.main)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1
