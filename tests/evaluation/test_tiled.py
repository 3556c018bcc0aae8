"""Prompts in an image that is cut into windows: the scores are those of what `predict` returns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from runs import gray_set, registry

import simmat
from simmat.data.dataset import Dataset, open_dataset
from simmat.data.instances import tight_box
from simmat.evaluation import FULL, ONE_CLICK, EvalRequest, evaluate, evaluate_bundle
from simmat.predictor import Predictor
from simmat.sensors.builtin import Gray
from simmat.types import Prompt


@pytest.fixture
def model(dense_bundle: Path) -> Predictor:
    """A predictor of windows of 56 pixels."""
    return simmat.load(dense_bundle, device="cpu", registry=registry()).uncalibrated()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Images of many windows."""
    return open_dataset(gray_set(tmp_path / "data", size_hw=(150, 180)), Gray())


def test_clicks_and_boxes_are_scored_as_they_are_predicted(
    model: Predictor, dataset: Dataset
) -> None:
    """An image scaled down as a whole has other masks than a user gets."""
    samples = dataset.split("test")
    found = evaluate(
        model,
        dataset,
        samples,
        request=EvalRequest(protocol=replace(ONE_CLICK, boxes=True)),
    )
    assert len(found.objects) == 4
    assert any(score.iou > 0 for score in found.objects)
    by_id = {sample.id: sample for sample in samples}
    for score in found.objects:
        sample = by_id[score.sample]
        label = dataset.label(sample)
        region = label.regions[score.region]
        box = Prompt(
            np.zeros((0, 2), np.float32), np.zeros(0, np.int64), tight_box(region)
        )
        image = model.open_image(sample.reference)
        assert len(image.windows) > 4
        for prompt, iou in (
            (Prompt.points([score.click_xy]), score.iou),
            (box, score.box),
        ):
            mask = image.predict(prompt).whole_mask(image.size_hw)
            both = np.count_nonzero(mask & region.mask(image.size_hw))
            either = np.count_nonzero(mask | region.mask(image.size_hw))
            assert iou == pytest.approx(both / either, abs=1e-3)


def test_corrections_continue_in_the_window_of_the_answer(
    model: Predictor, dataset: Dataset
) -> None:
    """The last answer is an input of the next, and must lie where it was seen."""
    samples = dataset.split("test")[:1]
    found = evaluate(
        model,
        dataset,
        samples,
        request=EvalRequest(protocol=replace(FULL, clicks=3, repeats=1)),
    )
    for score in found.objects:
        assert len(score.clicks) == 3
        assert score.clicks[0] == score.iou
        assert len(score.random_clicks) == len(score.jittered_boxes) == 1


def test_windows_of_a_divided_image_are_said_to_be_scored(
    dense_bundle: Path, tmp_path: Path
) -> None:
    """Of one image no other part is held out, and objects at the borders are cut."""
    data = gray_set(tmp_path / "data", train=1, val=0, test=0, size_hw=(150, 180))
    (data / "manifest.csv").unlink()
    bundle = simmat.load(dense_bundle, device="cpu", registry=registry()).bundle
    notes: list[str] = []
    evaluate_bundle(bundle, data, "test", overrides={"crop": 32}, note=notes.append)
    assert "windows of images that are divided" in "\n".join(notes)
    whole = gray_set(tmp_path / "whole", size_hw=(150, 180))
    notes.clear()
    evaluate_bundle(bundle, whole, "test", overrides={"crop": 32}, note=notes.append)
    assert not any("divided" in note for note in notes)
