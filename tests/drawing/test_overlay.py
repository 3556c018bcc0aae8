"""Masks and prompts drawn over a picture."""

from __future__ import annotations

import numpy as np
import pytest

from simmat.drawing.overlay import BOX, MASK, NEGATIVE, POSITIVE, draw_overlay
from simmat.errors import DataError
from simmat.types import Prompt


def grey(height: int, width: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def square(height: int, width: int, y0: int, x0: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


def nearness(pixel: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float(np.abs(pixel.astype(float) - np.asarray(colour)).max())


def test_a_mask_tints_its_inside_and_nothing_else() -> None:
    """Fill must stay see-through, and pixels away from the mask must be those of the picture."""
    drawn = np.asarray(draw_overlay(grey(600, 600), square(600, 600, 100, 200, 200)))
    inside, outside = drawn[200, 300], drawn[450, 100]
    assert outside.tolist() == [100, 100, 100]
    assert inside[2] > inside[0]
    assert nearness(inside, MASK) > 60
    assert drawn.shape == (600, 600, 3)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_contour_is_seen_on_any_ground(value: int) -> None:
    """On white a light line vanishes and on black a dark one; the two together never do."""
    drawn = np.asarray(
        draw_overlay(grey(600, 600, value), square(600, 600, 100, 100, 200))
    ).astype(float)
    row = drawn[200, 90:110].mean(axis=1)
    assert row.max() - row.min() > 90
    assert np.abs(np.diff(row)).max() > 60


def test_marks_lie_on_the_pixel_that_was_clicked() -> None:
    """A click drawn half an image pixel off points at the wrong thing on an enlarged image."""
    prompt = Prompt.points([(3, 10)], [(12, 4)])
    drawn = np.asarray(draw_overlay(grey(16, 16), None, prompt, size_wh=(320, 320)))
    for (x, y), colour in (((3, 10), POSITIVE), ((12, 4), NEGATIVE)):
        near = np.abs(drawn.astype(int) - np.asarray(colour)).max(axis=-1) < 12
        rows, columns = np.nonzero(near)
        assert (columns.min() + columns.max()) / 2 == pytest.approx(
            (x + 0.5) * 20 - 0.5, abs=0.6
        )
        assert (rows.min() + rows.max()) / 2 == pytest.approx(
            (y + 0.5) * 20 - 0.5, abs=0.6
        )


def test_a_box_is_drawn_around_its_pixels() -> None:
    """X1 and Y1 are the far edges of the last pixels inside."""
    prompt = Prompt(
        np.zeros((0, 2), np.float32),
        np.zeros(0, np.int64),
        np.asarray([10, 20, 600, 40], np.float32),
    )
    drawn = np.asarray(draw_overlay(grey(600, 600), None, prompt))
    assert (drawn[30, 598:] == BOX).all(), (
        "a side on the image's border must be seen whole"
    )
    changed = (drawn != 100).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max()) == (19, 40)
    assert (columns.min(), columns.max()) == (9, 599)
    assert not changed[30, 300]
    assert changed[30, 598]


def test_an_object_smaller_than_a_pixel_of_the_picture_still_shows() -> None:
    """On a thumbnail of a large image a small ship must not vanish."""
    drawn = np.asarray(
        draw_overlay(
            grey(2000, 2000), square(2000, 2000, 1000, 1000, 3), size_wh=(200, 200)
        )
    )
    assert (drawn != 100).any()


def test_a_mask_of_another_size_is_refused() -> None:
    """Stretching it would show a mask that nobody predicted."""
    with pytest.raises(DataError, match="mask of 7x5 over a picture of 8x8"):
        draw_overlay(grey(8, 8), np.zeros((5, 7), np.bool_))
