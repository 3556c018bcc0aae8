"""A predictor sent to another process, and what it found as a picture."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
from bundles import tiny_bundle
from installed import need_plugins
from runs import registry

import simmat
from simmat.types import Prompt

IMAGE = np.random.default_rng(0).integers(0, 255, (1, 40, 56)).astype(np.uint8)


def test_a_predictor_survives_pickle(tmp_path: Path) -> None:
    """Pools of processes and dask send it so; it comes without its image."""
    model = simmat.load(tiny_bundle(tmp_path / "bundle"), registry=registry(), device="cpu")
    model.set_image(IMAGE)
    expected = model.predict(points=[(20, 10)])
    copy = pickle.loads(pickle.dumps(model))
    assert copy.image is None
    copy.set_image(IMAGE)
    np.testing.assert_array_equal(copy.predict(points=[(20, 10)]).logits, expected.logits)


def test_an_untuned_predictor_survives_pickle() -> None:
    """It takes the statistics of each image, so it depends on none."""
    need_plugins("lite")
    model = simmat.load(foundation="lite", modality="gray", image_size=64, device="cpu", registry=registry("lite"))
    model.set_image(IMAGE)
    expected = model.predict(points=[(20, 10)])
    copy = pickle.loads(pickle.dumps(model))
    copy.set_image(IMAGE)
    np.testing.assert_array_equal(copy.predict(points=[(20, 10)]).logits, expected.logits)


def test_a_prediction_is_shown_as_a_picture(tmp_path: Path) -> None:
    """The last line of a notebook's cell."""
    model = simmat.load(tiny_bundle(tmp_path / "bundle"), registry=registry(), device="cpu")
    model.set_image(IMAGE)
    found = model.predict(points=[(20, 10)])
    picture = np.asarray(found.plot(Prompt(np.array([[20.0, 10.0]]), np.array([1]))))
    assert picture.ndim == 3
    assert picture.shape[0] / picture.shape[1] == 40 / 56
    assert (np.ptp(picture, axis=2) > 0).any()  # colours over a gray image
