"""Label images that hold both the object and its class: value // 1000 is the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simmat.data.card import DataCard
from simmat.data.dataset import Dataset
from simmat.data.index import read_index
from simmat.data.instances import label_from_mask
from simmat.errors import DataError

CARD = DataCard(regions="panoptic")


def test_touching_objects_of_one_class_stay_two() -> None:
    """This is what no other rule can say of a label image."""
    mask = np.array([[1001, 1001, 1002], [0, 2001, 1002]])
    regions = label_from_mask(mask, CARD).regions
    assert [(region.class_id, region.area) for region in regions] == [
        (1, 2),
        (1, 2),
        (2, 1),
    ]


def test_a_value_without_a_class_is_refused() -> None:
    """Ids of a set without classes would otherwise all be of class 0, the background of a class map."""
    with pytest.raises(
        DataError, match=r"a\.png: label value 7 has no class.*--regions instances"
    ):
        label_from_mask(np.array([[0, 7]]), CARD, origin="a.png")


def test_training_learns_the_classes(tmp_path: Path) -> None:
    """The index, from which a dense head takes its classes, sees them as those of class masks."""
    mask = np.zeros((20, 20), np.uint16)
    mask[:5, :5], mask[:5, 5:9], mask[10:, 10:] = 1001, 1002, 3001
    images = [np.full((20, 20), number, np.uint8) for number in range(3)]
    split = ["train", "val", "test"]
    data = Dataset.from_arrays(
        images, [mask] * 3, folder=tmp_path, split=split, regions="panoptic"
    )
    assert data.has_classes
    assert read_index(data).classes(data.samples) == (1, 3)
