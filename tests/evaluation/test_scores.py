"""What is averaged from the scores of objects, against figures worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
import torch
from scipy import ndimage
from scripted_model import object_score
from torch import Tensor

from simmat.data.instances import Instance, corrective_click, region_from_mask
from simmat.data.pipeline import regions_from_logits, restore_logits
from simmat.evaluation import COMPAT, ONE_CLICK, Protocol, Scores, mean_interval
from simmat.evaluation.prompts import grid_hw
from simmat.evaluation.scores import boundary_iou, boundary_width, mask_iou
from simmat.nn.dense_head import upsample_logits
from simmat.types import Aspect, BoolArray, Letterbox, Window

THREE = Scores(
    (
        object_score(
            0.2,
            sample="a",
            region=0,
            class_id=1,
            area=1023,
            metrics={"boundary_iou": 0.1},
        ),
        object_score(
            0.4,
            sample="a",
            region=1,
            class_id=2,
            area=1024,
            metrics={"boundary_iou": None},
        ),
        object_score(
            0.9,
            sample="b",
            region=0,
            class_id=1,
            area=9216,
            metrics={"boundary_iou": 0.3},
        ),
    )
)


def test_the_means_are_over_objects_images_and_classes() -> None:
    """They differ wherever an image holds many objects or a class is rare, and papers mix them up."""
    summary = THREE.summary()
    assert (summary["objects"], summary["images"]) == (3, 2)
    assert summary["miou_object"] == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert summary["miou_image"] == pytest.approx((0.3 + 0.9) / 2)
    assert summary["iou_by_class"] == {
        "1": pytest.approx(0.55),
        "2": pytest.approx(0.4),
    }
    assert summary["miou_class"] == pytest.approx((0.55 + 0.4) / 2)


def test_the_interval_draws_images() -> None:
    """Of two images it reaches from the mean of the one to that of the other; of one there is none."""
    assert THREE.summary()["miou_object_interval"] == pytest.approx((0.3, 0.9))
    assert Scores(THREE.objects[:2]).summary()["miou_object_interval"] is None


def test_size_bins_begin_at_32_and_96_pixels_squared() -> None:
    """COCO's bounds; an object on one must be in one bin, not in two."""
    sizes = THREE.summary()["by_size"]
    assert [(size, found["objects"]) for size, found in sizes.items()] == [
        ("small", 1),
        ("medium", 1),
        ("large", 1),
    ]
    assert [found["miou_object"] for found in sizes.values()] == [0.2, 0.4, 0.9]


def test_an_object_without_a_scored_boundary_leaves_the_boundary_iou() -> None:
    """It has no figure; a 0 would be one."""
    assert THREE.summary()["boundary_iou"] == pytest.approx(0.2)
    assert (
        Scores((object_score(metrics={"boundary_iou": None}),)).summary()[
            "boundary_iou"
        ]
        is None
    )


def test_a_failure_counts_as_all_the_clicks() -> None:
    """Else a model that never gets there would look quick; the failures are told apart as well."""
    curves = ((0.5, 0.86, 0.9), (0.1, 0.2, 0.3))
    clicks = Scores(
        tuple(object_score(curve[0], clicks=curve) for curve in curves)
    ).summary()["clicks"]
    assert clicks["miou"] == [
        pytest.approx(0.3),
        pytest.approx(0.53),
        pytest.approx(0.6),
    ]
    assert clicks["noc85"] == {"mean": (2 + 3) / 2, "failures": 1, "most_clicks": 3}
    assert clicks["noc90"] == {"mean": (3 + 3) / 2, "failures": 1, "most_clicks": 3}


def test_with_one_object_an_image_it_is_nearly_the_interval_of_the_mean() -> None:
    """For many independent values the bootstrap comes to mean ± 1.96 standard errors."""
    values = np.random.default_rng(5).random(400)
    low, high = mean_interval([[value] for value in values]) or (0.0, 0.0)
    error = values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_objects_of_one_image_are_drawn_together() -> None:
    """Ten copies of each image's object say no more than one does."""
    values = np.random.default_rng(6).random(30)
    alone = mean_interval([[value] for value in values])
    assert alone is not None
    assert mean_interval([[value] * 10 for value in values]) == pytest.approx(alone)
    narrow = mean_interval([[value] for value in np.repeat(values, 10)])
    assert narrow is not None
    assert alone[1] - alone[0] > 2 * (narrow[1] - narrow[0])


