"""The untuned model on any sensor, without a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import simmat
from simmat.cli import run

ROWS, COLUMNS = np.mgrid[:96, :128]
DISC = (ROWS - 48) ** 2 + (COLUMNS - 70) ** 2 < 20**2
SCENE = np.where(DISC, 180, 60) + np.random.default_rng(0).normal(0, 4, DISC.shape)


def iou(mask: np.ndarray) -> float:
    return float((mask & DISC).sum() / (mask | DISC).sum())


def test_one_click_finds_a_bright_disc_whatever_the_unit(tmp_path: Path) -> None:
    """Each image is normalised by itself, so that counts and kelvin are alike."""
    model = simmat.load(foundation="lite", modality="gray", device="cpu")
    masks = []
    for scaled in (SCENE, 100 + SCENE / 4):
        model.set_image(scaled[None])
        masks.append(model.predict(points=[(70, 48)]).mask)
    assert iou(masks[0]) > 0.8
    assert (masks[0] != masks[1]).mean() < 0.01


def test_the_second_image_is_not_seen_by_the_statistics_of_the_first() -> None:
    """A model kept open for a folder must answer each image as if it were alone."""
    model = simmat.load(foundation="lite", modality="gray", device="cpu")
    model.set_image((SCENE / 5)[None])
    model.set_image(SCENE[None])
    after = model.predict(points=[(70, 48)]).logits
    model.set_image(SCENE[None])
    np.testing.assert_array_equal(model.predict(points=[(70, 48)]).logits, after)


def test_a_flat_image_is_answered(tmp_path: Path) -> None:
    """A lens cap has no spread to divide by."""
    model = simmat.load(foundation="lite", modality="gray", device="cpu")
    model.set_image(np.full((1, 32, 32), 7.0))
    assert np.isfinite(model.predict(points=[(3, 3)]).logits).all()


def test_predict_answers_without_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first mask of a new user, before anything is trained."""
    Image.fromarray(SCENE.clip(0, 255).astype(np.uint8)).save(tmp_path / "s.png")
    call = ["predict", "--foundation", "lite", "--modality", "gray", str(tmp_path / "s.png"), "--point", "70,48"]
    assert run([*call, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    assert iou(np.asarray(Image.open(tmp_path / "out/s_mask.png")) > 0) > 0.8
