"""What tells one data set from another without reading its images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from runs import gray_set, registry

from simmat.data.dataset import open_dataset
from simmat.data.fingerprint import fingerprint_of


def fingerprint(root: Path) -> str:
    return fingerprint_of(open_dataset(root, registry().modality("gray")))


def test_it_is_the_same_wherever_the_set_lies(tmp_path: Path) -> None:
    """A set that was moved is the same set."""
    first, second = gray_set(tmp_path / "a"), gray_set(tmp_path / "b")
    assert fingerprint(first) == fingerprint(second)


def test_a_mask_of_the_same_size_with_other_values_is_another(tmp_path: Path) -> None:
    """Relabelling may leave every file as long as it was."""
    root = gray_set(tmp_path / "set")
    before = fingerprint(root)
    mask = np.asarray(Image.open(root / "masks/s0.png"))
    np.save(root / "masks/s0.npy", mask)
    (root / "masks/s0.png").unlink()
    manifest = root / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("masks/s0.png", "masks/s0.npy"))
    as_array = fingerprint(root)
    size = (root / "masks/s0.npy").stat().st_size
    np.save(root / "masks/s0.npy", np.roll(mask, 1, axis=1))
    assert (root / "masks/s0.npy").stat().st_size == size
    assert len({before, as_array, fingerprint(root)}) == 3


@pytest.mark.parametrize("meaning", ["none", "unlabelled"])
def test_another_meaning_of_zero_is_another(tmp_path: Path, meaning: str) -> None:
    """It makes other regions of the same files."""
    root = gray_set(tmp_path / "set")
    manifest = root / "manifest.csv"
    head, *rows = manifest.read_text().splitlines()
    found = set()
    for zero in ("background", meaning):
        manifest.write_text("\n".join([f"{head},zero_means", *(f"{row},{zero}" for row in rows)]) + "\n")
        found.add(fingerprint(root))
    assert len(found) == 2


def test_other_annotations_are_another(tmp_path: Path) -> None:
    """The labels of a COCO file lie in no mask."""
    root = gray_set(tmp_path / "set")
    (root / "manifest.csv").unlink()
    shutil.rmtree(root / "masks")
    images = [{"id": i, "file_name": f"s{i}.png", "height": 40, "width": 56} for i in range(9)]
    square = [[4, 4, 20, 4, 20, 20, 4, 20]]
    annotations = [{"id": i, "image_id": i, "category_id": 1, "segmentation": square} for i in range(9)]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    file = root / "annotations.json"
    file.write_text(json.dumps(content))
    before = fingerprint(root)
    file.write_text(json.dumps(content, indent=1))
    assert fingerprint(root) == before, "how the file is written says nothing"
    annotations[0]["segmentation"] = [[4, 4, 21, 4, 21, 20, 4, 20]]
    file.write_text(json.dumps(content))
    assert fingerprint(root) != before
