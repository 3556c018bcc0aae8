"""Labels that a model made: they train, and judge nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simmat.data.dataset import Dataset, open_dataset
from simmat.data.index import digest_dataset
from simmat.data.predicted import write_predicted
from simmat.data.samples import SPLITS, write_splits
from simmat.errors import DataError, SimMATError
from simmat.sensors.builtin import Gray


def folder(root: Path, ids: list[str], side: int = 20) -> Path:
    """A data set of images with one object each."""
    for part in ("images", "masks"):
        for id in ids:
            plane = np.zeros((side, side), np.uint8)
            plane[5:9, 5:9] = 1
            path = root / f"{part}/{id}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(plane).save(path)
    (root / "card.toml").write_text('format = 1\nregions = "instances"\n')
    return root


def opened(root: Path) -> Dataset:
    """The data set, its splits written down as a training does."""
    dataset = open_dataset(root, Gray())
    assert not write_splits(root, dataset.new_splits)
    return open_dataset(root, Gray())


def split_of(dataset: Dataset) -> dict[str, str]:
    """The split in which each image is used."""
    used = {}
    for name in SPLITS:
        if dataset.has_split(name):
            used |= {one.id: name for one in dataset.split(name)}
    return used


def named(letter: str, count: int) -> list[str]:
    """Ids of images."""
    return [f"{letter}{number}" for number in range(count)]


def test_fifteen_labels_and_fifteen_predictions(tmp_path: Path) -> None:
    """A validation on a model's own predictions says that the model is good."""
    own, found = named("a", 15), named("p", 15)
    alone = split_of(opened(folder(tmp_path / "alone", own)))
    both = folder(tmp_path / "both", own + found)
    write_predicted(both, set(found))
    dataset = opened(both)
    used = split_of(dataset)
    assert {used[id] for id in found} == {"train"}
    assert {id: used[id] for id in own} == alone
    assert sorted(alone.values()).count("val") == 2
    assert "15 of 30 samples were made by a model" in dataset.predicted_note
    assert "Used for training: 15" in dataset.predicted_note


def test_an_image_of_val_is_left_out_until_it_is_drawn_anew(tmp_path: Path) -> None:
    """It does not move to train: there it would be known to the model when it comes back."""
    root = folder(tmp_path, named("a", 10))
    before = split_of(opened(root))
    fingerprint = digest_dataset(open_dataset(root, Gray())).fingerprint
    first = next(id for id, split in before.items() if split == "val")
    write_predicted(root, {first})
    marked = opened(root)
    assert first not in split_of(marked)
    assert "confirms them: 1" in marked.predicted_note
    assert digest_dataset(marked).fingerprint != fingerprint
    write_predicted(root, set())
    assert not (root / "predicted.csv").exists()
    again = opened(root)
    assert split_of(again) == before
    assert digest_dataset(again).fingerprint == fingerprint
    assert again.predicted_note == ""


def test_a_val_folder_of_predictions_alone_is_refused(tmp_path: Path) -> None:
    """The message says why, and what to do."""
    ids = ["train/a", "train/b", "val/c"]
    root = folder(tmp_path, ids)
    write_predicted(root, {"val/c"})
    dataset = open_dataset(root, Gray())
    with pytest.raises(DataError, match=r"val split is empty.*made by a model") as why:
        dataset.split("val")
    assert "simmat annotate" in str(why.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name\na\n", "'name', expected id; .*remove the file"),
        ("id,id\na,b\n", "'id' occurs twice; remove or rename one"),
    ],
)
def test_a_table_without_one_column_of_ids_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    """Else labels of a model would count as those of a person."""
    root = folder(tmp_path, ["a", "b", "c"])
    (root / "predicted.csv").write_text(content)
    with pytest.raises(DataError, match=rf"predicted\.csv.*{words}"):
        open_dataset(root, Gray())


@pytest.mark.parametrize(
    "name", ["predicted.csv", "splits.csv", "manifest.csv", "card.toml"]
)
def test_a_link_to_nowhere_is_refused(tmp_path: Path, name: str) -> None:
    """What the file said is lost; the folder is not one without it."""
    root = folder(tmp_path, ["a", "b", "c"])
    (root / name).unlink(missing_ok=True)
    (root / name).symlink_to("nowhere")
    with pytest.raises(
        SimMATError, match=r"a link to nowhere, which is missing; .*remove the link"
    ):
        open_dataset(root, Gray(), {"regions": "instances"})
