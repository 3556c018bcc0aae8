"""Found objects as COCO: what others read is what was found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from found_results import found, found_box, objects_result
from pycocotools.coco import COCO

from simmat.data.instances import Instance
from simmat.inference import coco_document, object_records
from simmat.inference.coco import run_lengths, write_coco
from simmat.types import Window


def test_pycocotools_reads_the_same_masks_boxes_and_names(tmp_path: Path) -> None:
    """The format's own reader is the judge."""
    mask = np.zeros((30, 40), np.bool_)
    mask[4:9, 7:20] = mask[9:12, 10:12] = True
    result = objects_result((30, 40), found_box(0, 0, 2, 3, score=0.25), found(mask, 5))
    images = [("b.tif", (5, 5), []), ("a.tif", (30, 40), object_records(result))]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(coco_document(images, {5: "car", 6: "bus"})))
    coco = COCO(path)
    assert [entry["file_name"] for entry in coco.loadImgs([1, 2])] == ["b.tif", "a.tif"]
    one, two = coco.loadAnns(coco.getAnnIds(imgIds=2))
    np.testing.assert_array_equal(coco.annToMask(one), mask)
    assert one["bbox"] == [7, 4, 13, 8]
    assert one["area"] == mask.sum()
    assert two["score"] == 0.25
    assert {
        entry["id"]: entry["name"] for entry in coco.loadCats(coco.getCatIds())
    } == {
        1: "object",
        5: "car",
        6: "bus",
    }


def test_the_file_of_all_images_is_one_document(tmp_path: Path) -> None:
    """Labelling tools read one file; an image in a subfolder is named by its path."""
    result = objects_result((30, 40), found_box(3, 4, 9, 8, 2, 0.5))
    record = {
        "size_hw": [30, 40],
        "files": {"rgb": "data/b/a.png"},
        "objects": object_records(result),
    }
    images = [("b__a", record), ("large", {**record, "size_hw": [2**16, 2**16]})]
    assert write_coco(images, {2: "person"}, tmp_path / "c") == 1
    coco = COCO(tmp_path / "c")
    assert coco.loadCats(2)[0]["name"] == "person"
    assert coco.loadImgs(1)[0]["file_name"] == "b/a.png"
    assert coco.annToMask(coco.loadAnns(1)[0]).sum() == 24


@pytest.mark.parametrize("seed", range(8))
def test_run_lengths_made_of_a_crop_are_those_of_the_whole_mask(seed: int) -> None:
    """Also where a crop touches the image's borders, so that runs go over from column to column."""
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(seed)
    height, width = rng.integers(3, 9, 2).tolist()
    y0, x0 = (0, 0) if seed % 2 else (1, 1)
    crop = rng.random((height - y0 - seed // 4, width - x0)) < 0.7
    crop[0, 0] = crop[-1, -1] = True
    instance = Instance(None, Window(y0, x0, y0 + crop.shape[0], width), crop)
    whole = instance.mask((height, width))
    code = run_lengths(instance, (height, width))
    expected = coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))
    assert code["counts"] == expected["counts"].decode()
    np.testing.assert_array_equal(coco_mask.decode(code), whole)
