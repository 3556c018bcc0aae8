"""The untuned model on any sensor, without a bundle."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
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


def test_predict_answers_without_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first mask of a new user, before anything is trained."""
    Image.fromarray(SCENE.clip(0, 255).astype(np.uint8)).save(tmp_path / "s.png")
    call = [
        "predict",
        "--foundation",
        "lite",
        "--modality",
        "gray",
        str(tmp_path / "s.png"),
        "--point",
        "70,48",
    ]
    assert run([*call, "--device", "cpu", "--out", str(tmp_path / "out")]) == 0
    assert iou(np.asarray(Image.open(tmp_path / "out/s_mask.png")) > 0) > 0.8


PREDICT = """
import sys, torch
before = set(sys.modules)
from simmat.cli import run
code = run(sys.argv[1:])
print(code, *sorted(set(sys.modules) - before))
"""
"""What a prediction imports beside torch, after its exit code."""


@pytest.mark.parametrize("tuned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_prediction_imports_no_library_it_does_not_need(
    tmp_path: Path, tuned: bool
) -> None:
    """They take longer to import than the mask to compute, on every call from a shell."""
    Image.fromarray(SCENE.clip(0, 255).astype(np.uint8)).save(tmp_path / "s.png")
    asked = ["--foundation", "lite", "--modality", "gray"]
    if tuned:
        masks = [DISC.astype(np.uint8)] * 2
        data = simmat.Dataset.from_arrays(
            [SCENE.clip(0, 255).astype(np.uint8)] * 2, masks, split=["train", "val"]
        )
        small = {
            "steps": 1,
            "image_size": 64,
            "batch_size": 1,
            "pictures": False,
            "device": "cpu",
        }
        asked = [
            str(
                simmat.train(
                    modality="gray",
                    data=data,
                    out=tmp_path / "run",
                    progress=False,
                    **small,
                )
            )
        ]
    call = [
        "predict",
        *asked,
        str(tmp_path / "s.png"),
        "--point",
        "70,48",
        "--device",
        "cpu",
    ]
    command = [sys.executable, "-c", PREDICT, *call, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, *imported = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stderr
    unneeded = {
        "accelerate",
        "matplotlib",
        "pycocotools",
        "scipy",
        "timm",
        "torchvision",
        "torch._dynamo",
    }
    # older ones import it themselves
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6):
        unneeded.add("sympy")
    assert unneeded & set(imported) == set()
