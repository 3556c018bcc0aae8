"""Masks and prompts drawn over a picture."""

from __future__ import annotations

import numpy as np
import pytest

from simmat.drawing.display import (
    INVALID_RGB,
    display_channels,
    display_rgb,
    display_style,
)
from simmat.drawing.overlay import BOX, MASK, NEGATIVE, POSITIVE, draw_overlay
from simmat.errors import DataError
from simmat.types import Channel, Prompt, SensorImage


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


RGB = tuple(Channel(name, "srgb", "count") for name in ("red", "green", "blue"))
COUNTS = Channel("sonar", "counts", "count")
KELVIN = Channel("thermal", "brightness_temperature", "K")


def band(name: str, wavelength_um: float | None) -> Channel:
    return Channel(name, "reflectance", "1", wavelength_um=wavelength_um)


def ramp() -> np.ndarray:
    return np.linspace(280, 300, 32 * 40, dtype=np.float32).reshape(32, 40)


def test_rgb_is_shown_as_it_is_whatever_comes_along() -> None:
    """A photograph must not be stretched, nor its colours be mixed with the thermal plane composed with it."""
    planes = np.random.default_rng(0).integers(0, 256, (3, 8, 9)).astype(np.float32)
    image = SensorImage.from_planes(
        np.concatenate([np.full((1, 8, 9), 300), planes]), (KELVIN, *RGB)
    )
    np.testing.assert_array_equal(
        display_rgb(image), planes.transpose(1, 2, 0).astype(np.uint8)
    )


def test_temperature_is_shown_in_colours_that_grow_brighter_with_it() -> None:
    """Who looks at a temperature must be able to order it by eye."""
    shown = display_rgb(SensorImage.from_planes(ramp(), (KELVIN,))).astype(float)
    assert not np.allclose(shown[..., 0], shown[..., 2])
    luminance = shown @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance.ravel()) > -1).all()
    assert luminance.ravel()[-1] > 200 > 20 > luminance[0, 0]


@pytest.mark.parametrize(
    ("channel", "colours", "unit", "value", "shown"),
    [
        (KELVIN, "inferno", "°C", 300.0, 26.85),
        (Channel("t", "surface_temperature", "degC"), "inferno", "degC", 20.0, 20.0),
        (Channel("depth", "depth", "m"), "turbo", "m", 2.0, 2.0),
        (Channel("height", "height_above_ground", "m"), "turbo", "m", 2.0, 2.0),
        (
            Channel("aolp", "angle_of_linear_polarization", "rad"),
            "twilight",
            "°",
            np.pi / 2,
            90.0,
        ),
        (
            Channel("phase", "interferometric_phase", "deg"),
            "twilight",
            "°",
            359.0,
            359.0,
        ),
        (Channel("angle", "angle_with_gravity", "deg"), "gray", "°", 90.0, 90.0),
        (COUNTS, "gray", "count", 7.0, 7.0),
    ],
)
def test_a_quantity_has_its_colours_and_unit(
    channel: Channel, colours: str, unit: str, value: float, shown: float
) -> None:
    """People read degrees Celsius, metres and degrees of arc; only an angle that begins again has cyclic colours."""
    look = display_style(channel)
    assert (look.colours, look.unit) == (colours, unit)
    assert look.shown(value) == pytest.approx(shown)


def test_an_angle_has_the_same_colour_after_half_a_turn() -> None:
    """0 and π are one direction of polarization; a jump in colour would show an edge that is not there."""
    values = np.linspace(0, np.pi, 60, dtype=np.float32).reshape(1, 6, 10)
    image = SensorImage.from_planes(
        values, (Channel("aolp", "angle_of_linear_polarization", "rad"),)
    )
    shown = display_rgb(image).astype(int)
    assert np.abs(shown[0, 0] - shown[-1, -1]).max() < 8
    assert np.abs(shown[0, 0] - shown[3, 0]).max() > 60


def test_a_small_object_on_flat_ground_shows() -> None:
    """Percentiles of a sonar image that is nearly all zero are equal; the object must still be seen."""
    values = np.zeros((40, 40), dtype=np.float32)
    values[5, 5:8] = 3
    shown = display_rgb(SensorImage.from_planes(values, (COUNTS,)))
    assert shown[5, 6, 0] == 255
    assert shown[20, 20, 0] == 0


@pytest.mark.parametrize(
    ("wavelengths", "expected"),
    [
        ((0.49, 0.56, 0.66, 0.84), (3, 2, 0)),
        ((0.84, 0.66, 0.56), (0, 1, 2)),
        ((0.66, 0.84), (1, 0, 0)),
        ((None, 0.5, 0.6, 0.7), (0, 1, 2)),
        ((None,), (0,)),
    ],
)
def test_the_longest_wavelength_is_red(
    wavelengths: tuple[float | None, ...], expected: tuple[int, ...]
) -> None:
    """A false colour that follows wavelength reads alike for every sensor; without wavelengths the order does."""
    assert (
        display_channels([band(f"b{i}", w) for i, w in enumerate(wavelengths)])
        == expected
    )


def test_false_colour_puts_each_channel_in_its_own_plane() -> None:
    """What is bright in the near infrared only must look red."""
    channels = (band("green", 0.56), band("nir", 0.84), band("red", 0.66))
    planes = np.zeros((3, 10, 10), dtype=np.float32)
    planes[1, :5] = 1
    planes[0, :, 5:] = 1
    planes[2, 7:, :2] = 1
    shown = display_rgb(SensorImage.from_planes(planes, channels))
    assert shown[0, 0].tolist() == [255, 0, 0]
    assert shown[9, 0].tolist() == [0, 255, 0]
    assert shown[9, 9].tolist() == [0, 0, 255]


def test_invalid_pixels_are_hatched_and_do_not_set_the_contrast() -> None:
    """A hole must not be mistaken for a dark object, nor its fill value for a measurement."""
    values = ramp()
    valid = np.ones((1, 32, 40), dtype=np.bool_)
    valid[0, 10:20, 10:30] = False
    values[10:20, 10:30] = -32768
    shown = display_rgb(SensorImage(values[None], valid, (COUNTS,)))
    hole = {tuple(colour) for colour in shown[10:20, 10:30].reshape(-1, 3).tolist()}
    assert hole == set(INVALID_RGB)
    assert shown[0, 0, 0] == 0
    assert shown[-1, -1, 0] == 255


def test_an_image_without_any_valid_pixel_is_all_hatched() -> None:
    """It must be seen as empty, not stop the page it is on."""
    image = SensorImage(
        np.zeros((1, 6, 6), np.float32), np.zeros((1, 6, 6), np.bool_), (KELVIN,)
    )
    assert {tuple(c) for c in display_rgb(image).reshape(-1, 3).tolist()} == set(
        INVALID_RGB
    )
