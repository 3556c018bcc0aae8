"""COCO json in place of masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_sets import Pair, Planes, save_image
from pycocotools import mask as coco_mask

from simmat.data.dataset import Dataset, open_dataset
from simmat.data.formats.coco import draw_segmentation
from simmat.errors import ConfigError, DataError

SQUARE = [2, 1, 5, 1, 5, 4, 2, 4]
"""Columns 2 to 4, rows 1 to 3."""


def pixels(*squares: tuple[int, int, int, int]) -> np.ndarray:
    """A 6 by 8 mask with rectangles (y0, x0, y1, x1)."""
    mask = np.zeros((6, 8), dtype=np.uint8)
    for y0, x0, y1, x1 in squares:
        mask[y0:y1, x0:x1] = 1
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths as text."""
    runs = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


def plain(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths as numbers: column by column, zeros first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + runs}


def write(
    root: Path,
    annotations: list[dict[str, Any]],
    *,
    file: str = "annotations.json",
    images: str = "abc",
) -> Path:
    """Write images a, b, c (ids 1, 2, 3) and a json; annotations are completed where keys are missing."""
    for name in images:
        save_image(root / f"images/{name}.npy", np.full((1, 6, 8), 300.0))
    content = {
        "images": [
            {"id": i, "file_name": f"{n}.npy", "height": 6, "width": 8}
            for i, n in enumerate(images, 1)
        ],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 4} | entry
            for i, entry in enumerate(annotations)
        ],
        "categories": [{"id": 4, "name": "boat"}, {"id": 9, "name": "plane"}],
    }
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(content))
    return root


def opened(root: Path, **card: Any) -> Dataset:
    """Open with the test sensor."""
    return open_dataset(root, Planes(), card)


def of(dataset: Dataset, name: str = "a") -> Any:
    """The label of one sample, compared with its image."""
    sample = next(sample for sample in dataset.samples if sample.id == name)
    return dataset.label(sample, dataset.image(sample))


@pytest.mark.parametrize(
    "segmentation",
    [[SQUARE], compressed(pixels((1, 2, 4, 5))), plain(pixels((1, 2, 4, 5)))],
)
def test_polygons_and_both_run_lengths_give_the_same_region(
    tmp_path: Path, segmentation: object
) -> None:
    """Tools write any of the three."""
    label = of(opened(write(tmp_path, [{"segmentation": segmentation}])))
    assert len(label.regions) == 1
    assert np.array_equal(
        label.regions[0].mask((6, 8)), pixels((1, 2, 4, 5)).astype(bool)
    )
    assert label.regions[0].class_id == 4


def test_crowds_are_ignored_and_cover_what_lies_below(tmp_path: Path) -> None:
    """A crowd is a place where nobody drew the single objects."""
    crowd = {"segmentation": compressed(pixels((0, 0, 6, 4))), "iscrowd": 1}
    label = of(opened(write(tmp_path, [{"segmentation": [SQUARE]}, crowd])))
    assert np.array_equal(label.ignore, pixels((0, 0, 6, 4)).astype(bool))
    assert [region.area for region in label.regions] == [3]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("validation", "val"), ("instances_vall2017", "val"), ("Test", "test")],
)
def test_a_split_by_another_name_is_not_dropped(
    tmp_path: Path, name: str, meant: str
) -> None:
    """Without it, images of training would become the validation split."""
    root = write(tmp_path, [{"segmentation": [SQUARE]}], file="annotations/train.json")
    (root / f"annotations/{name}.json").write_text("{}")
    with pytest.raises(DataError, match=rf"rename the file to {meant}\.json"):
        opened(root)


@pytest.mark.parametrize("said", ["0", "false", 2])
def test_a_crowd_is_0_or_1(tmp_path: Path, said: object) -> None:
    """A text is true, whatever it says."""
    with pytest.raises(DataError, match="iscrowd must be 0 or 1"):
        opened(write(tmp_path, [{"segmentation": [SQUARE], "iscrowd": said}]))


def test_the_category_to_ignore_has_no_ground_truth(tmp_path: Path) -> None:
    """--ignore means the same as for label images: no region, and no score there."""
    void = {"segmentation": compressed(pixels((0, 0, 6, 4))), "category_id": 9}
    label = of(opened(write(tmp_path, [{"segmentation": [SQUARE]}, void]), ignore=9))
    assert [region.class_id for region in label.regions] == [4]
    assert label.ignore.sum() == 24
    assert label.regions[0].area == 3


