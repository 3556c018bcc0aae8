"""Labels, pictures and COCO of found objects and class maps."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from found_results import classes_result, found, found_box, objects_result, write_result
from PIL import Image
from pycocotools.coco import COCO

from simmat.data.instances import Instance, read_mask
from simmat.drawing.found import MAX_SIDE
from simmat.drawing.overlay import class_colour
from simmat.inference import coco_document, object_records
from simmat.inference import formats as formats_module
from simmat.inference.coco import run_lengths, write_coco
from simmat.inference.formats import draw_result
from simmat.types import Window


def test_the_object_of_higher_score_is_in_front_and_has_the_lower_number(
    tmp_path: Path,
) -> None:
    """A label image cannot hold both of two objects that overlap."""
    result = objects_result(
        (20, 30), found_box(0, 0, 10, 10, 1, 0.4), found_box(5, 5, 15, 25, 2, 0.9)
    )
    assert write_result(result, ["labels"], tmp_path) == ["a_objects.png"]
    labels = read_mask(tmp_path / "a_objects.png")
    assert labels.shape == (20, 30)
    assert (labels[5:15, 5:25] == 1).all()
    assert labels[0, 0] == 2
    assert (labels == 2).sum() == 100 - 25


def test_what_a_png_cannot_hold_becomes_a_tiled_tiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of rows are put together at the right places, the incomplete last tiles too."""
    import tifffile

    monkeypatch.setattr(formats_module, "MAX_PNG_SIDE", 600)
    classes = np.arange(700 * 1100, dtype=np.int32).reshape(700, 1100) % 251
    assert write_result(classes_result(classes), ["labels"], tmp_path) == [
        "a_classes.tif"
    ]
    np.testing.assert_array_equal(read_mask(tmp_path / "a_classes.tif"), classes)
    with tifffile.TiffFile(tmp_path / "a_classes.tif") as tiff:
        assert tiff.pages[0].aspage().is_tiled


def test_objects_are_drawn_in_colours_of_their_own_where_they_are(
    tmp_path: Path,
) -> None:
    """A picture is how one sees at a glance what was found."""
    result = objects_result(
        (600, 800),
        found_box(100, 100, 200, 200, score=0.9),
        found_box(300, 400, 400, 700),
    )
    assert write_result(result, ["overlay"], tmp_path) == ["a_overlay.png"]
    drawn = np.asarray(Image.open(tmp_path / "a_overlay.png"))
    assert drawn.shape == (600, 800, 3)
    one, other, ground = drawn[110, 110], drawn[310, 410], drawn[50, 50]
    assert len({tuple(pixel.tolist()) for pixel in (one, other, ground)}) == 3
    assert (ground == 128).all()


def test_a_large_image_is_shown_small_and_no_object_is_lost() -> None:
    """An object of one pixel in 20,000 still shows."""
    result = objects_result((20_000, 10_000), found_box(9_999, 5_001, 10_000, 5_002))
    drawn = np.asarray(draw_result(result))
    assert max(drawn.shape) == MAX_SIDE
    assert (drawn[1018:1029, 507:518] != 128).any()
    assert (drawn[:900] == 128).all()


# Linear RGB as people see it who lack one kind of cone (Viénot, Brettel, Mollon 1999).
PROTAN = np.array(
    [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]
)
DEUTAN = np.array(
    [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]
)


@pytest.mark.parametrize(
    "eyes", [np.eye(3), PROTAN, DEUTAN], ids=["all cones", "no L cones", "no M cones"]
)
def test_the_colours_of_the_first_eight_classes_differ(eyes: np.ndarray) -> None:
    """Also for people with colour-blindness."""
    srgb = np.array([class_colour(value) for value in range(1, 9)]) / 255
    seen = np.clip((((srgb + 0.055) / 1.055) ** 2.4) @ eyes.T, 0, 1)  # (8, 3) linear
    nearest = min(
        np.linalg.norm(np.cbrt(a) - np.cbrt(b))
        for a, b in itertools.combinations(seen, 2)
    )
    assert nearest > 0.1


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
