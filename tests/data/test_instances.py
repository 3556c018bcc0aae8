"""What a region is, by the card's rule and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simmat.data import instances
from simmat.data.card import DataCard
from simmat.data.instances import Annotation, label_from_mask
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


def test_a_sample_can_override_what_zero_means() -> None:
    """One manifest can join sources that number differently."""
    card = DataCard(regions="instances", zero_means="background")
    assert len(label_from_mask(MASK, card, zero_means="none").regions) == 4


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


@pytest.mark.parametrize("rule", ["instances", "classes", "components", "panoptic"])
def test_objects_take_no_more_memory_than_an_image_may(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measurements in place of numbers of objects make thousands of objects that are as large as the image."""
    monkeypatch.setenv("SIMMAT_MAX_IMAGE_GIB", str(2**20 / 2**30))
    mask = np.random.default_rng(0).integers(1000, 3000, (100, 100))
    if rule == "components":
        edge = np.minimum(np.arange(400), np.arange(400)[::-1])
        mask = np.minimum(edge, edge[:, None]) % 2  # rings in rings
    with pytest.raises(DataError, match=r"scan\.png.*SIMMAT_MAX_IMAGE_GIB"):
        label_from_mask(mask, DataCard(regions=rule), origin="scan.png")


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
