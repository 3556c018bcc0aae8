"""What is found without prompts: the probability of every class, and pictures."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from bundles import tiny_bundle
from runs import registry

import simmat
from simmat.inference.window_store import result_from_arrays, result_to_arrays
from simmat.model_spec import DenseSpec
from simmat.predictor import EverythingSettings, Predictor
from simmat.predictor.tiles import WindowResult

EVERY = EverythingSettings(peak=0.0, min_score=0.0, objectness=0.0)
IMAGE = np.random.default_rng(0).integers(0, 255, (1, 90, 120)).astype(np.float32)
IMAGE[0, :20, :30] = np.nan


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """An untrained model of three classes that cuts `IMAGE` into windows."""
    dense = DenseSpec(background=True, classes=(4, 7, 9))
    folder = tiny_bundle(
        tmp_path_factory.mktemp("found") / "bundle", dense=dense, image_size=32
    )
    model = simmat.load(folder, registry=registry(), device="cpu")
    model.set_image(IMAGE)
    return model


def test_every_pixel_has_the_probability_of_every_class(model: Predictor) -> None:
    """For an ROC curve, or a threshold of one's own; windows leave no seam, and nothing is known where nothing is."""
    found = model.segment_semantic(probabilities=True)
    assert found.probabilities is not None
    assert found.values == (0, 4, 7, 9)
    assert found.probabilities.shape == (4, 90, 120)
    measured = np.isfinite(IMAGE[0])
    np.testing.assert_allclose(found.probabilities.sum(0), measured, atol=1e-6)
    labels = np.asarray(found.values)[found.probabilities.argmax(0)]
    np.testing.assert_array_equal(found.labels[measured], labels[measured])
    np.testing.assert_array_equal(found.probability, found.probabilities.max(0))
    assert model.segment_semantic().probabilities is None


def test_every_object_has_the_probability_of_every_class(model: Predictor) -> None:
    """Those that a stopped run kept in files, too, and those of clicks."""
    everything = model.segment_everything(EVERY)
    kept = result_from_arrays(result_to_arrays(WindowResult(tuple(everything)))).objects
    assert len(kept) == len(everything) > 0
    for one, again in zip(everything, kept, strict=True):
        assert one.class_probabilities is not None
        assert one.class_probabilities == again.class_probabilities
        assert sum(one.class_probabilities.values()) == pytest.approx(1, abs=1e-6)
        assert one.class_probability == max(one.class_probabilities.values())
        assert (
            one.class_probabilities[one.instance.class_id or 0] == one.class_probability
        )
    clicked = model.predict([(60, 50)])
    assert clicked.class_probabilities is not None
    assert set(clicked.class_probabilities) == {4, 7, 9}
    assert clicked.class_id is not None
    assert clicked.class_probability == clicked.class_probabilities[clicked.class_id]


def test_objects_and_classes_are_shown_as_pictures(model: Predictor) -> None:
    """The last line of a notebook's cell; a part of what was found can be shown, and sent to another process."""
    objects, classes = model.segment_everything(EVERY), model.segment_semantic()
    drawn = [
        one.plot() for one in (objects, classes, pickle.loads(pickle.dumps(objects)))
    ]
    # colours over a gray image
    assert all(np.ptp(np.asarray(picture), axis=2).any() for picture in drawn)
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.array_equal(drawn[0], objects.plot(objects[:1]))