def test_objects_of_which_nothing_is_left_are_counted_as_dropped(
    tmp_path: Path,
) -> None:
    """Under a crowd, or thinner than a pixel, they cannot be asked for."""
    crowd = {"segmentation": compressed(pixels((0, 0, 6, 8))), "iscrowd": 1}
    label = of(
        opened(
            write(
                tmp_path,
                [{"segmentation": [SQUARE]}, {"segmentation": [SQUARE]}, crowd],
            )
        )
    )
    assert (label.regions, label.dropped) == ((), 2)


@pytest.mark.parametrize(
    ("rule", "areas"),
    [("instances", [9, 3]), ("classes", [12]), ("components", [9, 3])],
)
def test_the_region_rule_can_join_annotations(
    tmp_path: Path, rule: str, areas: list[int]
) -> None:
    """Semantic sets come as COCO too; each annotation is an instance only where nobody says otherwise."""
    root = write(
        tmp_path,
        [
            {"segmentation": [SQUARE]},
            {"segmentation": compressed(pixels((5, 0, 6, 3)))},
        ],
    )
    assert [region.area for region in of(opened(root, regions=rule)).regions] == areas


def test_several_files_are_the_splits(tmp_path: Path) -> None:
    """The layout of COCO itself, instances_val2017.json; other tasks' files beside are not ours."""
    write(tmp_path, [], file="annotations/instances_train2017.json", images="ab")
    write(tmp_path, [], file="annotations/val.json", images="c")
    (tmp_path / "annotations/captions_train2017.json").write_text("{}")
    assert {s.id: s.split for s in opened(tmp_path).samples} == {
        "train/a": "train",
        "train/b": "train",
        "val/c": "val",
    }


def test_other_sources_are_found_by_name(tmp_path: Path) -> None:
    """The json knows one file an image, a composed sensor needs more."""
    write(tmp_path, [])
    for source in ("left", "right"):
        for name in "abc":
            save_image(tmp_path / f"images/{source}/{name}.npy", np.ones((6, 8)))
    sample = open_dataset(tmp_path, Pair()).samples[0]
    assert sample.files["right"] == tmp_path / "images/right/a.npy"


def test_all_bad_annotations_are_reported_at_once(tmp_path: Path) -> None:
    """A converter's mistake repeats."""
    write(
        tmp_path,
        [
            {"segmentation": [SQUARE], "image_id": 77},
            {"segmentation": [SQUARE], "category_id": 5},
            {"segmentation": []},
            {"segmentation": [[1, 2, 3, 4]]},
            {"segmentation": [[1, 2, 3, 4, "x", 6]]},
            {"segmentation": "poly"},
            {"segmentation": {"counts": [48]}},
            {"segmentation": {"size": [8, 6], "counts": [48]}},
            {"segmentation": {"size": [6, 8], "counts": [0, 40]}},
        ],
    )
    (tmp_path / "images/c.npy").unlink()
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    for words in (
        "annotation 0: no image has the id 77",
        "annotation 1: no category has the id 5",
        "annotation 2: it has no segmentation",
        "annotation 3: a polygon needs x,y of at least 3 corners",
        "annotation 4: a polygon holds something that is not a finite number",
        "annotation 5: its segmentation is a str",
        "annotation 6: its run lengths need 'counts' and 'size'",
        "annotation 7: its run lengths are of size [8, 6], the image is [6, 8]",
        "annotation 8: its run lengths add up to 40, the image has 48 pixels",
        "image 3: 'c.npy'",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        ([[float("nan"), 0, 1, 0, 1, 1]], "finite number"),
        ([[float("inf"), 0, 1, 0, 1, 1]], "finite number"),
        ([[True, 0, 1, 0, 1, 1]], "finite number"),
        ([[1e9, 0, 0, 5, 3, 3]], "far out"),
        ([[0, -1e9, 0, 5, 3, 3]], "far out"),
        ({"size": [6, 8], "counts": [50, -2]}, "whole numbers of 0 or more"),
        ({"size": [6, 8], "counts": "\u2603"}, "text form"),
        ({"size": [6, 8], "counts": "\ud800"}, "text form"),
    ],
)
def test_what_would_crash_the_drawing_library_is_refused_before(
    tmp_path: Path, segmentation: dict[str, Any], words: str
) -> None:
    """pycocotools draws in C and trusts its input; one bad corner ends the process without a message."""
    with pytest.raises(DataError, match="annotation 0") as caught:
        opened(write(tmp_path, [{"segmentation": segmentation}]))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("most", "words"), [(90, "have 100 corners"), (1000, "has 1100 px")]
)
def test_an_outline_longer_than_any_object_s_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, words: str
) -> None:
    """Ten million corners took 14 GB, and the process ended without a message."""
    monkeypatch.setattr("simmat.data.formats.coco.MAX_OUTLINE_PX", most)
    with pytest.raises(
        DataError,
        match=rf"annotation 0: .*{words}, more than the limit of {most}; use fewer",
    ):
        opened(write(tmp_path, [{"segmentation": [[0, 0, 10, 5] * 50]}]))


