"""Scores computed within the boxes of objects and answers, against the same worked out on whole images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from simmat.data.instances import (
    Instance,
    corrective_click,
    region_from_mask,
)
from simmat.data.pipeline import (
    regions_from_logits,
    restore_logits,
)
from simmat.evaluation import COMPAT, ONE_CLICK, Protocol
from simmat.evaluation.prompts import (
    grid_hw,
)
from simmat.evaluation.scores import boundary_iou, mask_iou
from simmat.nn.dense_head import upsample_logits
from simmat.types import Aspect, BoolArray, Letterbox

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
