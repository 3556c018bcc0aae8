"""Colour maps, and which one shows the values of a channel.

The map follows from the channel's quantity and unit, never from the sensor's name: inferno and °C for temperatures,
turbo for distances, a cyclic map for angles that begin again, grey for everything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from simmat.types import Channel, FloatArray

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
    {"gray": np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1), **dict(zip(_NAMES, _STORED, strict=True))}
)
"""Colour map -> its table."""


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
    if is_temperature(channel):
        return (
            DisplayStyle("inferno", CELSIUS, 1.0, -_ZERO_CELSIUS_K)
            if channel.unit == "K"
            else DisplayStyle("inferno", channel.unit)
        )
    turn = {"rad": 2 * math.pi, "deg": 360.0}.get(channel.unit)
    if turn is not None and any(word in quantity for word in (*_HALF_TURN, *_WHOLE_TURN)):
        period = turn / 2 if any(word in quantity for word in _HALF_TURN) else turn
        return DisplayStyle("twilight", "°", 360 / turn, 0.0, period)
    if any(word in quantity for word in _DISTANCES):
        return DisplayStyle("turbo", channel.unit)
    return DisplayStyle("gray", "°" if channel.unit == "deg" else channel.unit)


def is_temperature(channel: Channel) -> bool:
    """Return True where a channel's quantity is a temperature; counts of a thermal camera are not one."""
    return "temperature" in channel.quantity


def apply_colour_map(values: FloatArray, colours: str = "gray") -> PictureArray:
    """Map (H, W) in 0..1 to (H, W, 3) sRGB by a colour map."""
    table = _TABLES[colours]
    picture: PictureArray = table[np.minimum((values * len(table)).astype(np.intp), len(table) - 1)]
    return picture


def colour_bar(style: DisplayStyle, length: int) -> Sequence[tuple[int, int, int]]:
    """Return the colours along a bar of `length` pixels, from the lowest value to the highest."""
    row = apply_colour_map(np.linspace(0, 1, length, dtype=np.float32)[None], style.colours)[0]
    return [(int(red), int(green), int(blue)) for red, green, blue in row]