def square(y0: int, x0: int, side: int) -> Instance:
    return Instance(
        None,
        Window(y0, x0, y0 + side, x0 + side),
        np.ones((side, side), dtype=np.bool_),
    )


def region(mask: list[list[int]]) -> Instance:
    found = region_from_mask(np.asarray(mask, dtype=np.bool_), None)
    assert found is not None
    return found


EVERYWHERE = np.ones((11, 11), dtype=np.bool_)


@pytest.mark.parametrize(("shared", "union"), [(9, 10), (17, 20)])
def test_an_iou_on_the_target_reaches_it(shared: int, union: int) -> None:
    """In 32 bits 9/10 lies below 0.9, and the click that got there would not count."""
    truth, mask = (region([[1] * count]) for count in (union, shared))
    iou = mask_iou(mask, truth, np.ones((1, 20), dtype=np.bool_))
    assert iou >= shared / union


@pytest.mark.parametrize(
    ("size_hw", "width"), [((480, 640), 16), ((1024, 1024), 29), ((10, 10), 1)]
)
def test_the_boundary_is_two_percent_of_the_diagonal_wide(
    size_hw: tuple[int, int], width: int
) -> None:
    """480 x 640 has a diagonal of 800; a boundary of no pixel would be no boundary."""
    assert boundary_width(size_hw) == width


def test_the_boundary_iou_of_a_shifted_square() -> None:
    """Rings of 24 each share the 6 upper and 6 lower pixels: 12/36, where the IoU is 42/56."""
    assert boundary_iou(
        square(2, 3, 7), square(2, 2, 7), EVERYWHERE, 1
    ) == pytest.approx(12 / 36)


# Whole-image oracles: the definitions, with no box anywhere.


def plain_iou(mask: BoolArray, truth: BoolArray, scored: BoolArray) -> float:
    shared, union = (
        np.count_nonzero(mask & truth & scored),
        np.count_nonzero((mask | truth) & scored),
    )
    return float(np.float64(shared) / np.float64(max(union, 1)))


def plain_band(mask: BoolArray, width: int) -> BoolArray:
    distance = ndimage.distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[
        1:-1, 1:-1
    ]
    return cast(BoolArray, mask & (distance <= width))


def plain_boundary_iou(
    mask: BoolArray, truth: BoolArray, scored: BoolArray, width: int
) -> float | None:
    true = plain_band(truth, width) & scored
    return plain_iou(plain_band(mask, width), true, scored) if true.any() else None


def plain_centre(mask: BoolArray) -> tuple[float, float]:
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(np.argmax(distance)), mask.shape)
    return float(column), float(row)


def plain_correction(
    truth: BoolArray, mask: BoolArray, ignore: BoolArray
) -> tuple[tuple[float, float], int] | None:
    """The larger of the largest missing and the largest superfluous component."""
    pieces = []
    for wrong, on_object in (
        (truth & ~mask & ~ignore, 1),
        (mask & ~truth & ~ignore, 0),
    ):
        numbered, count = ndimage.label(wrong, structure=np.ones((3, 3)))
        pieces += [(numbered == number, on_object) for number in range(1, count + 1)]
    if not pieces:
        return None
    # the first of equals
    piece, on_object = max(pieces, key=lambda item: np.count_nonzero(item[0]))
    return plain_centre(piece), on_object


