"""Scores of masks without prompts over a split: what counts, what is left out, in any number of parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
import torch
from data_sets import Planes, open_planes, save_image, save_mask

from simmat.data.card import DataCard
from simmat.data.dataset import Dataset
from simmat.data.instances import (
    Annotation,
    FoundObject,
    Instance,
    label_from_mask,
)
from simmat.data.pipeline import Pipeline
from simmat.errors import DataError
from simmat.evaluation import EvalRequest, evaluate
from simmat.evaluation.unprompted import AutomaticScores, ImageMatches, object_scores
from simmat.model import SimMAT
from simmat.model_spec import DenseSpec
from simmat.predictor import Predictor, tiled_image
from simmat.predictor.encoded import EncodedImage
from simmat.types import SensorImage, Window

SIZE = 32


def square(y0: int, x0: int, side: int, value: int = 1) -> Instance:
    return Instance(
        value, Window(y0, x0, y0 + side, x0 + side), np.ones((side, side), np.bool_)
    )


def objects(regions: Sequence[Instance], scores: Sequence[float]) -> list[FoundObject]:
    return [
        FoundObject(region, score, (0, 0))
        for region, score in zip(regions, scores, strict=True)
    ]


def label_of(*regions: Instance, smallest: int = 1) -> Annotation:
    label = Annotation(
        (SIZE, SIZE), (), np.zeros((SIZE, SIZE), np.bool_), smallest=smallest
    )
    large = tuple(one for one in regions if one.area >= smallest)
    return replace(
        label, regions=large, small=tuple(one for one in regions if one.area < smallest)
    )


def test_average_precision_is_that_of_pycocotools() -> None:
    """Small objects are neither hit nor miss, as in COCO's rule for an area range, whose own code is the judge."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rng, smallest, images = np.random.default_rng(1), 40, []
    truth: dict[str, list[Any]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1}, {"id": 2}],
    }
    results: list[dict[str, Any]] = []

    def entry(number: int, one: Instance) -> dict[str, Any]:
        code = coco_mask.encode(
            np.asfortranarray(one.mask((SIZE, SIZE)).astype(np.uint8))
        )
        return {"image_id": number, "category_id": one.class_id, "segmentation": code}

    for number in range(1, 7):
        true = [
            square(*map(int, rng.integers((0, 0, 4, 1), (22, 22, 10, 3))))
            for _ in range(5)
        ]
        sizes = [(t, t.window.size_hw[0] + int(rng.integers(-1, 2))) for t in true]
        moved = [
            square(t.window.y0, t.window.x0, size, t.class_id or 0) for t, size in sizes
        ]
        found = moved + [
            square(*map(int, rng.integers((0, 0, 4, 1), (22, 22, 10, 3))))
            for _ in range(3)
        ]
        scores = rng.random(len(found)).astype(np.float32)
        images.append(
            ImageMatches.of(
                objects(found, scores.tolist()), label_of(*true, smallest=smallest)
            )
        )
        truth["images"].append({"id": number, "width": SIZE, "height": SIZE})
        for one in true:
            known = len(truth["annotations"]) + 1
            truth["annotations"].append(
                {**entry(number, one), "id": known, "area": one.area, "iscrowd": 0}
            )
        results += [
            {**entry(number, one), "score": float(s)}
            for one, s in zip(found, scores, strict=True)
        ]
    reference = COCO()
    reference.dataset = truth
    reference.createIndex()
    judge = COCOeval(reference, reference.loadRes(results), "segm")
    judge.params.areaRng, judge.params.areaRngLbl = [[smallest, 1e9]], ["all"]
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][..., 0, -1]  # (threshold, recall, class)
    assert object_scores(images)["ap"] == pytest.approx(precision.mean(), abs=1e-6)
    assert object_scores(images)["ap50"] == pytest.approx(precision[0].mean(), abs=1e-6)


def test_what_is_found_in_ignored_pixels_is_not_a_false_alarm() -> None:
    """Ignored pixels have no truth; an object that lies there by half or more is excused at 0.5."""
    label = label_of(square(2, 2, 8))
    label.ignore[:, 16:] = True
    found = objects(
        [square(2, 2, 8), square(4, 20, 8), square(20, 13, 8)], [0.5, 0.9, 0.8]
    )
    assert object_scores([ImageMatches.of(found, label)])["f1"] == 1
    label.ignore[:, 16:] = False
    assert object_scores([ImageMatches.of(found, label)])["f1"] == pytest.approx(2 / 4)


class Answer:
    """The objects and classes of a label image."""

    warning, nbytes = "", 0

    def __init__(self, labels: npt.NDArray[np.int64], dense: DenseSpec | None) -> None:
        self.labels, self.dense = labels, dense

    def class_map(self) -> npt.NDArray[np.float32]:
        assert self.dense is not None
        values = np.asarray(self.dense.label_values)
        found: npt.NDArray[np.float32] = (self.labels == values[:, None, None]).astype(
            np.float32
        )
        return found

    def objects(self) -> list[FoundObject]:
        objects = []
        for value in np.unique(self.labels[self.labels > 0]).tolist():
            one = label_from_mask(
                (self.labels == value).astype(np.int64), DataCard(regions="instances")
            ).regions[0]
            objects.append(
                FoundObject(
                    replace(one, class_id=value if self.dense else None),
                    0.5,
                    (0.0, 0.0),
                )
            )
        return objects


