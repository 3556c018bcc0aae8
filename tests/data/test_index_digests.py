"""What tells one data set from another: every byte of its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from runs import gray_set, registry

from simmat.data.dataset import Dataset, open_dataset
from simmat.data.digest import DatasetDigest
from simmat.data.index import digest_dataset


def opened(root: Path) -> Dataset:
    return open_dataset(root, registry().modality("gray"))


def fingerprint(root: Path) -> str:
    return digest_dataset(opened(root)).fingerprint


def contents(root: Path) -> DatasetDigest:
    return digest_dataset(opened(root))


def change_a_byte(path: Path) -> None:
    """Change the last byte and leave the length."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_byte_of_an_image_changes_the_fingerprint(
    tmp_path: Path, split: str
) -> None:
    """An image exported anew is often as long as it was, and a run would go on with a mixture of both."""
    root = gray_set(tmp_path / "set")
    before = contents(root)
    name = {"train": "s1", "val": "s5", "test": "s8"}[split]
    change_a_byte(root / f"images/{name}.png")
    after = contents(root)
    said = after.changes_since(
        json.loads(json.dumps(before.notes())), before.fingerprint
    )
    assert before.fingerprint != after.fingerprint
    assert said.startswith("1 part changed")
    assert repr(name) in said


def test_what_changed_is_counted_and_the_first_named(tmp_path: Path) -> None:
    """Which of 50,000 files it was, no person finds by hand."""
    root = gray_set(tmp_path / "set")
    before = contents(root)
    for name in ("s0", "s2", "s3"):
        change_a_byte(root / f"images/{name}.png")
    manifest = root / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("s8,test,", "new,test,"))
    after = contents(root)
    said = after.changes_since(before.notes(), before.fingerprint)
    assert said.startswith("9 parts changed: images/s0.png of 's0', ")
    assert "'s3'" in said
    assert said.endswith("and 6 more")
    assert after.changes_since(before.notes(), "another") == ""
    assert after.changes_since(None, before.fingerprint) == ""


def test_it_is_taken_in_the_order_of_the_samples(tmp_path: Path) -> None:
    """Which sample stands where in a run goes by the order."""
    root = gray_set(tmp_path / "set")
    before = contents(root)
    head, first, second, *rest = (root / "manifest.csv").read_text().splitlines()
    (root / "manifest.csv").write_text("\n".join([head, second, first, *rest]) + "\n")
    after = contents(root)
    assert after.fingerprint != before.fingerprint
    assert "order" in after.changes_since(before.notes(), before.fingerprint)


def test_other_annotations_change_the_fingerprint(tmp_path: Path) -> None:
    """The labels of a COCO file lie in no mask."""
    root = gray_set(tmp_path / "set")
    (root / "manifest.csv").unlink()
    shutil.rmtree(root / "masks")
    images = [
        {"id": i, "file_name": f"s{i}.png", "height": 40, "width": 56} for i in range(9)
    ]
    square = [[4, 4, 20, 4, 20, 20, 4, 20]]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "segmentation": square}
        for i in range(9)
    ]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "disc"}],
    }
    file = root / "annotations.json"
    file.write_text(json.dumps(content))
    before = fingerprint(root)
    file.write_text(json.dumps(content, indent=1))
    assert fingerprint(root) == before, "how the file is written says nothing"
    annotations[0]["segmentation"] = [[4, 4, 21, 4, 21, 20, 4, 20]]
    file.write_text(json.dumps(content))
    assert fingerprint(root) != before