def plain_masks(logits: Tensor, letterbox: Letterbox, protocol: Protocol) -> BoolArray:
    if protocol.grid == "original":
        return cast(BoolArray, (restore_logits(logits, letterbox) > 0).numpy())
    return cast(
        BoolArray,
        (
            upsample_logits(logits, (letterbox.size // 4, letterbox.size // 4)) > 0
        ).numpy(),
    )


def whole(region: Instance | None, size_hw: tuple[int, ...]) -> BoolArray:
    height, width = size_hw
    return (
        np.zeros((height, width), np.bool_)
        if region is None
        else region.mask((height, width))
    )


def blobs(
    rng: np.random.Generator, *shape: int, sigma: float = 2, level: float = 0.02
) -> BoolArray:
    """Ragged masks, often of several pieces and at the border."""
    noise = rng.standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, [0] * (len(shape) - 2) + [sigma, sigma])
    return cast(BoolArray, smooth > level)


def pairs(rng: np.random.Generator) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Truth and prediction in 40 x 56: overlapping, far apart, at borders, equal, empty, and everywhere."""
    for _ in range(12):
        truth, mask = blobs(rng, 2, 40, 56)
        window = np.zeros_like(truth)
        y, x = rng.integers(0, 30), rng.integers(0, 46)
        window[y : y + 10, x : x + 10] = True
        yield truth, mask
        yield truth & window, mask
        yield truth & window, mask & window
        yield truth & window, mask & ~window
        yield truth & window, truth & window
        yield truth & window, np.zeros_like(truth)
        yield truth & window, ~np.zeros_like(truth)
    corners = np.zeros((2, 40, 56), np.bool_)
    corners[0, :3, :4] = corners[1, -2:, -5:] = True
    yield corners[0], corners[1]
    yield corners[1], corners[0]
    yield corners[0], corners.any(0)


@pytest.mark.parametrize("ignored", ["nothing", "blobs", "a side", "most"])
def test_figures_within_boxes_are_those_of_the_whole_image(ignored: str) -> None:
    """Published scores stand on every pixel; a box is for speed only."""
    rng = np.random.default_rng(0)
    ignore = {
        "nothing": np.zeros((40, 56), np.bool_),
        "blobs": blobs(rng, 40, 56, level=0.1),
        "a side": np.broadcast_to(np.arange(56) >= 40, (40, 56)),
        "most": rng.random((40, 56)) < 0.9,
    }[ignored]
    for truth, mask in pairs(rng):
        region, found = region_from_mask(truth, None), region_from_mask(mask, None)
        if region is None:
            continue
        assert mask_iou(found, region, ~ignore) == plain_iou(mask, truth, ~ignore)
        for width in (1, 2, 3, 7, 40):
            expected = plain_boundary_iou(mask, truth, ~ignore, width)
            assert boundary_iou(found, region, ~ignore, width) == expected
        assert corrective_click(region, found, ignore) == plain_correction(
            truth, mask, ignore
        )


FRAMES = [
    pytest.param((1, 64), (70, 100), "pad", id="larger than the input"),
    pytest.param((16, 64), (300, 211), "pad", id="much larger"),
    pytest.param((16, 64), (300, 211), "stretch", id="squashed"),
    pytest.param((32, 128), (40, 23), "pad", id="smaller than the input"),
    pytest.param((64, 256), (256, 256), "pad", id="of the input's size"),
    pytest.param((64, 64), (9, 200), "pad", id="a strip"),
]


@pytest.mark.parametrize(("sides", "original_hw", "aspect"), FRAMES)
@pytest.mark.parametrize(
    "protocol", [ONE_CLICK, COMPAT], ids=lambda protocol: protocol.grid
)
def test_masks_are_those_of_logits_resized_as_a_whole(
    sides: tuple[int, int],
    original_hw: tuple[int, int],
    aspect: Aspect,
    protocol: Protocol,
) -> None:
    """Also an empty and a full one."""
    side, size = sides
    letterbox = Letterbox(original_hw, size, aspect)
    logits = torch.from_numpy(
        np.random.default_rng(1).standard_normal((3, 4, side, side))
    ).float()
    logits[2, 1], logits[2, 2] = -1, 1
    expected = plain_masks(logits, letterbox, protocol)
    found = regions_from_logits(
        logits,
        letterbox,
        None if protocol is ONE_CLICK else grid_hw(letterbox, protocol),
    )
    for k, m in np.ndindex(*expected.shape[:2]):
        assert np.array_equal(whole(found[k][m], expected.shape[2:]), expected[k, m])
