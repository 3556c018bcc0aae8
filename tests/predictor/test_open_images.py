"""Many images, encoded in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundles import tiny_bundle
from PIL import Image
from runs import registry

import simmat
from simmat.model_spec import DenseSpec
from simmat.predictor import Predictor

RNG = np.random.default_rng(0)
# the fourth is cut into windows
SIZES = [(40, 56), (33, 47), (64, 64), (150, 60), (20, 30)]
ARRAYS = [RNG.integers(0, 255, (1, *size_hw)).astype(np.uint8) for size_hw in SIZES]
CLICK = simmat.Prompt.points([(10, 12)])


@pytest.fixture
def model(tmp_path: Path) -> Predictor:
    """A model with both heads."""
    dense = DenseSpec(background=True, classes=(1, 2))
    return simmat.load(
        tiny_bundle(tmp_path / "bundle", dense=dense, image_side=64),
        registry=registry(),
        device="cpu",
    )


def test_a_batch_gives_what_its_images_give_one_by_one(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is only faster: files and arrays, of any size, with one pass of the network for all that fit in it."""
    Image.fromarray(ARRAYS[1][0]).save(tmp_path / "b.png")
    images = [ARRAYS[0], tmp_path / "b.png", *ARRAYS[2:]]
    alone = [
        (one.predict(CLICK), one.segment_semantic(probabilities=True))
        for one in model.open_images(images)
    ]
    sizes, encode = [], model.model.encode
    monkeypatch.setattr(
        model.model,
        "encode",
        lambda planes, *more: sizes.append(len(planes)) or encode(planes, *more),
    )
    opened = list(model.open_images(iter(images), batch_size=4))
    assert sizes == [3, 1]
    assert [one.reader.size_hw for one in opened] == SIZES
    for one, (found, classes) in zip(opened, alone, strict=True):
        np.testing.assert_allclose(one.predict(CLICK).logits, found.logits, atol=1e-5)
        np.testing.assert_allclose(
            one.segment_semantic(probabilities=True).probabilities,
            classes.probabilities,
            atol=1e-5,
        )
    with pytest.raises(TypeError, match=r"several images.*got 'a.png', see open_image"):
        next(model.open_images("a.png"))
    with pytest.raises(TypeError, match="several images"):
        next(model.open_images(Path("a.png")))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(model.open_images(images, batch_size=0))
