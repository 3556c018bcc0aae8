"""All masks of one prompt, and images of an untuned model looked at in turn: what a page with tabs asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from runs import registry

from simmat.bundle import load_bundle
from simmat.io.images import write_image
from simmat.model import Parts
from simmat.nn.device import pick_device
from simmat.predictor import Predictor, ZeroShotPredictor
from simmat.types import Prompt

CLICK = Prompt.points([(20, 20)])


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    values = np.random.default_rng(0).integers(0, 200, (2, 1, 150, 180)).astype(np.uint8)
    values[1] //= 4
    paths = [tmp_path / "a.tif", tmp_path / "b.tif"]
    for path, planes in zip(paths, values, strict=True):
        write_image(path, planes)
    return paths


def test_the_single_mask_comes_first_and_the_alternatives_by_score(tmp_path: Path, images: list[Path]) -> None:
    """A key steps through them; the first is what `predict` gives."""
    predictor = Predictor.of_bundle(load_bundle(tiny_bundle(tmp_path / "bundle", image_size=32), registry()))
    image = predictor.open_image(images[0])
    single, *others = image.predict_all(CLICK)
    assert single.score == image.predict(CLICK).score
    assert len(others) == 3
    assert [one.score for one in others] == sorted((one.score for one in others), reverse=True)
    assert others[0].score == image.predict(CLICK, "best").score


def test_images_looked_at_in_turn_keep_their_own_statistics(images: list[Path]) -> None:
    """An untuned model normalizes by the image; the windows of one must not be normalized by another's values."""
    known = registry()
    parts = Parts(known.foundation("tiny"), known.transfer_layer("zeroshot"), known.tuner("frozen"), None)

    def predictor() -> ZeroShotPredictor:
        return ZeroShotPredictor(parts, known.modality("gray"), 32, pick_device("cpu"))

    far = Prompt.points([(150, 120)])
    alone = predictor().open_image(images[0]).predict(far).logits
    both = predictor()
    one, other = both.open_image(images[0]), both.open_image(images[1])
    one.predict(CLICK)
    other.predict(CLICK)
    np.testing.assert_array_equal(one.predict(far).logits, alone)
