"""How any sensor image is shown to a person: three 8-bit planes, the same for the same input.

The choice depends on what the channels say of themselves, never on the sensor's name:

- red, green and blue declared as sRGB are shown as they are, whatever other channels come along;
- one channel is grey, or the perceptual map "inferno" where it is a temperature;
- two channels are red and cyan, three or more a false colour of three: the longest wavelength as
  red, the middle one as green, the shortest as blue; where a channel has no wavelength, the first
  three planes in their order.

Channels other than sRGB are stretched from the 2nd to the 98th percentile of their valid pixels.
Where a shown channel is invalid the picture is hatched slate blue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from simmat.report.inferno import inferno
from simmat.sensors.normalize import rgb_indices
from simmat.types import BoolArray, Channel, FloatArray, SensorImage

PictureArray = npt.NDArray[np.uint8]
"""(H, W, 3) sRGB, 0..255."""

STRETCH_PERCENT = (2.0, 98.0)
"""Percentiles of the valid pixels that become black and white."""

INVALID_RGB = ((44, 66, 92), (74, 104, 138))
"""The two colours of the hatching; no grey and no colour of inferno is near them."""

HATCH_PX = 4
"""Width of a hatching stripe along a row, in pixels of the image."""


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
    known = [(channel.wavelength_um, index) for index, channel in enumerate(channels) if channel.wavelength_um]
    order = list(range(count))
    if len(known) == count:
        order = [index for _, index in sorted(known, key=lambda pair: (-pair[0], pair[1]))]
        order = [order[0], order[(count - 1) // 2], order[-1]] if count > 2 else order
    return order[0], order[1], order[-1 if count == 2 else 2]


def describe_display(channels: Sequence[Channel]) -> str:
    """Say in words what `display_rgb` shows: "thermal [K], inferno" or "nir, red, green as R, G, B"."""
    shown = display_channels(channels)
    if len(shown) == 1:
        channel = channels[shown[0]]
        return f"{channel.name} [{channel.unit}], {'inferno' if is_temperature(channel) else 'grey'}"
    return ", ".join(channels[index].name for index in shown) + " as R, G, B"


def is_temperature(channel: Channel) -> bool:
    """True where a channel's quantity is a temperature; counts of a thermal camera are none."""
    return "temperature" in channel.quantity


def stretch(plane: FloatArray, valid: BoolArray) -> FloatArray:
    """Scale a plane to 0..1 between the percentiles of its valid pixels.

    Args:
        plane: (H, W) in any unit.
        valid: (H, W).

    Returns:
        (H, W) float32; a plane without contrast is 0.5 throughout, invalid pixels are in 0..1 too.
    """
    if not valid.any():
        return np.full(plane.shape, 0.5, dtype=np.float32)
    values = plane[valid]
    low, high = (float(value) for value in np.percentile(values, STRETCH_PERCENT))
    if not high > low:  # an object smaller than the percentiles leave out still shows
        low, high = float(values.min()), float(values.max())
    if not high > low:
        return np.full(plane.shape, 0.5, dtype=np.float32)
    scaled = np.where(valid, plane, np.float32(low))  # in place from here on: a satellite's tile has 120 million pixels
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
