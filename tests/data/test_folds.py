"""Train and val divided into folds, so that every label has a model that did not see it."""

from __future__ import annotations

import pytest

from simmat.data.samples import Sample, divide_into_folds
from simmat.errors import DataError


def sample(name: str, split: str = "train", sequence: str = "") -> Sample:
    """A sample of a file of its own."""
    files = (f"{name}.npy", "m.png")
    return Sample(name, split, ("x",), files, sequence=sequence)


def val_of(samples: list[Sample], number: int, count: int) -> set[str]:
    """Ids that validate in a fold."""
    divided = divide_into_folds(samples, number, count)
    return {one.id for one in divided if one.split == "val"}


def test_each_image_of_train_and_val_validates_once() -> None:
    """A label that no fold leaves out would be compared with a model that learned it."""
    samples = [sample(f"s{index}") for index in range(8)]
    samples += [sample("v0", "val"), sample("v1", "val"), sample("t", "test")]
    folds = [val_of(samples, number, 3) for number in (1, 2, 3)]
    assert sorted(len(fold) for fold in folds) == [3, 3, 4]
    assert set.union(*folds) == {one.id for one in samples} - {"t"}
    assert sum(len(fold) for fold in folds) == 10


def test_the_test_split_stays() -> None:
    """It is for scores only."""
    divided = divide_into_folds([sample("a"), sample("b"), sample("t", "test")], 1, 2)
    assert divided[2].split == "test"


def test_frames_of_a_sequence_stay_together() -> None:
    """A neighbouring frame in training would be as good as the frame itself."""
    samples = [sample(f"a{index}", sequence="a") for index in range(4)]
    samples += [sample(f"b{index}", sequence="b") for index in range(4)]
    fold = val_of(samples, 1, 2)
    assert fold in ({"a0", "a1", "a2", "a3"}, {"b0", "b1", "b2", "b3"})


def test_labels_of_a_model_never_validate() -> None:
    """How alike two models are says nothing of a label."""
    samples = [sample("a"), sample("b"), sample("c")._replace(predicted=True)]
    assert val_of(samples, 1, 2) | val_of(samples, 2, 2) == {"a", "b"}


def test_more_folds_than_images_are_refused() -> None:
    """A fold without an image has nothing to validate on."""
    with pytest.raises(DataError, match="got 2; give at most --folds 2"):
        divide_into_folds([sample("a"), sample("b")], 1, 3)
