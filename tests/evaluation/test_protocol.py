"""What a protocol asks, and where it compares, with networks that answer by script."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scripted_model import Scripted, make_set, one_mask, score
from torch import Tensor

from simmat.errors import ConfigError
from simmat.evaluation import (
    COMPAT,
    FULL,
    ONE_CLICK,
    Protocol,
)
from simmat.foundation import PromptBatch

CLICKS = Protocol("clicks", clicks=20)


def labels(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A label image with rectangles (y0, x0, y1, x1) numbered from 1."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for number, (y0, x0, y1, x1) in enumerate(boxes, start=1):
        mask[y0:y1, x0:x1] = number
    return mask


def growing(prompts: PromptBatch) -> Tensor:
    """Find four more columns of the rectangle at rows 4 to 9 and columns 4 to 23 with each click."""
    masks = torch.zeros(len(prompts.image_index), 1, 32, 32, dtype=torch.bool)
    masks[:, :, 4:10, 4 : 4 + 4 * prompts.point_coords.shape[1]] = True
    return masks


@pytest.fixture
def bar(tmp_path: Path) -> Path:
    return tmp_path / "set"


BAR = labels(32, 32, (4, 4, 10, 24))


def test_every_click_is_counted_until_the_mask_is_right(bar: Path) -> None:
    """Four of twenty columns a click: IoU 0.2, 0.4 … 1.0, so both NoC are 5, and the curve stays at 1."""
    found = score(Scripted(growing), make_set(bar, BAR), 32, CLICKS)
    assert found.objects[0].clicks == (
        *(pytest.approx(k / 5) for k in (1, 2, 3, 4)),
        *[1.0] * 16,
    )
    clicks = found.summary()["clicks"]
    assert (
        clicks["noc85"]
        == clicks["noc90"]
        == {"mean": 5.0, "failures": 0, "most_clicks": 20}
    )


def test_an_image_is_encoded_once_however_many_prompts_follow(bar: Path) -> None:
    """Encoding is the cost of a foundation model."""
    model = Scripted(growing)
    found = score(model, make_set(bar, BAR, BAR), 32, FULL, everything=True)
    assert len(model.encoded) == 2
    assert len(model.asked) > 10
    assert found.unprompted is not None
    assert len(found.unprompted.matches) == 2


def test_the_mask_before_is_fed_back(bar: Path) -> None:
    """A person fixes what is on the screen; a decoder that does not see it begins anew."""
    model = Scripted(growing)
    score(model, make_set(bar, BAR), 32, CLICKS)
    assert model.asked[0].mask_input is None
    for prompts, before in zip(model.asked[1:], model.given, strict=False):
        assert prompts.mask_input is not None
        assert torch.equal(prompts.mask_input, before[:, :1])


def test_the_next_click_is_at_the_centre_of_the_larger_error(bar: Path) -> None:
    """Eighteen pixels are missing and 7 x 7 too much: the click goes to (26, 23), off the object."""
    answer = BAR.astype(np.bool_)
    answer[4:10, 21:24] = False
    answer[20:27, 23:30] = True
    model = Scripted(one_mask(answer))
    score(model, make_set(bar, BAR), 32, Protocol("two", clicks=2))
    assert model.asked[1].point_coords[0].tolist() == [[6, 6], [26, 23]]
    assert model.asked[1].point_labels[0].tolist() == [1, 0]


def test_no_click_falls_where_there_is_no_ground_truth(bar: Path) -> None:
    """The larger error may lie in an ignored area, where it is none."""
    answer = BAR.astype(np.bool_)
    answer[4:10, 21:24] = False
    answer[20:27, 23:30] = True
    mask = BAR.copy()
    mask[20:27, 23:30] = 255
    model = Scripted(one_mask(answer))
    score(model, make_set(bar, mask, ignore=255), 32, Protocol("two", clicks=2))
    assert model.asked[1].point_coords[0, 1].tolist() == [22, 5]
    assert model.asked[1].point_labels[0].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("protocol", "expected"), [(CLICKS, [16, 6]), (COMPAT, [14, 7])]
)
def test_the_first_click_falls_where_something_was_measured(
    bar: Path, protocol: Protocol, expected: list[float]
) -> None:
    """A person clicks on what is seen: columns 4 to 13 of the rectangle 4 to 23 are a hole in the depth image."""
    dataset = make_set(bar, BAR)
    planes = np.load(bar / "images/s0.npy")
    planes[:, 4:10, 4:14] = np.nan
    np.save(bar / "images/s0.npy", planes)
    model = Scripted(one_mask(BAR == 1))
    found = score(model, dataset, 32, protocol)
    assert model.asked[0].point_coords[0, 0].tolist() == pytest.approx(expected)
    assert not np.isnan(planes[0, int(expected[1]), int(expected[0])])
    assert found.objects[0].click_xy == pytest.approx(tuple(expected))
    assert found.objects[0].area == 6 * 20


def test_boxes_are_tight_and_then_jittered_within_bounds(bar: Path) -> None:
    """At most 10 % of the side and 20 px, and never off the image: 240 wide moves by 20, 40 high by 4."""
    mask = labels(300, 300, (0, 40, 40, 280))
    model = Scripted(one_mask(mask == 1))
    score(model, make_set(bar, mask), 300, Protocol("draws", repeats=200))
    boxes = [prompts.boxes for prompts in model.asked if prompts.boxes is not None]
    assert boxes[0].tolist() == [[40, 0, 280, 40]]
    moved = torch.cat(boxes[1:]) - boxes[0]
    assert len(moved) == 200
    most = moved.abs().amax(0)
    assert (most <= torch.tensor([20.0, 4.0, 20.0, 4.0])).all()
    assert (most > torch.tensor([18.0, 3.5, 18.0, 3.5])).all()
    assert (moved[:, 1] >= 0).all()


WIDE = labels(10, 20, (2, 4, 8, 12))
"""10 high and 20 wide; squashed into 40 x 40 the rectangle is rows 8 to 31 and columns 8 to 23."""


def quarter(columns: int) -> np.ndarray:
    answer = np.zeros((10, 10), dtype=np.bool_)
    answer[2:8, 2 : 2 + columns] = True
    return answer


def test_a_share_of_the_objects_is_the_same_at_each_time(bar: Path) -> None:
    """Validations of other objects could not be compared; a draw of none in an image is no image without a region."""
    boxes = [
        (row, column, row + 3, column + 3) for row in (2, 12) for column in (2, 12)
    ]
    dataset = make_set(bar, *[labels(32, 32, *boxes)] * 8)
    model = Scripted(one_mask(labels(32, 32, *boxes) > 0))
    every = score(model, dataset, 32, ONE_CLICK)
    half = score(model, dataset, 32, ONE_CLICK, share=0.5)
    again = score(model, dataset, 32, ONE_CLICK, share=0.5)
    assert half.objects == again.objects
    assert all(one in every.objects for one in half.objects)
    assert 8 <= len(half.objects) <= 24
    tenth = score(model, dataset, 32, ONE_CLICK, share=0.1)
    assert 0 < len(tenth.objects) < 8
    assert tenth.without_region == ()


def test_compat_clicks_the_middle_pixel_of_the_squashed_region(bar: Path) -> None:
    """Pixel 192 of 24 x 16 is the first of row 12: (8, 20) in the input, whose centre is (3.75, 4.625) in the image."""
    model = Scripted(one_mask(quarter(4)))
    found = score(model, make_set(bar, WIDE), 40, COMPAT)
    assert model.asked[0].point_coords[0, 0].tolist() == pytest.approx([8, 20])
    assert found.objects[0].click_xy == pytest.approx((3.75, 4.625))


def test_compat_compares_at_a_quarter_of_the_input(bar: Path) -> None:
    """At 10 x 10 the truth is 6 x 4; two of its columns are half of it."""
    found = score(Scripted(one_mask(quarter(2))), make_set(bar, WIDE), 40, COMPAT)
    assert found.objects[0].iou == pytest.approx(0.5)
    assert found.objects[0].metrics == {"boundary_iou": None}


def test_an_object_lost_between_the_quarter_pixels_is_left_out_and_counted(
    bar: Path,
) -> None:
    """It has no truth there: neither 0 nor 1 would be its score, and silence would hide it."""
    mask = labels(80, 80, (5, 40, 6, 60), (40, 8, 70, 70))
    found = score(Scripted(one_mask(quarter(4))), make_set(bar, mask), 40, COMPAT)
    assert [scored.region for scored in found.objects] == [1]
    assert found.left_out == (("s0", 0),)
    assert found.summary()["left_out"] == 1


def test_compat_refuses_an_input_without_a_quarter(bar: Path) -> None:
    """A grid of 10.5 pixels does not exist."""
    with pytest.raises(ConfigError, match=r"42 px .* multiple of 4"):
        score(Scripted(one_mask(quarter(4))), make_set(bar, WIDE), 42, COMPAT)
