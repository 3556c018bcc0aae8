"""Found objects as COCO: what others read is what was found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from simmat.data.formats.coco_objects import ImageObjects, coco_document
from simmat.data.instances import Instance, region_from_mask


def test_pycocotools_reads_the_same_masks_boxes_and_names(tmp_path: Path) -> None:
    """The format's own reader is the judge."""
    mask = np.zeros((30, 40), np.bool_)
    mask[4:9, 7:20] = mask[9:12, 10:12] = True
    first = region_from_mask(mask, 5)
    assert first is not None
    second = Instance(None, (0, 0, 2, 3), np.ones((2, 3), np.bool_))
    image = ImageObjects("a.tif", (30, 40), (first, second), (0.5, 0.25))
    path = tmp_path / "found.json"
    path.write_text(json.dumps(coco_document([ImageObjects("b.tif", (5, 5), (), ()), image], {5: "car", 6: "bus"})))
    coco = COCO(path)
    assert [entry["file_name"] for entry in coco.loadImgs([1, 2])] == ["b.tif", "a.tif"]
    one, two = coco.loadAnns(coco.getAnnIds(imgIds=2))
    np.testing.assert_array_equal(coco.annToMask(one), mask)
    assert one["bbox"] == [7, 4, 13, 8]
    assert one["area"] == mask.sum()
    assert two["score"] == 0.25
    assert {entry["id"]: entry["name"] for entry in coco.loadCats(coco.getCatIds())} == {
        1: "object",
        5: "car",
        6: "bus",
    }
