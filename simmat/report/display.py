"""Show any sensor image as three 8-bit planes.

What is shown depends on the channels, never on the sensor's name:

- channels declared as sRGB red, green and blue are shown unchanged, whatever other channels there are;
- one channel is grey, or the perceptual colour map "inferno" where it is a temperature;
- two channels are red and cyan, three or more a false colour of three: the longest wavelength as red, the middle one as
  green, the shortest as blue; where a channel has no wavelength, the first three channels in their order.

Channels other than sRGB are stretched from the 2nd to the 98th percentile of their valid pixels. Pixels where a shown
channel is invalid are hatched slate blue.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simmat.sensors.normalize import rgb_indices
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

PictureArray = npt.NDArray[np.uint8]
"""(H, W, 3) sRGB, 0..255."""

STRETCH_PERCENT = (2.0, 98.0)
"""Percentiles of the valid pixels that become black and white."""

INVALID_RGB = ((44, 66, 92), (74, 104, 138))
"""The two colours of the hatching, unlike any grey and any colour of inferno."""

HATCH_PX = 4
"""Width of a hatching stripe along a row, in pixels of the image."""

_INFERNO = np.frombuffer(
    base64.b64decode(
        "AAADAAAEAAAGAQAHAQEJAQELAgEOAgIQAwISBAMUBAMWBQQYBgQbBwUdCAYfCQYhCgcjCwcmDQgoDggqDwktEAkvEgoyEwo0FAs2Fgs5Fws7GQs+"
        "GgtAHAxDHQxFHwxHIAxKIgtMJAtOJgtQJwtSKQtUKwpWLQpYLgpaMApcMgldNAlfNQlgNwlhOQliOwlkPAllPglmQAlmQQlnQwpoRQppRgppSAtq"
        "SgtqSwxrTQxrTw1sUA1sUg5sUw5tVQ9tVw9tWBBtWhFtWxFuXRJuXxJuYBNuYhRuYxRuZRVuZhVuaBZuahduaxdubRhubhhucBluchltcxptdRtt"
        "dhtteBxtehxtex1sfR1sfh5sgB9rgR9rgyBrhSBqhiFqiCFqiSJpiyJpjSNpjiRokCRokSVnkyVnlSZmliZmmCdlmShkmyhknCljniljoCpioSth"
        "oythpCxgpixfpy1fqS5eqy5drC9crjBbrzFbsTFasjJZtDNYtTNXtzRWuDVWujZVuzdUvTdTvjhSvzlRwTpQwjtPxDxOxT1Nxz5MyD5LyT9Ky0BJ"
        "zEFIzUJHz0RG0EVE0UZD0kdC1EhB1UlA1ko/10s+2U092k4720863FA53VI43lM331Q24FY04lcz41gy5Fox5Vsw5lwu5l4t518s6GEr6WIq6mQo"
        "62Un7Gcm7Wgl7Woj7mwi720h8G8f8HAe8XId8nQc8nUa83cZ83kY9HoW9XwV9X4U9oAS9oER94MQ94UO+IcN+IgM+IoL+YwJ+Y4I+ZAI+pEH+pMG"
        "+pUG+pcG+5kG+5sG+50G+54H+6AH+6II+6QK+6YL+6gN+6oO+6wQ+64S+7AU+7EW+7MY+7Ua+7cc+7ke+rsh+r0j+r8l+sEo+cMq+cUs+ccv+Mkx"
        "+Ms0+M03988699E89tM/9tVC9ddF9dlI9NtL9NxP895S8+BW8+JZ8uRd8uZg8ehk8elo8ets8e1w8e508fB58fJ98vOB8vSF8/aJ9PeN9fiR9vqV"
        "9/uZ+fyd+v2g/P6k"
    ),
    dtype=np.uint8,
).reshape(256, 3)
"""The perceptual colour map "inferno" (Smith and van der Walt 2015, CC0): (256, 3) sRGB, for values from 0 to 1.

