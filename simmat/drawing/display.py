"""Show any sensor image as three 8-bit planes, and the colour maps for it.

What is shown depends on the channels' quantities and units, never on the sensor's name:

- channels declared as sRGB red, green and blue are shown unchanged, whatever other channels there are;
- one channel has the colour map of its quantity: inferno and °C for temperatures, turbo for distances, a cyclic map for
angles with a period, grey for everything else;
- two channels are red and cyan, three or more a false colour of three: the longest wavelength as red, the middle one as
  green, the shortest as blue; if a channel has no wavelength, the first three channels in their order.

Channels other than sRGB are stretched from the 2nd to the 98th percentile of their valid pixels; if many of these have
the smallest value, such as the black around the fan of a sonar, of all the others. Pixels where a shown channel is
invalid are hatched slate blue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from simmat.sensors.normalize import rgb_indices
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

PictureArray = npt.NDArray[np.uint8]
"""(H, W, 3) sRGB, 0..255."""

CELSIUS = "°C"
_ZERO_CELSIUS_K = 273.15
_DISTANCES = ("depth", "distance", "height", "elevation", "disparity")
"""Words in quantities that are shown as distances."""
_HALF_TURN = ("angle_of_linear_polarization", "orientation")
_WHOLE_TURN = ("phase", "azimuth", "direction", "heading")
"""Words in quantities that are the same again after half a turn, and after a whole one."""

_NAMES = ("inferno", "turbo", "twilight")
_STORED = np.load(Path(__file__).with_name("colour_maps.npy"), allow_pickle=False)
"""(3, 256, 3) sRGB for values from 0 to 1: tables of matplotlib, which is slow to import.

Smith and van der Walt 2015, CC0; Mikhailov 2019, Apache-2.0; Bechtold 2018, CC0.
"""
_TABLES: Mapping[str, PictureArray] = MappingProxyType(
    {
        "gray": np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1),
        **dict(zip(_NAMES, _STORED, strict=True)),
    }
)
"""Colour map -> its table."""

Limits = tuple[float, float]
"""Smallest and largest value that is shown, in the channel's unit."""

STRETCH_PERCENT = (2.0, 98.0)
"""Percentiles of the valid pixels that become black and white."""

INVALID_RGB = ((44, 66, 92), (74, 104, 138))
"""The two colours of the hatching, unlike any grey."""

HATCH_PX = 4
"""Width of a hatching stripe along a row, in pixels of the image."""


@dataclass(frozen=True, slots=True)
class DisplayStyle:
    """How the values of one channel are shown.

    Attributes:
        colours: name of the colour map.
        unit: unit of the numbers shown beside it.
        factor: a shown number is factor times the value plus offset.
        offset: see `factor`.
        period: period of an angle, in the channel's unit; None for all else.
    """

    colours: str
    unit: str
    factor: float = 1.0
    offset: float = 0.0
    period: float | None = None

    def shown(self, value: float) -> float:
        """Return the number that is shown for a value of the channel."""
        return self.factor * value + self.offset

    def text(self, value: float, digits: int = 6) -> str:
        """Return the number that is shown for a value, rounded to so many digits of the value."""
        return f"{self.shown(float(f'{value:.{digits}g}')):.{digits}g}"


def display_style(channel: Channel) -> DisplayStyle:
    """Return how a channel is shown."""
    quantity = channel.quantity.lower()
    if "temperature" in quantity:  # counts of a thermal camera are none
        if channel.unit == "K":
            return DisplayStyle("inferno", CELSIUS, 1.0, -_ZERO_CELSIUS_K)
        return DisplayStyle("inferno", channel.unit)
    turn = {"rad": 2 * math.pi, "deg": 360.0}.get(channel.unit)
    if turn is not None and any(
        word in quantity for word in (*_HALF_TURN, *_WHOLE_TURN)
    ):
        period = turn / 2 if any(word in quantity for word in _HALF_TURN) else turn
        return DisplayStyle("twilight", "°", 360 / turn, 0.0, period)
    if any(word in quantity for word in _DISTANCES):
        return DisplayStyle("turbo", channel.unit)
    return DisplayStyle("gray", "°" if channel.unit == "deg" else channel.unit)


def apply_colour_map(values: FloatArray, colours: str = "gray") -> PictureArray:
    """Map (H, W) in 0..1 to (H, W, 3) sRGB by a colour map."""
    table = _TABLES[colours]
    picture: PictureArray = table[
        np.minimum((values * len(table)).astype(np.intp), len(table) - 1)
    ]
    return picture


def colour_bar(style: DisplayStyle, length: int) -> Sequence[tuple[int, int, int]]:
    """Return the colours along a bar of `length` pixels, from the lowest value to the highest."""
    row = apply_colour_map(
        np.linspace(0, 1, length, dtype=np.float32)[None], style.colours
    )[0]
    return [(red, green, blue) for red, green, blue in row.tolist()]


