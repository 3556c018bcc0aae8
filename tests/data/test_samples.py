"""The split rule for data sets that name none."""

from __future__ import annotations

from pathlib import Path

import pytest

from simmat.data.card import DataCard
from simmat.data.dataset import Dataset
from simmat.data.samples import Sample, decide_splits, divide_into_folds, write_splits
from simmat.errors import DataError
from simmat.sensors.builtin import Gray


def samples(count: int, split: str = "") -> list[Sample]:
    """Samples s0, s1 … of one file each."""
    return [
        Sample(f"s{index}", split, ("x",), (f"s{index}.npy", "m.png"))
        for index in range(count)
    ]


def counts(found: tuple[Sample, ...]) -> dict[str, int]:
    """Samples in each split."""
    return {
        name: sum(sample.split == name for sample in found)
        for name in ("train", "val", "test")
    }


def test_without_splits_they_are_70_15_15_and_reported() -> None:
    """The user has to be able to read what was decided for them."""
    found, note, _ = decide_splits(Path("D"), samples(40), "manifest.csv")
    assert counts(found) == {"train": 28, "val": 6, "test": 6}
    assert "28 train, 6 val, 6 test of 40 images" in note


def test_an_image_in_two_splits_is_refused() -> None:
    """Its score would be of an image trained on; two ids do not make two images of it."""
    train, test = samples(3, "train"), samples(5, "test")[3:]
    with pytest.raises(DataError, match=r"s1\.npy .*train \('s1'\) .*test \('again'\)"):
        decide_splits(
            Path("D"),
            [*train, *test, train[1]._replace(id="again", split="test")],
            "manifest.csv",
        )


def test_splits_follow_the_hash_of_the_id_and_not_the_order() -> None:
    """A new listing order of the file system must not move images between splits; the picks are pinned for good."""
    forward, _, _ = decide_splits(Path("D"), samples(20), "x")
    backward, _, _ = decide_splits(Path("D"), samples(20)[::-1], "x")
    assert {sample.id: sample.split for sample in forward} == {
        sample.id: sample.split for sample in backward
    }
    assert sorted(sample.id for sample in forward if sample.split == "val") == [
        "s13",
        "s7",
        "s8",
    ]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("first", "more"), [(3, 4), (15, 30), (15, 29), (4, 300), (150, 300)]
)
def test_labelling_more_moves_no_image(
    tmp_path: Path, first: int, more: int, train: bool
) -> None:
    """An image once trained on, in a test split, makes the score a lie."""

    def splits(count: int) -> dict[str, str]:
        listed, _, new = decide_splits(tmp_path, samples(count, "train" * train), "x")
        assert write_splits(tmp_path, new) == ""
        found = counts(listed)
        assert found["val"] == pytest.approx(0.15 * count, abs=max(2, 0.05 * count))
        assert found["val"]
        assert train or found["test"] == pytest.approx(
            found["val"], abs=max(1, 0.05 * count)
        )
        return {sample.id: sample.split for sample in listed}

    before = splits(first)
    assert splits(more).items() >= before.items()
    assert splits(first) == before
    assert (tmp_path / "splits.csv").exists() == (first < 100)


def test_written_splits_are_those_of_the_user(tmp_path: Path) -> None:
    """The file lies beside the images to be read and changed; an image that is gone stays in it."""
    (tmp_path / "splits.csv").write_text("id,split\ns3,test\ngone,val\nlate,val\n")
    given = [*samples(5), Sample("odd\udcff", "", ("x",), ("o.npy", "m.png"))]
    found, note, new = decide_splits(tmp_path, given, "x")
    assert [sample.id for sample in found if sample.split == "test"] == ["s3"]
    assert "2 ids of splits.csv have no image, such as 'gone'" in note
    assert write_splits(tmp_path, new) == ""
    assert {"s3,test", "gone,val", "late,val", "s0,train"} <= set(
        (tmp_path / "splits.csv").read_text().splitlines()
    )
    again, _, left = decide_splits(
        tmp_path, [*given, Sample("late", "", ("x",), ("l.npy", "m.png"))], "x"
    )
    assert again[:-1] == found
    assert again[-1].split == "val"
    assert not left


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,split\na,dev\n", r"line 2: .*'dev'.*train, val, test"),
        ("id,split\na,val\na,test\n", r"line 3: 'a' is val"),
        ("name,split\na,val\n", "expected id and split"),
    ],
)
def test_a_wrong_table_of_splits_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    """Guessed splits would mix training and test."""
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(DataError, match=rf"(?s)splits\.csv.*{message}"):
        decide_splits(tmp_path, samples(5), "x")


def test_a_folder_that_cannot_be_written_is_warned_of(tmp_path: Path) -> None:
    """Its splits follow ranks, which change with the number of labels."""
    (tmp_path / "file").touch()
    assert "more labels" in write_splits(tmp_path / "file", {"a": "val"})
    assert write_splits(tmp_path / "file", {}) == ""


def test_train_without_val_gives_some_of_it_and_leaves_test_alone() -> None:
    """Choosing the best step on test would be the benchmark's old mistake."""
    given = samples(20, "train") + [
        sample._replace(id=f"t{sample.id}", split="test") for sample in samples(5)
    ]
    given = [
        *given[:20],
        *(sample._replace(paths=(sample.id, "m.png")) for sample in given[20:]),
    ]
    found, note, _ = decide_splits(Path("D"), given, "manifest.csv")
    assert counts(found) == {"train": 17, "val": 3, "test": 5}
    assert "names no val split" in note


def test_several_labels_of_one_image_stay_together() -> None:
    """An image in train and test at once makes the score a lie."""
    doubled = [
        sample._replace(id=f"{sample.id}-{copy}")
        for sample in samples(12)
        for copy in range(3)
    ]
    found, _, _ = decide_splits(Path("D"), doubled, "x")
    by_file: dict[Path, set[str]] = {}
    for sample in found:
        by_file.setdefault(sample.reference, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in by_file.values())


@pytest.mark.parametrize(("count", "split"), [(2, ""), (1, "train")])
def test_too_few_images_to_split_can_be_opened_and_not_trained_on(
    count: int, split: str
) -> None:
    """Labels of one image can be converted and looked at; who trains is told how many images it takes."""
    found, note, _ = decide_splits(Path("D"), samples(count, split), "x")
    assert counts(found) == {"train": count, "val": 0, "test": 0}
    dataset = Dataset(Path("D"), Gray(), DataCard(regions="instances"), found, note)
    with pytest.raises(
        DataError,
        match=rf"val split is empty.* {count} train.*[Aa]t least 3.*manifest\.csv",
    ):
        dataset.split("val")


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
