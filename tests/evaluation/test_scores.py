"""What is averaged from the scores of objects, against figures worked out by hand."""

from __future__ import annotations

import pytest
from scripted_model import object_score

from simmat.evaluation import Scores

THREE = Scores(
    (
        object_score(
            0.2,
            sample="a",
            region=0,
            class_id=1,
            area=1023,
            metrics={"boundary_iou": 0.1},
        ),
        object_score(
            0.4,
            sample="a",
            region=1,
            class_id=2,
            area=1024,
            metrics={"boundary_iou": None},
        ),
        object_score(
            0.9,
            sample="b",
            region=0,
            class_id=1,
            area=9216,
            metrics={"boundary_iou": 0.3},
        ),
    )
)


def test_the_means_are_over_objects_images_and_classes() -> None:
    """They differ wherever an image holds many objects or a class is rare, and papers mix them up."""
    summary = THREE.summary()
    assert (summary["objects"], summary["images"]) == (3, 2)
    assert summary["miou_object"] == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert summary["miou_image"] == pytest.approx((0.3 + 0.9) / 2)
    assert summary["iou_by_class"] == {
        "1": pytest.approx(0.55),
        "2": pytest.approx(0.4),
    }
    assert summary["miou_class"] == pytest.approx((0.55 + 0.4) / 2)


def test_the_interval_draws_images() -> None:
    """Of two images it reaches from the mean of the one to that of the other; of one there is none."""
    assert THREE.summary()["miou_object_interval"] == pytest.approx((0.3, 0.9))
    assert Scores(THREE.objects[:2]).summary()["miou_object_interval"] is None


def test_size_bins_begin_at_32_and_96_pixels_squared() -> None:
    """COCO's bounds; an object on one must be in one bin, not in two."""
    sizes = THREE.summary()["by_size"]
    assert [(size, found["objects"]) for size, found in sizes.items()] == [
        ("small", 1),
        ("medium", 1),
        ("large", 1),
    ]
    assert [found["miou_object"] for found in sizes.values()] == [0.2, 0.4, 0.9]


def test_an_object_without_a_scored_boundary_leaves_the_boundary_iou() -> None:
    """It has no figure; a 0 would be one."""
    assert THREE.summary()["boundary_iou"] == pytest.approx(0.2)
    assert (
        Scores((object_score(metrics={"boundary_iou": None}),)).summary()[
            "boundary_iou"
        ]
        is None
    )


def test_a_failure_counts_as_all_the_clicks() -> None:
    """Else a model that never gets there would look quick; the failures are told apart as well."""
    curves = ((0.5, 0.86, 0.9), (0.1, 0.2, 0.3))
    clicks = Scores(
        tuple(object_score(curve[0], clicks=curve) for curve in curves)
    ).summary()["clicks"]
    assert clicks["miou"] == [
        pytest.approx(0.3),
        pytest.approx(0.53),
        pytest.approx(0.6),
    ]
    assert clicks["noc85"] == {"mean": (2 + 3) / 2, "failures": 1, "most_clicks": 3}
    assert clicks["noc90"] == {"mean": (3 + 3) / 2, "failures": 1, "most_clicks": 3}
