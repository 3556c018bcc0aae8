"""Labels that contradict what a model sees, from scripted opinions: no network runs."""

from __future__ import annotations

import numpy as np
import pytest
from simmat_plugin_report.planted_errors import LabelCheck
from simmat_plugin_report.second_opinion import Opinion
from simmat_plugin_report.suspicions import suspicions_in

from simmat.data.instances import Annotation, FoundObject, Instance
from simmat.types import Window

SIZE = (60, 200)


def square(x: int, side: int = 20, y: int = 20, value: int | None = None) -> Instance:
    """A square whose first column is x."""
    crop = np.ones((side, side), np.bool_)
    return Instance(value, Window(y, x, y + side, x + side), crop)


def label_of(*regions: Instance) -> Annotation:
    """A label of regions."""
    return Annotation(SIZE, regions, np.zeros(SIZE, np.bool_))


def opinion_of(label: Annotation, *seen: Instance, right: float = 0.9) -> Opinion:
    """What a model that finds some squares thinks of a label; it is as sure of classes as `right`."""
    objectness = np.full(SIZE, 0.05, np.float32)
    objects = []
    for one in seen:
        objectness[one.window.slices][one.crop] = 0.95
        x0, y0, _, _ = one.box_xyxy
        objects.append(FoundObject(one, 0.9, (x0, y0), None))
    classes = []
    for region in label.regions:
        true = next((one for one in seen if one.window == region.window), None)
        if true is None or true.class_id is None:
            classes.append(None)
            continue
        classes.append({true.class_id: right, 3 - true.class_id: 1 - right})
    return Opinion(objects, objectness, classes)


def kinds_in(label: Annotation, opinion: Opinion) -> list[tuple[str, int | None]]:
    """What is suspected of which region."""
    return [(one.kind, one.region) for one in suspicions_in(label, opinion)]


def test_what_has_no_ground_truth_is_not_missed() -> None:
    """Nobody was asked to label it."""
    ignore = np.zeros(SIZE, np.bool_)
    ignore[:, 90:] = True
    label = Annotation(SIZE, (square(10),), ignore)
    found = kinds_in(label, opinion_of(label, square(10), square(100)))
    assert ("missed", None) not in found


def test_two_objects_in_one_label_are_merged() -> None:
    """Each found object lies inside the label."""
    crop = np.ones((20, 50), np.bool_)
    label = label_of(Instance(None, Window(20, 10, 40, 60), crop))
    found = kinds_in(label, opinion_of(label, square(10), square(40)))
    assert ("merged", 0) in found


def check_of(
    wrong: dict[int, tuple[Annotation, tuple[Instance, ...]]], images: int = 30
) -> LabelCheck:
    """Compare right labels of two objects of two classes each, and some that are given, with a model that is right."""
    rng = np.random.default_rng(3)
    check = LabelCheck(np.random.default_rng(0))
    for number in range(images):
        seen = (
            square(int(rng.integers(5, 30)), value=1),
            square(int(rng.integers(100, 140)), value=2),
        )
        label = label_of(*seen)
        if number in wrong:
            label, seen = wrong[number]
        check.add(label, opinion_of(label, *seen, right=rng.uniform(0.7, 0.95)))
    return check


@pytest.mark.parametrize(
    ("kind", "labelled", "seen"),
    [
        ("missed", (square(10, value=1),), (square(10, value=1), square(100, value=2))),
        ("class", (square(10, value=2),), (square(10, value=1),)),
        ("border", (square(18, value=1),), (square(10, value=1),)),
    ],
)
def test_a_wrong_label_is_suspected_first(
    kind: str, labelled: tuple[Instance, ...], seen: tuple[Instance, ...]
) -> None:
    """Among 30 images with right labels it must not be looked for."""
    ranked = check_of({7: (label_of(*labelled), seen)}).ranked()
    first = ranked[0]
    assert (first.image, first.suspicion.kind) == (7, kind)
    assert first.score > 0.5
    assert all(0 <= one.score <= 1 for one in ranked)