class Scripted(Predictor):
    """Finds what it is told, image by image."""

    found: dict[float, npt.NDArray[np.int64]]

    def encode(self, image: SensorImage, *_: object) -> EncodedImage:
        return cast(
            EncodedImage, Answer(self.found[float(image.data[0, 0, 0])], self.dense)
        )


def scripted(
    found: dict[float, npt.NDArray[np.int64]], *classes: int | None, dense: bool = True
) -> Predictor:
    spec = DenseSpec(background=True, classes=classes) if dense else None
    model = Scripted(
        cast(SimMAT, torch.nn.Identity()), Pipeline(Planes(), (), SIZE), dense=spec
    )
    model.found = found
    return model


def unprompted(model: Predictor, dataset: Dataset, **options: Any) -> AutomaticScores:
    """Score what a model finds in all samples."""
    asked = {"everything": True, "semantic": True, **options}
    with patch.object(
        tiled_image, "find_objects", lambda encoded, settings: encoded.objects()
    ):
        scores = evaluate(
            model, dataset, dataset.samples, request=EvalRequest(protocol=None, **asked)
        )
    assert not scores.objects
    found = scores.unprompted
    assert found is not None
    return found


def masks_of(
    *squares: Sequence[tuple[int, int, int, int]],
) -> list[npt.NDArray[np.int64]]:
    masks = [np.zeros((SIZE, SIZE), np.int64) for _ in squares]
    for mask, parts in zip(masks, squares, strict=True):
        for y, x, side, value in parts:
            mask[y : y + side, x : x + side] = value
    return masks


TRUE = masks_of([(0, 0, 8, 1), (16, 16, 8, 2)], [(4, 4, 10, 1)], [(0, 8, 6, 2)])
FOUND = masks_of([(0, 0, 8, 1), (16, 16, 8, 1)], [(4, 4, 10, 1)], [(20, 20, 4, 2)])


def data_set(root: Path, **card: Any) -> Dataset:
    for index, mask in enumerate(TRUE):
        save_image(
            root / f"images/s{index}.npy", np.full((1, SIZE, SIZE), float(index))
        )
        save_mask(root / f"masks/s{index}.png", mask)
    return open_planes(root, **card)


ANSWERS = {float(index): mask for index, mask in enumerate(FOUND)}


def test_objects_are_matched_by_class_and_without(tmp_path: Path) -> None:
    """A right mask of the wrong class is half an answer; both figures are given."""
    dataset = data_set(tmp_path, regions="components")
    # Equal classes of one image are one object of the scripted model, so image 0 is answered with its own classes.
    answers = {**ANSWERS, 0.0: np.where(TRUE[0] == 2, 7, TRUE[0])}
    scored = unprompted(scripted(answers, 1, 2, 7), dataset, semantic=False)
    assert scored.mistakes() == {
        "s0": {"objects": 2, "missed": 0, "extra": 0, "wrong_class": 1},
        "s1": {"objects": 1, "missed": 0, "extra": 0, "wrong_class": 0},
        "s2": {"objects": 1, "missed": 1, "extra": 1, "wrong_class": 0},
    }
    block = scored.summary()
    assert list(block) == ["everything"]
    found = block["everything"]
    assert (found["images"], found["objects"], found["found"]) == (3, 4, 4)
    assert found["by_class"]["1"]["ap50"] == pytest.approx(1.0)
    assert found["by_class"]["2"]["ap50"] == 0.0
    assert found["ap50"] == pytest.approx(0.5)
    assert found["any_class"]["f1"] == pytest.approx(2 * 3 / 8)


def test_a_model_without_classes_is_scored_without(tmp_path: Path) -> None:
    """The grid of clicks knows none, so its figure stands beside the one without classes."""
    dataset = data_set(tmp_path, regions="components")
    plain = unprompted(scripted(ANSWERS, dense=False), dataset, semantic=False)
    found = plain.summary()["everything"]
    assert found["ap50"] is None
    assert found["any_class"]["ap50"] is not None
    assert found["clicks"] == "grid"


def test_a_class_map_is_scored_over_the_whole_split(tmp_path: Path) -> None:
    """One confusion matrix, not a mean of images."""
    dataset = data_set(tmp_path, regions="components")
    found = unprompted(scripted(ANSWERS, 1, 2), dataset, everything=False).summary()
    true, answer = np.stack(TRUE), np.stack(FOUND)
    expected = {
        str(v): float(
            ((true == v) & (answer == v)).sum() / ((true == v) | (answer == v)).sum()
        )
        for v in (0, 1, 2)
    }
    assert found["semantic"]["iou_by_class"] == pytest.approx(expected)
    assert found["semantic"]["miou"] == pytest.approx(sum(expected.values()) / 3)
    assert found["semantic"]["pixel_accuracy"] == pytest.approx(
        float((true == answer).mean())
    )
    assert found["semantic"]["pixels"] == true.size


def test_unmarked_objects_are_not_scored(tmp_path: Path) -> None:
    """Where some are not marked, an object that is found may be right; the class map is scored on marked pixels."""
    dataset = data_set(tmp_path, regions="components", zero_means="unlabelled")
    model = scripted(ANSWERS, 1, 2)
    with pytest.raises(DataError, match="--everything"):
        unprompted(model, dataset)
    found = unprompted(model, dataset, everything=False).summary()["semantic"]
    assert found["pixels"] == int((np.stack(TRUE) > 0).sum())
