"""Results of windows on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from large_scene import EVERY, large_scene
from runs import registry

import simmat
from simmat.inference.window_store import WindowStore
from simmat.predictor import Predictor


@pytest.fixture
def model(dense_bundle: Path) -> Predictor:
    """The bundle's predictor."""
    return simmat.load(dense_bundle, device="cpu", registry=registry())


def test_an_answer_survives_its_file(model: Predictor, tmp_path: Path) -> None:
    """A run that was stopped goes on from files."""
    image = model.open_image(large_scene(tmp_path / "large.tif"))
    answer = image.segment_window(image.windows[1], EVERY, semantic=True)
    store = WindowStore(tmp_path, "photo", "key")
    assert not store.has(1)
    store.write(1, answer)
    assert store.has(1)
    again = WindowStore(tmp_path, "photo", "key").read(1)
    assert again is not None
    assert [one.instance.window for one in again.objects] == [
        one.instance.window for one in answer.objects
    ]
    assert all(
        (a.instance.crop == b.instance.crop).all()
        for a, b in zip(again.objects, answer.objects, strict=True)
    )
    assert answer.probabilities is not None
    np.testing.assert_allclose(again.probabilities, answer.probabilities, atol=1 / 500)
    assert not WindowStore(tmp_path, "photo", "another").has(1)
    # as after a power cut
    (store.folder / "000001.npz").write_bytes(b"PK\x03\x04 half")
    assert store.read(1) is None
