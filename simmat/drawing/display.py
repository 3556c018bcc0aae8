"""Show any sensor image as three 8-bit planes.

What is shown depends on the channels, never on the sensor's name:

- channels declared as sRGB red, green and blue are shown unchanged, whatever other channels there are;
- one channel has the colour map of its quantity, see `simmat.drawing.colour_maps`: grey for counts;
- two channels are red and cyan, three or more a false colour of three: the longest wavelength as red, the middle one as
  green, the shortest as blue; where a channel has no wavelength, the first three channels in their order.

Channels other than sRGB are stretched from the 2nd to the 98th percentile of their valid pixels; where many of these
have the smallest value, such as the black around the fan of a sonar, of all others. Pixels where a shown channel is
invalid are hatched slate blue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simmat.drawing.colour_maps import DisplayStyle, PictureArray, apply_colour_map, display_style
from simmat.sensors.normalize import rgb_indices
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

Limits = tuple[float, float]
"""Smallest and largest value that is shown, in the channel's unit."""

STRETCH_PERCENT = (2.0, 98.0)
"""Percentiles of the valid pixels that become black and white."""

INVALID_RGB = ((44, 66, 92), (74, 104, 138))
"""The two colours of the hatching, unlike any grey."""

HATCH_PX = 4
"""Width of a hatching stripe along a row, in pixels of the image."""


def display_rgb(image: SensorImage) -> PictureArray:
    """Show a sensor image.

    Args:
        image: (C, H, W) in physical units, before the adapter's transform.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    return show_channels(image, display_channels(image.channels))


def show_channels(image: SensorImage, shown: Sequence[int], limits: Limits | None = None) -> PictureArray:
    """Show one channel in the colour map of its quantity, or three as red, green and blue.

    Args:
        image: (C, H, W) in physical units.
        shown: indices of one channel or of three.
        limits: the smallest and the largest value of one channel, in its unit; by default those of `display_limits`.

    Returns:
        (H, W, 3) uint8 sRGB.
    """
    data, valid = image.data[list(shown)], image.valid[list(shown)]  # (1 or 3, H, W)
    if len(shown) == 1:
        style = display_style(image.channels[shown[0]])
        low, high = display_limits(data[0], valid[0], style) if limits is None else limits
        plane = data[0] if style.period is None else np.mod(data[0], np.float32(style.period))
        return hatch(apply_colour_map(_scaled(plane, valid[0], low, high), style.colours), ~valid[0])
    if tuple(shown) == rgb_indices(image.channels):
        picture = np.rint(np.clip(data, 0, 255)).astype(np.uint8)
    else:
        planes = [np.rint(stretch(plane, good) * 255).astype(np.uint8) for plane, good in zip(data, valid, strict=True)]
        picture = np.stack(planes)
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
    return _percentiles(plane, valid) if style.period is None else (0.0, style.period)


def _percentiles(plane: FloatArray, valid: BoolArray) -> Limits:
    values = plane[valid]
    if not values.size:
        return 0.0, 0.0
    above = values[values > values.min()]
    floor = len(values) - len(above) > STRETCH_PERCENT[0] / 100 * len(values)  # black around the fan of a sonar
    low, high = (float(value) for value in np.percentile(above if floor and len(above) else values, STRETCH_PERCENT))
    if not high > low:  # so that an object of less than 2 % still shows
        low, high = float(values.min()), float(values.max())
    return low, high


def _scaled(plane: FloatArray, valid: BoolArray, low: float, high: float) -> FloatArray:
    """Scale (H, W) to 0..1 from `low` to `high`; 0.5 everywhere if these are equal."""
    if not high > low:
        return np.full(plane.shape, 0.5, dtype=np.float32)
    scaled = np.where(valid, plane, np.float32(low))  # in place below: a satellite tile has 120 million pixels
    scaled -= np.float32(low)
    scaled /= np.float32(high - low)
    return np.clip(scaled, 0, 1, out=scaled)


def hatch(picture: PictureArray, where: BoolArray) -> PictureArray:
    """Return the picture (H, W, 3) with diagonal hatching where `where` (H, W) is True."""
    if not where.any():
        return picture
    rows, columns = np.nonzero(where)
    hatched = picture.copy()
    hatched[rows, columns] = np.asarray(INVALID_RGB, dtype=picture.dtype)[((rows + columns) // HATCH_PX) % 2]
    return hatched
