"""Label images, what a region is by the card's rule, and clicks on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage

from simmat.data import instances
from simmat.data.card import DataCard
from simmat.data.dataset import Dataset
from simmat.data.index import read_index
from simmat.data.instances import (
    Annotation,
    center_click,
    corrective_click,
    jitter_box,
    label_from_mask,
    random_click,
    read_mask,
    region_from_mask,
    tight_box,
)
from simmat.errors import DataError

MASK = np.asarray(
    [
        [1, 1, 0, 0, 2],
        [0, 0, 1, 0, 2],
        [0, 0, 0, 0, 0],
        [7, 0, 1, 1, 0],
    ]
)


def find(mask: Any, **card: Any) -> Annotation:
    """Regions of a mask by a card."""
    return label_from_mask(np.asarray(mask, dtype=np.int64), DataCard(**card))


def test_instances_are_values_without_a_class() -> None:
    """An instance id is a name, no class; its pieces stay one object."""
    label = find(MASK, regions="instances")
    assert [(region.class_id, region.area) for region in label.regions] == [
        (None, 5),
        (None, 2),
        (None, 1),
    ]


def test_classes_are_values_with_a_class() -> None:
    """The value says what it is."""
    label = find(MASK, regions="classes")
    assert [(region.class_id, region.area) for region in label.regions] == [
        (1, 5),
        (2, 2),
        (7, 1),
    ]


def test_components_are_connected_pieces_and_corners_connect() -> None:
    """Thin diagonal objects fall apart with four neighbours."""
    label = find(MASK, regions="components")
    assert [(region.class_id, region.area) for region in label.regions] == [
        (1, 3),
        (1, 2),
        (2, 2),
        (7, 1),
    ]


@pytest.mark.parametrize("rule", ["instances", "classes", "components"])
def test_region_masks_are_exactly_the_pixels_of_the_label(rule: str) -> None:
    """Boxes and crops are an economy, not an approximation."""
    rng = np.random.default_rng(1)
    mask = rng.integers(0, 4, (17, 23))
    label = find(mask, regions=rule)
    together = sum(region.mask(label.size_hw).astype(int) for region in label.regions)
    assert np.array_equal(together, (mask > 0).astype(int))
    for region in label.regions:
        assert len(np.unique(mask[region.mask(label.size_hw)])) == 1
        assert region.crop.any(axis=1)[[0, -1]].all()
        assert region.crop.any(axis=0)[[0, -1]].all()


def test_large_ids_give_the_same_regions_as_small_ones() -> None:
    """Ids from a 32-bit tool take another way through the code."""
    small, large = (
        find(MASK, regions="instances"),
        find(MASK * 100_000_000, regions="instances"),
    )
    assert [region.window for region in small.regions] == [
        region.window for region in large.regions
    ]


def test_small_regions_are_dropped_and_counted() -> None:
    """A speck cannot be clicked, and the user has to learn how many there were."""
    label = find(MASK, regions="components", min_region=2)
    assert [region.area for region in label.regions] == [3, 2, 2]
    assert label.dropped == 1


def test_ignored_value_makes_no_region_and_is_marked() -> None:
    """Where nobody knows the truth there is neither an object nor its absence."""
    label = find(MASK, regions="instances", ignore=7)
    assert len(label.regions) == 2
    assert np.array_equal(label.ignore, MASK == 7)


@pytest.mark.parametrize(
    ("zero", "count"), [("background", 3), ("unlabelled", 3), ("none", 4)]
)
def test_zero_is_a_region_only_where_it_means_none(zero: str, count: int) -> None:
    """In a full segmentation the segment numbered 0 is one like the others."""
    assert len(find(MASK, regions="instances", zero_means=zero).regions) == count


def test_negative_values_must_be_said_to_be_ignored() -> None:
    """-1 usually means unknown, but taking it so would be a guess."""
    with pytest.raises(DataError, match="ignore = -1"):
        find([[-1, 1]], regions="classes")
    assert len(find([[-1, 1]], regions="classes", ignore=-1).regions) == 1


@pytest.mark.parametrize(("share", "kept"), [(0.0, 2), (3 / 64, 1), (10 / 64, 0)])
def test_a_threshold_may_be_a_part_of_the_image(share: float, kept: int) -> None:
    """A rule stated at 1024 x 1024 means the same objects at any size."""
    mask = np.zeros((8, 8), dtype=np.int64)
    mask[:3, :3], mask[5, 5:7] = 1, 2  # 9 and 2 px
    assert len(find(mask, regions="instances", min_region_share=share).regions) == kept


@pytest.mark.parametrize("rule", ["instances", "components"])
def test_a_mask_of_measurements_is_not_taken_for_objects(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Millions of objects would take hours; such a mask holds no numbers of objects."""
    monkeypatch.setattr(instances, "MAX_OBJECTS", 3)
    mask = np.zeros((7, 7), int)
    mask[::2, ::2] = np.arange(16).reshape(4, 4) if rule == "instances" else 1
    with pytest.raises(DataError, match="more than 3 objects"):
        find(mask, regions=rule)
    mask[2:] = 0
    assert len(find(mask[:, :6], regions=rule).regions) <= 3


