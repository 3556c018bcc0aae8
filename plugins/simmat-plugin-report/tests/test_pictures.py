"""Pictures of predictions, and what is written below them."""

from __future__ import annotations

import numpy as np
from simmat_plugin_report.pictures import (
    FALSE_ALARM,
    HIT,
    MISS,
    describe_display,
    draw_comparison,
)

from simmat.types import Channel


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 100, dtype=np.uint8)


def square(height: int, width: int, y0: int, x0: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[y0 : y0 + side, x0 : x0 + side] = True
    return mask


def test_the_comparison_colours_hit_miss_and_false_alarm() -> None:
    """The three must be told apart, and everything else must be grey so that the colours mean something."""
    picture = grey(600, 600)
    picture[...] = (200, 60, 20)
    truth, found = square(600, 600, 100, 100, 200), square(600, 600, 200, 200, 200)
    drawn = np.asarray(draw_comparison(picture, truth, found))
    ground = drawn[50, 50]
    assert ground[0] == ground[1] == ground[2]
    for at, colour in (
        ((250, 250), HIT),
        ((150, 150), MISS),
        ((350, 350), FALSE_ALARM),
    ):
        expected = ground * 0.4 + np.asarray(colour) * 0.6
        assert np.abs(drawn[at] - expected).max() <= 1


def test_what_is_not_scored_is_not_coloured() -> None:
    """A false alarm where there is no ground truth is none."""
    nothing, everything = np.zeros((600, 600), np.bool_), np.ones((600, 600), np.bool_)
    ignore = square(600, 600, 0, 0, 300)
    drawn = np.asarray(
        draw_comparison(grey(600, 600), nothing, everything, ignore=ignore)
    )
    assert drawn[100, 100].tolist() == [100, 100, 100]
    assert drawn[500, 500].tolist() != [100, 100, 100]


def test_what_is_shown_is_said() -> None:
    """A false colour means nothing to a reader who is not told which channel is which colour."""
    wavelengths = {"green": 0.56, "nir": 0.84, "red": 0.66}
    channels = [
        Channel(name, "reflectance", "1", wavelength_um=um)
        for name, um in wavelengths.items()
    ]
    assert describe_display(channels) == "nir, red, green as R, G, B"
