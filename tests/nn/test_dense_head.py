"""A dense head: classes and centres from the same embedding as the prompts', and what it is trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from simmat.data.instances import Annotation, Instance
from simmat.data.pipeline import NO_TRUTH, dense_targets
from simmat.foundation import ImageEmbedding
from simmat.nn.dense_head import COARSEST_ANSWER, OBJECTS, DenseAnswer, DenseHead
from simmat.nn.losses import dense_loss
from simmat.types import Letterbox, Window

LAYOUTS = [
    ((16, 48, 96, 160), (2, 4, 8, 16)),
    ((32, 64, 256), (4, 8, 16)),
    ((256,), (16,)),
    ((32, 64, 256), (3.5, 7, 14)),
]


@pytest.mark.parametrize(("widths", "strides"), LAYOUTS)
def test_it_answers_finely_for_every_foundation_model(
    widths: tuple[int, ...], strides: tuple[float, ...]
) -> None:
    """One coarse level (SAM) or a pyramid (lite, timm): the answer is at stride 4 or finer."""
    head = DenseHead(
        widths, strides, 5, background=True, generator=torch.Generator().manual_seed(0)
    )
    size = 56
    levels = tuple(
        torch.randn(2, w, round(size / s), round(size / s))
        for w, s in zip(widths, strides, strict=True)
    )
    answer = head(ImageEmbedding(levels, strides))
    assert answer.class_logits.shape[:2] == (2, 5)
    assert answer.distance.shape[:2] == (2, 1)
    assert answer.class_logits.shape[2:] == answer.distance.shape[2:]
    assert size / answer.class_logits.shape[-1] <= COARSEST_ANSWER + 1


def test_a_new_head_predicts_background_for_most_pixels() -> None:
    """Else the first tens of steps go into learning that, and short runs end there."""
    answer = _head(seed=0)(ImageEmbedding((torch.zeros(1, 8, 4, 4),), (16,)))
    assert float(answer.class_logits.softmax(1)[:, 0].mean().detach()) == pytest.approx(
        1 - OBJECTS, abs=0.01
    )
    assert float(answer.distance.sigmoid().mean().detach()) == pytest.approx(
        OBJECTS, abs=0.01
    )


def _head(*, seed: int, background: bool = True) -> DenseHead:
    return DenseHead(
        (8,),
        (16,),
        3,
        background=background,
        generator=torch.Generator().manual_seed(seed),
    )


def _label(*boxes: tuple[int | None, int, int, int, int], size: int = 32) -> Annotation:
    regions = tuple(
        Instance(c, Window(y0, x0, y1, x1), np.ones((y1 - y0, x1 - x0), np.bool_))
        for c, y0, x0, y1, x1 in boxes
    )
    return Annotation((size, size), regions, np.zeros((size, size), np.bool_))


def test_the_smaller_of_two_objects_is_in_front() -> None:
    """Else an object on another one is never learned."""
    classes, _ = dense_targets(
        _label((7, 0, 0, 20, 20), (9, 5, 5, 9, 9)),
        Letterbox((32, 32), 32),
        {7: 1, 9: 2},
        0,
    )
    assert classes[6, 6] == 2
    assert classes[1, 1] == 1
    assert classes[25, 25] == 0


def test_the_distance_is_largest_in_the_middle_of_each_object() -> None:
    """Its peaks are where to click, for small and large objects alike."""
    _, distance = dense_targets(
        _label((None, 2, 2, 9, 9), (None, 10, 10, 31, 31)),
        Letterbox((32, 32), 32),
        {None: 1},
        0,
    )
    assert distance[5, 5] == distance[20, 20] == 1
    assert distance[0, 0] == 0
    assert distance[2, 2] < 0.5


def test_padding_and_ignored_pixels_have_no_truth() -> None:
    """Neither may be learned."""
    label = _label((None, 0, 0, 4, 4), size=16)
    ignore = label.ignore.copy()
    ignore[8, 8] = True
    label = Annotation((16, 16), label.regions, ignore)
    classes, _ = dense_targets(label, Letterbox((16, 16), 16), {None: 1}, NO_TRUTH)
    assert (classes[label.ignore] == NO_TRUTH).all()
    assert classes[12, 12] == NO_TRUTH, "unmarked objects may be there"
    wide, _ = dense_targets(
        Annotation((8, 16), (), np.zeros((8, 16), np.bool_)),
        Letterbox((8, 16), 16),
        {},
        0,
    )
    assert (wide[8:] == NO_TRUTH).all()
    assert (wide[:8] == 0).all()


def test_the_loss_ignores_pixels_without_truth() -> None:
    """Whatever is answered there costs nothing."""
    classes, distance = torch.full((1, 8, 8), NO_TRUTH), torch.zeros(1, 8, 8)
    classes[0, :4] = 1
    answer = DenseAnswer(torch.randn(1, 3, 8, 8), torch.randn(1, 1, 8, 8))
    other = DenseAnswer(answer.class_logits.clone(), answer.distance.clone())
    other.class_logits[:, :, 4:] = 50 * torch.randn(1, 3, 4, 8)
    other.distance[:, :, 4:] = 50.0
    assert torch.allclose(
        dense_loss(answer, classes, distance)[0],
        dense_loss(other, classes, distance)[0],
    )