It is matplotlib's, which takes longer to import than an image takes to segment.
"""


def display_rgb(image: SensorImage) -> PictureArray:
    """Show a sensor image.

    Args:
        image: (C, H, W) in physical units, before the adapter's transform.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    shown = display_channels(image.channels)
    data, valid = image.data[list(shown)], image.valid[list(shown)]  # (1 or 3, H, W)
    if rgb_indices(image.channels) is not None:
        picture = np.rint(np.clip(data, 0, 255)).astype(np.uint8)
    elif len(shown) == 1 and is_temperature(image.channels[shown[0]]):
        picture = inferno(stretch(data[0], valid[0])).transpose(2, 0, 1)  # (H, W, 3) -> (3, H, W)
    else:
        planes = [np.rint(stretch(plane, good) * 255).astype(np.uint8) for plane, good in zip(data, valid, strict=True)]
        picture = np.stack(planes * 3 if len(planes) == 1 else planes)
    return hatch(np.ascontiguousarray(picture.transpose(1, 2, 0)), np.any(~valid, axis=0))  # (3, H, W) -> (H, W, 3)


def display_channels(channels: Sequence[Channel]) -> tuple[int, ...]:
    """Return the index of the one channel that is shown, or those of the three shown as red, green and blue."""
    if rgb := rgb_indices(channels):
        return rgb
    count = len(channels)
    if count == 1:
        return (0,)
    wavelengths = [channel.wavelength_um for channel in channels if channel.wavelength_um]
    if len(wavelengths) < count:
        return 0, 1, min(2, count - 1)
    order = sorted(range(count), key=lambda index: -wavelengths[index])
    return order[0], order[1 if count == 2 else (count - 1) // 2], order[-1]


def describe_display(channels: Sequence[Channel]) -> str:
    """Describe what `display_rgb` shows, as "thermal [K], inferno" or "nir, red, green as R, G, B"."""
    shown = display_channels(channels)
    if len(shown) == 1:
        channel = channels[shown[0]]
        return f"{channel.name} [{channel.unit}], {'inferno' if is_temperature(channel) else 'grey'}"
    return ", ".join(channels[index].name for index in shown) + " as R, G, B"


def is_temperature(channel: Channel) -> bool:
    """Return True where a channel's quantity is a temperature; counts of a thermal camera are not one."""
    return "temperature" in channel.quantity


def stretch(plane: FloatArray, valid: BoolArray) -> FloatArray:
    """Scale a plane to 0..1 between the percentiles of its valid pixels.

    Args:
        plane: (H, W) in any unit.
        valid: (H, W).

    Returns:
        (H, W) float32, invalid pixels in 0..1 too; a plane without contrast is 0.5 everywhere.
    """
    if not valid.any():
        return np.full(plane.shape, 0.5, dtype=np.float32)
    values = plane[valid]
    low, high = (float(value) for value in np.percentile(values, STRETCH_PERCENT))
    if not high > low:  # so that an object of less than 2 % still shows
        low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.full(plane.shape, 0.5, dtype=np.float32)
    scaled = np.where(valid, plane, np.float32(low))  # in place below: a satellite tile has 120 million pixels
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def inferno(values: FloatArray) -> PictureArray:
    """Map (H, W) in 0..1 to (H, W, 3) sRGB."""
    colours: PictureArray = _INFERNO[np.minimum((values * len(_INFERNO)).astype(np.intp), len(_INFERNO) - 1)]
    return colours


def hatch(picture: PictureArray, where: BoolArray) -> PictureArray:
    """Return the picture (H, W, 3) with diagonal hatching where `where` (H, W) is True."""
    if not where.any():
        return picture
    rows, columns = np.nonzero(where)
    hatched = picture.copy()
    hatched[rows, columns] = np.asarray(INVALID_RGB, dtype=picture.dtype)[((rows + columns) // HATCH_PX) % 2]
    return hatched
