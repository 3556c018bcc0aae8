"""Objects without clicks: where to click, and which answers stay."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from bundles import tiny_bundle
from runs import registry

import simmat
from simmat.data.instances import Instance
from simmat.data.pipeline import PreparedImage
from simmat.evaluation.unprompted import (
    ious,
)
from simmat.foundation import MaskPrediction
from simmat.inference.window_store import result_from_arrays, result_to_arrays
from simmat.model_spec import DenseSpec
from simmat.nn.dense_head import classes_of
from simmat.predictor import Predictor
from simmat.predictor.objects import (
    EverythingSettings,
    click_places,
    find_objects,
    grown,
    object_parts,
    suppress,
    uncovered,
)
from simmat.predictor.tiles import WindowResult
from simmat.types import FloatArray, Letterbox, Window


def test_every_bump_has_one_peak() -> None:
    """Two objects are two clicks, a plateau is one."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
    bumps = [(10.0, 10.0), (10.0, 25.0), (30.0, 20.0)]
    distance = torch.stack(
        [torch.exp(-((y - a) ** 2 + (x - b) ** 2) / 20) for a, b in bumps]
    ).amax(0)
    nothing = np.zeros((0, 40, 40), np.bool_)
    points, values = click_places(distance, nothing, min_peak=0.3, window=5)
    assert sorted(map(tuple, points.tolist())) == sorted((b, a) for a, b in bumps)
    assert (np.diff(values) <= 0).all()
    assert len(click_places(distance * 0.2, nothing, min_peak=0.3, window=5)[0]) == 0


def test_a_part_of_the_class_map_without_a_peak_is_clicked_once() -> None:
    """A distance map learns slower than a class map, and an object that the class map shows is not to be missed."""
    distance, objectness = torch.full((40, 40), 0.05), torch.full((40, 40), 0.2)
    distance[5, 5] = 1.0
    distance[30, 12] = 0.2
    # with a peak, without, a speck
    for part in (np.s_[2:12, 2:12], np.s_[24:36, 6:18], np.s_[20:23, 30:33]):
        objectness[part] = 0.9
    parts, classes = object_parts(objectness[None], 25)
    assert [part.sum() for part in parts] == [100, 144]
    points, _ = click_places(distance, parts, min_peak=0.1, window=5)
    assert len(points) == 2
    np.testing.assert_allclose(points[1], (12, 30), atol=1)
    masks = np.zeros((1, 80, 80), np.bool_)
    masks[0, 4:24, 4:24] = True
    assert uncovered(parts, classes, masks, [0]) == [1]
    assert uncovered(parts, classes, masks[:0], []) == [0, 1]


class _Squares:
    """Answers a click by the 32 by 32 square of the input that it lies in, and by a quarter of that as alternative."""

    dense_answer = dense_spec = None
    prepared = PreparedImage(
        torch.zeros(1, 64, 64),
        torch.ones(64, 64, dtype=torch.bool),
        Letterbox((64, 64), 64),
    )

    def __init__(self) -> None:
        self.clicks: list[list[float]] = []

    def decode_clicks(self, points: FloatArray) -> MaskPrediction:
        self.clicks += points.tolist()
        logits = torch.full((len(points), 2, 64, 64), -1.0)
        for row, (x, y) in enumerate(points.tolist()):
            left, top = int(x) // 32 * 32, int(y) // 32 * 32
            logits[row, 0, top : top + 32, left : left + 32] = 1.0
            logits[row, 1, top : top + 16, left : left + 16] = 1.0
        return MaskPrediction(logits, torch.tensor([[0.8, 0.9]]).repeat(len(points), 1))


@pytest.mark.parametrize(
    ("settings", "clicks", "found"),
    [
        (EverythingSettings(grid=8), 16, 8),
        (EverythingSettings(grid=8, skip_covered=False), 64, 8),
        (EverythingSettings(grid=8, alternatives=False), 16, 4),
        (EverythingSettings(grid=8, min_score=0.85), 64, 4),
        (EverythingSettings(grid=8, grid_score=0.85), 16, 4),
    ],
)
def test_a_click_is_left_out_where_a_mask_is(
    settings: EverythingSettings, clicks: int, found: int
) -> None:
    """A batch holds 16 clicks, and an alternative does not stand for the object around it."""
    image: Any = _Squares()
    objects = find_objects(image, settings)
    assert len(image.clicks) == clicks
    assert len(objects) == found
    assert objects == sorted(objects, key=lambda one: -one.score)


def test_of_masks_of_one_object_the_best_stays() -> None:
    """Several clicks may find it, and a click may find a part of it."""
    masks = np.zeros((4, 20, 20), np.bool_)
    masks[0, 2:10, 2:10] = masks[1, 2:10, 2:11] = masks[2, 12:18, 12:18] = True
    masks[3, 3:6, 3:6] = True
    assert suppress(masks, [0.8, 0.9, 0.7, 0.6], 0.5) == [1, 2]


def test_the_class_of_an_object_is_that_of_most_of_its_pixels() -> None:
    """The background is not a class of an object."""
    chances = torch.empty(3, 10, 10)
    chances[0], chances[1], chances[2] = 0.5, 0.2, 0.3
    masks = np.zeros((2, 20, 20), np.bool_)
    masks[0, 4:12, 4:12] = masks[1, 0:2, 0:2] = True
    probabilities, objectness = classes_of(masks, chances, background=True)
    assert probabilities == pytest.approx(np.array([[0.4, 0.6]] * 2))
    assert objectness == pytest.approx(0.5)
    assert DenseSpec(background=True, classes=(4, 9)).label_values == (0, 4, 9)
    assert DenseSpec(background=True, classes=(None,)).label_values == (0, 1)


def test_masks_grow_over_the_object_they_lie_in() -> None:
    """A click's mask often ends inside of its object; two masks of one blob share it, and far pixels stay free."""
    inside = np.zeros((20, 40), np.bool_)
    inside[5:15, 5:25] = inside[5:15, 30:38] = True
    first, second = _box(8, 8, 3), _box(8, 20, 3)
    small = grown([first, second], inside, 2)
    assert [one.window for one in small] == [(6, 6, 13, 13), (6, 18, 13, 25)]
    assert all(one.crop.all() for one in small)
    large = grown([first, second], inside, 40)
    assert sum(one.area for one in large) == 10 * 20
    assert not (large[0].mask((20, 40)) & large[1].mask((20, 40))).any()
    assert grown([first, second], ~inside, 5) == [first, second]
    assert grown([], inside, 5) == []


def _box(y0: int, x0: int, side: int, value: int = 0) -> Instance:
    return Instance(
        value, Window(y0, x0, y0 + side, x0 + side), np.ones((side, side), np.bool_)
    )


def test_ious_count_no_ignored_pixel() -> None:
    """There is no truth there."""
    scored = np.ones((20, 20), np.bool_)
    assert ious(
        [_box(0, 0, 10)], [_box(0, 5, 10), _box(12, 12, 4)], scored
    ).tolist() == [[pytest.approx(1 / 3), 0]]
    scored[:, 10:] = False
    assert ious([_box(0, 0, 10)], [_box(0, 5, 10)], scored)[0, 0] == pytest.approx(0.5)


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
