"""The split rule for data sets that name none."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmat.data.card import DataCard
from simmat.data.dataset import Dataset
from simmat.data.samples import Sample, decide_splits
from simmat.errors import DataError
from simmat.sensors.builtin import Gray


def samples(count: int, split: str = "") -> list[Sample]:
    """Samples s0, s1 … of one file each."""
    return [Sample(f"s{index}", split, ("x",), (f"s{index}.npy", "m.png")) for index in range(count)]


def counts(found: tuple[Sample, ...]) -> dict[str, int]:
    """Samples in each split."""
    return {name: sum(sample.split == name for sample in found) for name in ("train", "val", "test")}


def test_without_splits_they_are_70_15_15_and_reported() -> None:
    """The user has to be able to read what was decided for them."""
    found, note, _ = decide_splits(Path("D"), samples(400), "manifest.csv")
    assert counts(found) == {"train": 288, "val": 54, "test": 58}
    assert "288 train, 54 val, 58 test of 400 images" in note


def test_an_image_in_two_splits_is_refused() -> None:
    """Its score would be of an image trained on; two ids do not make two images of it."""
    train, test = samples(3, "train"), samples(5, "test")[3:]
    with pytest.raises(DataError, match=r"s1\.npy .*train \('s1'\) .*test \('again'\)"):
        decide_splits(Path("D"), [*train, *test, train[1]._replace(id="again", split="test")], "manifest.csv")


def test_splits_follow_the_hash_of_the_id_and_not_the_order() -> None:
    """A new listing order of the file system must not move images between splits; the picks are pinned for good."""
    forward = decide_splits(Path("D"), samples(20), "x")[0]
    backward = decide_splits(Path("D"), samples(20)[::-1], "x")[0]
    assert {sample.id: sample.split for sample in forward} == {sample.id: sample.split for sample in backward}
    assert sorted(sample.id for sample in forward if sample.split == "val") == ["s13", "s7", "s8"]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("first", "more"), [(3, 4), (15, 30), (15, 29), (4, 300), (150, 300)])
def test_labelling_more_moves_no_image_from_train(first: int, more: int, train: bool) -> None:
    """An image once trained on, in a test split, makes the score a lie."""

    def splits(count: int) -> dict[str, str]:
        found, _, by_hash = decide_splits(Path("D"), samples(count, "train" * train), "x")
        assert by_hash
        assert all(counts(found)[split] for split in ("train", "val", *(() if train else ("test",))))
        return {sample.id: sample.split for sample in found}

    before, after = splits(first), splits(more)
    assert {id for id, split in before.items() if split == "train"} <= {id for id in after if after[id] == "train"}


def test_train_without_val_gives_some_of_it_and_leaves_test_alone() -> None:
    """Choosing the best step on test would be the benchmark's old mistake."""
    given = samples(20, "train") + [sample._replace(id=f"t{sample.id}", split="test") for sample in samples(5)]
    given = [*given[:20], *(sample._replace(paths=(sample.id, "m.png")) for sample in given[20:])]
    found, note, _ = decide_splits(Path("D"), given, "manifest.csv")
    assert counts(found) == {"train": 17, "val": 3, "test": 5}
    assert "names no val split" in note


def test_several_labels_of_one_image_stay_together() -> None:
    """An image in train and test at once makes the score a lie."""
    doubled = [sample._replace(id=f"{sample.id}-{copy}") for sample in samples(12) for copy in range(3)]
    found = decide_splits(Path("D"), doubled, "x")[0]
    by_file: dict[Path, set[str]] = {}
    for sample in found:
        by_file.setdefault(sample.reference, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in by_file.values())


def test_named_splits_stay_as_they_are() -> None:
    """Who names splits means them; a test set alone is enough to score on."""
    given = samples(3, "test")
    assert decide_splits(Path("D"), given, "manifest.csv")[0] == tuple(given)


@pytest.mark.parametrize(("count", "split"), [(2, ""), (1, "train")])
def test_too_few_images_to_split_can_be_opened_and_not_trained_on(count: int, split: str) -> None:
    """Labels of one image can be converted and looked at; who trains is told how many images it takes."""
    found, note, _ = decide_splits(Path("D"), samples(count, split), "x")
    assert counts(found) == {"train": count, "val": 0, "test": 0}
    dataset = Dataset(Path("D"), Gray(), DataCard(regions="instances"), found, note)
    with pytest.raises(DataError, match=rf"val split is empty.* {count} train.*[Aa]t least 3.*manifest\.csv"):
        dataset.split("val")