CARD = DataCard(regions="panoptic")


def test_touching_objects_of_one_class_stay_two() -> None:
    """This is what no other rule can say of a label image."""
    mask = np.array([[1001, 1001, 1002], [0, 2001, 1002]])
    regions = label_from_mask(mask, CARD).regions
    assert [(region.class_id, region.area) for region in regions] == [
        (1, 2),
        (1, 2),
        (2, 1),
    ]


def test_a_value_without_a_class_is_refused() -> None:
    """Ids of a set without classes would otherwise all be of class 0, the background of a class map."""
    with pytest.raises(
        DataError, match=r"a\.png: label value 7 has no class.*--regions instances"
    ):
        label_from_mask(np.array([[0, 7]]), CARD, origin="a.png")


def test_training_learns_the_classes(tmp_path: Path) -> None:
    """The index, from which a dense head takes its classes, sees them as those of class masks."""
    mask = np.zeros((20, 20), np.uint16)
    mask[:5, :5], mask[:5, 5:9], mask[10:, 10:] = 1001, 1002, 3001
    images = [np.full((20, 20), number, np.uint8) for number in range(3)]
    split = ["train", "val", "test"]
    data = Dataset.from_arrays(
        images, [mask] * 3, folder=tmp_path, split=split, regions="panoptic"
    )
    assert data.has_classes
    assert read_index(data).classes(data.samples) == (1, 3)


def blob(seed: int) -> np.ndarray:
    """A ragged mask that may touch the border and have several pieces."""
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter(rng.standard_normal((31, 43)), 3) > 0.02


@pytest.mark.parametrize("seed", range(5))
def test_center_is_the_padded_distance_maximum_of_the_whole_image(seed: int) -> None:
    """The crop is for speed only; published scores depend on this very pixel."""
    mask = blob(seed)
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.argwhere(distance == distance.max())[0]
    assert center_click(mask) == (column, row)


def test_random_clicks_are_on_the_region_and_reach_all_of_it() -> None:
    """A click beside the object teaches the opposite."""
    mask = np.asarray([[0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 1, 0]], dtype=np.bool_)
    rng = np.random.default_rng(0)
    assert {random_click(mask, rng) for _ in range(60)} == {(2, 1), (1, 2), (2, 2)}


@pytest.mark.parametrize("click", [center_click, tight_box])
def test_empty_mask_has_no_click(click: object) -> None:
    """argmax of nothing is pixel 0, which is no answer."""
    with pytest.raises(DataError, match="empty mask"):
        click(np.zeros((3, 3), dtype=np.bool_))  # type: ignore[operator]


def corrected(
    truth: np.ndarray, prediction: np.ndarray, ignore: np.ndarray | None = None
) -> object:
    region = region_from_mask(truth, None)
    assert region is not None
    ignore = np.zeros(truth.shape, np.bool_) if ignore is None else ignore
    return corrective_click(region, region_from_mask(prediction, None), ignore)


def test_correction_clicks_the_largest_error() -> None:
    """A person fixes the worst first: here the false 3 by 3 square, not two smaller misses that are larger in sum."""
    truth, prediction = np.zeros((2, 9, 20), dtype=np.bool_)
    truth[0:2, 0:3] = truth[0:2, 10:13] = True
    prediction[4:7, 5:8] = True
    assert corrected(truth, prediction) == ((6, 5), 0)


def test_correction_does_not_look_at_ignored_pixels() -> None:
    """Where there is no truth there is no error."""
    truth, prediction = np.zeros((2, 4, 4), dtype=np.bool_)
    prediction[0:2] = truth[3] = prediction[3] = True
    assert corrected(truth, prediction, ignore=prediction) is None


def test_nothing_wrong_gives_no_click() -> None:
    """The loop over clicks ends here."""
    assert corrected(blob(0), blob(0)) is None


def test_tight_box_ends_after_the_last_pixel() -> None:
    """A one-pixel object has a box of width 1, as Prompt demands."""
    mask = np.zeros((4, 6), dtype=np.bool_)
    mask[2, 3:5] = True
    assert tight_box(mask).tolist() == [3, 2, 5, 3]