@pytest.mark.parametrize(
    "others",
    [
        ["annotations/train.json"],
        ["annotations/instances_val.json", "annotations/val.json"],
    ],
)
def test_two_files_for_the_same_are_refused(tmp_path: Path, others: list[str]) -> None:
    """One of them is an old copy."""
    for file in (["annotations.json"] if len(others) == 1 else []) + others:
        write(tmp_path, [], file=file)
    with pytest.raises(DataError, match=r"annotations.*json"):
        opened(tmp_path)


@pytest.mark.parametrize(
    "counts", ["0", "`0", "", "zzzzzz", compressed(pixels((1, 2, 4, 5)))["counts"][:-1]]
)
def test_run_length_text_that_does_not_fill_the_image_is_refused(
    tmp_path: Path, counts: str
) -> None:
    """The drawing library leaves pixels that no run covers as they were in memory: another label each time."""
    with pytest.raises(DataError, match="annotation 0: its run lengths"):
        opened(write(tmp_path, [{"segmentation": {"size": [6, 8], "counts": counts}}]))


def test_json_size_must_be_the_images(tmp_path: Path) -> None:
    """Annotations of a resized copy lie elsewhere."""
    dataset = opened(write(tmp_path, [{"segmentation": [SQUARE]}]))
    save_image(tmp_path / "images/a.npy", np.ones((1, 12, 16)))
    with pytest.raises(DataError, match="8x6, the image"):
        of(dataset)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "json"),
        ("[]", "object"),
        ('{"images": []}', "'categories'"),
        (
            '{"categories": [{"id": 1}], "images": [], "annotations": []}',
            "categories[0]",
        ),
        (
            '{"categories": [{"id": "1", "name": "x"}], "images": [], "annotations": []}',
            "id = '1'",
        ),
        ('{"categories": [], "images": [], "annotations": []}', "image"),
    ],
)
def test_json_of_another_form_says_what_is_wrong(
    tmp_path: Path, text: str, words: str
) -> None:
    """Not a KeyError."""
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(DataError) as caught:
        opened(tmp_path)
    assert words in str(caught.value)


def test_double_images_are_refused(tmp_path: Path) -> None:
    """One image in train and in val would score what was trained on."""
    write(tmp_path, [], file="annotations/train.json", images="ab")
    write(tmp_path, [], file="annotations/val.json", images="b")
    with pytest.raises(DataError, match=r"two splits(?s:.*)b\.npy"):
        opened(tmp_path)


def test_masks_beside_annotations_are_refused(tmp_path: Path) -> None:
    """Which of two truths holds is not for us to say."""
    write(tmp_path, [])
    (tmp_path / "masks").mkdir()
    with pytest.raises(DataError, match=r"masks/.*annotations"):
        opened(tmp_path)


def test_zero_cannot_be_a_region_without_label_values(tmp_path: Path) -> None:
    """A setting without effect would be believed to have one."""
    with pytest.raises(ConfigError, match="label value 0"):
        opened(write(tmp_path, []), zero_means="none")


@pytest.mark.parametrize("seed", range(4))
def test_a_region_has_the_pixels_of_pycocotools(seed: int) -> None:
    """Regions are drawn without the rest of the image; no pixel may differ."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        height, width = rng.integers(1, 60, 2).tolist()
        side = max(height, width)
        polygons = [
            (rng.integers(-10 * side, 20 * side, 2 * corners) / 10).tolist()
            for corners in rng.integers(3, 9, 2)
        ]
        runs = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        expected = coco_mask.decode(runs) > 0
        as_text = {"size": [height, width], "counts": runs["counts"].decode()}
        for segmentation in (polygons, as_text):
            drawn = draw_segmentation(segmentation, (height, width))
            np.testing.assert_array_equal(drawn, expected)


def test_objects_take_no_more_memory_than_an_image_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line of json is an object as large as its image, and a file holds millions of lines."""
    whole = {"segmentation": {"size": [6, 8], "counts": [0, 48]}}
    root = write(tmp_path, [{**whole, "id": number} for number in range(100)])
    dataset = opened(root)
    sample = next(one for one in dataset.samples if one.id == "a")
    assert len(dataset.label(sample).regions) == 100
    monkeypatch.setenv("SIMMAT_MAX_IMAGE_GIB", str(1000 / 2**30))
    with pytest.raises(DataError, match=r"image 'a'.*SIMMAT_MAX_IMAGE_GIB"):
        dataset.label(sample)
