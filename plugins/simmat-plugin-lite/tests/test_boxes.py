"""What a box says: its object lies within, and looks unlike what lies just outside."""

from __future__ import annotations

import torch
from simmat_plugin_lite.decoder import unlike_outside
from simmat_plugin_lite.model import LiteModel
from simmat_plugin_lite.prompt_maps import PromptState, places_around, region_weight

from simmat.foundation import PromptBatch

SIZE = 128
BOX = (30.0, 30.0, 90.0, 90.0)


def asked_by(
    box: tuple[float, ...] | None, point: tuple[float, float] | None = None
) -> PromptBatch:
    """One prompt of a box, a positive click, or both."""
    return PromptBatch(
        image_index=torch.zeros(1, dtype=torch.long),
        point_coords=torch.tensor([[point]] if point else []).reshape(1, -1, 2).float(),
        point_labels=torch.ones((1, 1 if point else 0), dtype=torch.long),
        boxes=None if box is None else torch.tensor([box]),
    )


def corner_object(stride: int = 16) -> torch.Tensor:
    """A level whose ground is one vector and whose object, another, fills a corner of `BOX` only."""
    level = torch.zeros(1, 4, SIZE // stride, SIZE // stride)
    level[:, 0] = 1.0
    level[:, :2, 2:4, 2:4] = torch.tensor([0.0, 1.0])[None, :, None, None]
    return level


def test_places_around_a_box_lie_just_outside_on_every_side() -> None:
    """A place inside would tell the model that the object is not the object."""
    around = places_around(torch.tensor([BOX]), 4)[0]
    x, y = around.unbind(1)
    beyond = [x < BOX[0], x > BOX[2], y < BOX[1], y > BOX[3]]
    assert [int(side.sum()) for side in beyond] == [4, 4, 4, 4]
    assert torch.stack(beyond).any(0).all()
    assert (around > BOX[0] - 15).all()
    assert (around < BOX[2] + 15).all()


def test_an_object_off_the_middle_of_its_box_is_believed_in_before_the_ground_there() -> (
    None
):
    """The middle of the box shows ground, as behind a swan's neck: the ground outside gives it away."""
    level = corner_object()
    state = PromptState.from_batch(asked_by(BOX), SIZE, 1)
    unlike = unlike_outside(level, 16, state)
    believed = region_weight(state, 8, 8, 16, unlike)[0, 0]
    middle, corner = believed[4, 4], believed[2:4, 2:4]
    assert (corner > 2 * middle).all()
    assert (
        region_weight(state, 8, 8, 16)[0, 0, 4, 4]
        > region_weight(state, 8, 8, 16)[0, 0, 2, 2]
    )


def test_a_box_over_the_whole_frame_is_believed_in_by_its_middle() -> None:
    """Nothing outside is in view, so nothing is discounted."""
    state = PromptState.from_batch(
        asked_by((0.0, 0.0, SIZE - 1.0, SIZE - 1.0)), SIZE, 1
    )
    unlike = unlike_outside(corner_object(), 16, state)
    assert unlike is not None
    assert (unlike == 1).all()


def test_a_click_is_answered_the_same_beside_prompts_with_boxes(
    model: LiteModel,
) -> None:
    """A batch may hold both; a prompt without a box has nothing outside of it."""
    image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    click, none = (
        asked_by(None, (40.0, 50.0)),
        asked_by((0.0, 0.0, 0.0, 0.0), (40.0, 50.0)),
    )
    with torch.no_grad():
        embedding = model.backbone.encode(model.backbone.embed(image))
        alone = model.decoder.decode(embedding, click).logits
        beside = model.decoder.decode(embedding, none).logits
    assert (
        unlike_outside(embedding.levels[3], 16, PromptState.from_batch(click, SIZE, 1))
        is None
    )
    torch.testing.assert_close(alone, beside, atol=1e-4, rtol=1e-4)