def spread_text(channel: Channel) -> str:
    """Return mean and standard deviation of a channel's training values in the unit that is shown; "" if unknown."""
    if channel.mean is None or channel.std is None:
        return ""
    style = display_style(channel)
    spread = style.factor * channel.std
    return f"{style.text(channel.mean, 4)} ± {spread:.4g} {style.unit}"


def display_rgb(image: SensorImage) -> PictureArray:
    """Show a sensor image.

    Args:
        image: (C, H, W) in physical units, before the adapter's transform.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    return show_channels(image, display_channels(image.channels))


def show_channels(
    image: SensorImage, shown: Sequence[int], limits: Limits | None = None
) -> PictureArray:
    """Show one channel in the colour map of its quantity, or three as red, green and blue.

    Args:
        image: (C, H, W) in physical units.
        shown: indices of one channel or of three.
        limits: the smallest and the largest value of one channel, in its unit; by default those of `display_limits`.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    data = image.data[list(shown)]
    valid = image.valid[list(shown)]  # (1 or 3, H, W)
    if len(shown) == 1:
        style = display_style(image.channels[shown[0]])
        low, high = (
            display_limits(data[0], valid[0], style) if limits is None else limits
        )
        plane = (
            data[0]
            if style.period is None
            else np.mod(data[0], np.float32(style.period))
        )
        return hatch(
            apply_colour_map(_scaled(plane, valid[0], low, high), style.colours),
            ~valid[0],
        )
    if tuple(shown) == rgb_indices(image.channels):
        picture = np.rint(np.clip(data, 0, 255)).astype(np.uint8)
    else:
        planes = [
            np.rint(stretch(plane, good) * 255).astype(np.uint8)
            for plane, good in zip(data, valid, strict=True)
        ]
        picture = np.stack(planes)
    # (3, H, W) -> (H, W, 3)
    return hatch(
        np.ascontiguousarray(picture.transpose(1, 2, 0)), np.any(~valid, axis=0)
    )


def display_channels(channels: Sequence[Channel]) -> tuple[int, ...]:
    """Return the index of the one channel that is shown, or those of the three shown as red, green and blue."""
    rgb = rgb_indices(channels)
    if rgb:
        return rgb
    count = len(channels)
    if count == 1:
        return (0,)
    wavelengths = [
        channel.wavelength_um for channel in channels if channel.wavelength_um
    ]
    if len(wavelengths) < count:
        return 0, 1, min(2, count - 1)
    order = sorted(range(count), key=lambda index: -wavelengths[index])
    return order[0], order[1 if count == 2 else (count - 1) // 2], order[-1]


def stretch(plane: FloatArray, valid: BoolArray) -> FloatArray:
    """Scale a plane to 0..1 between the percentiles of its valid pixels.

    Args:
        plane: (H, W) in any unit.
        valid: (H, W).

    Returns:
        (H, W) float32, invalid pixels in 0..1 too; a plane without contrast is 0.5 everywhere.
    """
    return _scaled(plane, valid, *_percentiles(plane, valid))


def display_limits(plane: FloatArray, valid: BoolArray, style: DisplayStyle) -> Limits:
    """Return the values that are shown as the two ends of a colour map: percentiles, or the period of an angle.

    Args:
        plane: (H, W) in the channel's unit.
        valid: (H, W).
        style: how the channel is shown.
    """
    if style.period is None:
        return _percentiles(plane, valid)
    return (0.0, style.period)


def _percentiles(plane: FloatArray, valid: BoolArray) -> Limits:
    values = plane[valid]
    if not values.size:
        return 0.0, 0.0
    above = values[values > values.min()]
    # black around the fan of a sonar
    floor = len(values) - len(above) > STRETCH_PERCENT[0] / 100 * len(values)
    if not (floor and len(above)):
        above = values
    low, high = map(float, np.percentile(above, STRETCH_PERCENT))
    if not high > low:  # so that an object of less than 2 % still shows
        low = float(values.min())
        high = float(values.max())
    return low, high


def _scaled(plane: FloatArray, valid: BoolArray, low: float, high: float) -> FloatArray:
    """Scale (H, W) to 0..1 from `low` to `high`; 0.5 everywhere if these are equal."""
    if not high > low:
        return np.full(plane.shape, 0.5, dtype=np.float32)
    # in place below: a satellite tile has 120 million pixels
    scaled = np.where(valid, plane, np.float32(low))
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def hatch(picture: PictureArray, where: BoolArray) -> PictureArray:
    """Return the picture (H, W, 3) with diagonal hatching where `where` (H, W) is True."""
    if not where.any():
        return picture
    rows, columns = np.nonzero(where)
    hatched = picture.copy()
    hatched[rows, columns] = np.asarray(INVALID_RGB, dtype=picture.dtype)[
        ((rows + columns) // HATCH_PX) % 2
    ]
    return hatched