def test_jitter_stays_in_reach_inside_the_image_and_a_box() -> None:
    """Ten per cent and twenty pixels are the protocol; a box turned inside out is no prompt."""
    rng = np.random.default_rng(0)
    box = np.asarray([0, 50, 400, 90], dtype=np.float32)
    moved = np.stack([jitter_box(box, (95, 410), rng) for _ in range(500)])
    assert (np.abs(moved - box).max(axis=0) <= [20, 4, 20, 4]).all()
    assert (np.abs(moved - box).max(axis=0) > [15, 3, 9, 3]).all()
    assert moved.min() >= 0
    assert (moved[:, 2] <= 410).all()
    assert (moved[:, :2] < moved[:, 2:]).all()
    assert moved.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "dtype", "values"),
    [
        ("m.png", np.uint8, [[0, 255]]),
        ("m.PNG", np.uint16, [[0, 65535]]),
        ("m.tif", np.uint16, [[7, 300]]),
        ("m.tiff", np.int32, [[-1, 70000]]),
        ("m.bmp", np.uint8, [[0, 3]]),
    ],
)
def test_integers_of_any_width_keep_their_values(
    tmp_path: Path, name: str, dtype: type[np.generic], values: list[list[int]]
) -> None:
    """An instance id cut to 8 bits merges objects."""
    Image.fromarray(np.asarray(values, dtype=dtype)).save(tmp_path / name)
    assert read_mask(tmp_path / name).tolist() == values


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (np.int8, [[-1, 3]]),
        (np.uint32, [[4_000_000_000, 1]]),
        (np.int64, [[0, 123456]]),
        (np.float32, [[0, 1]]),
    ],
)
def test_signed_and_large_numbers_of_a_tiff_stay_what_they_are(
    tmp_path: Path, dtype: type[np.generic], values: list[list[int]]
) -> None:
    """A label of -1 means `ignore` to many tools; as 255 it would be a region."""
    tifffile.imwrite(tmp_path / "m.tif", np.asarray(values, dtype=dtype))
    assert read_mask(tmp_path / "m.tif").tolist() == values


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_a_tiff_whose_white_is_zero_is_refused(tmp_path: Path, bits: int) -> None:
    """Its numbers would be turned round, and the background become the object."""
    values = np.asarray([[0, 1], [1, 0]])
    stored = values.astype(bool) if bits == 1 else (values * 255).astype(f"uint{bits}")
    tifffile.imwrite(tmp_path / "m.tif", stored, photometric="miniswhite")
    with pytest.raises(DataError, match="MINISWHITE"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("turn", [2, 3, 4, 6])
def test_a_tiff_that_is_to_be_turned_is_refused(tmp_path: Path, turn: int) -> None:
    """Its image is read as it is stored, so the labels would lie elsewhere."""
    tifffile.imwrite(
        tmp_path / "m.tif",
        np.arange(16, dtype=np.uint8).reshape(4, 4),
        extratags=[(274, "H", 1, turn, True)],
    )
    with pytest.raises(DataError, match=rf"Orientation {turn}"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colour_masks_are_refused_with_what_to_do(tmp_path: Path, mode: str) -> None:
    """A colour is no label number, and taking one plane would be a guess."""
    Image.new(mode, (2, 2)).save(tmp_path / "m.png")
    with pytest.raises(DataError, match="one plane of integers"):
        read_mask(tmp_path / "m.png")


@pytest.mark.parametrize("name", ["m.jpg", "m.png"])
def test_jpeg_is_refused_by_name_and_by_content(tmp_path: Path, name: str) -> None:
    """Compression smears label 2 into 1 and 3 at every border."""
    Image.new("L", (8, 8)).save(tmp_path / name, format="JPEG")
    with pytest.raises(DataError, match="JPEG"):
        read_mask(tmp_path / name)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_fractions_are_refused(tmp_path: Path, value: float) -> None:
    """A probability map is not a label image; the threshold is the user's to choose."""
    np.save(tmp_path / "m.npy", np.asarray([[value, 1]]))
    with pytest.raises(DataError, match="fractions"):
        read_mask(tmp_path / "m.npy")


def test_a_jpeg_within_a_tiff_is_refused(tmp_path: Path) -> None:
    """It smears labels as any JPEG does: 6 objects become 200."""
    Image.fromarray(np.eye(64, dtype=np.uint8)).save(
        tmp_path / "m.tif", compression="jpeg"
    )
    with pytest.raises(DataError, match=r"compressed as JPEG.* mask, without loss"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("value", [np.float64(1e30), np.uint64(2**63 + 5)])
def test_labels_beyond_what_counts_are_refused(
    tmp_path: Path, value: np.generic
) -> None:
    """They would wrap to negative numbers, which the advice then ignores."""
    np.save(tmp_path / "m.npy", np.full((4, 4), value))
    with pytest.raises(DataError, match="whole numbers"):
        read_mask(tmp_path / "m.npy")
