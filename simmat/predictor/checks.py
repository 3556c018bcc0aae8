"""Checks of a predictor's prompts and images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat.data.pipeline import PreparedImage
from simmat.errors import ConfigError, DataError
from simmat.foundation import MaskPrediction
from simmat.predictor.reading import ImageReader
from simmat.sensors.normalize import CLIP
from simmat.types import RGB_QUANTITY, Channel, FloatArray, Prompt, SensorImage

_FAR, _MOSTLY, _FLAT = 0.99, 0.5, 0.02
"""Share of the clip value, share of the pixels, share of training's standard deviation: see `unlike_training`."""
_LOOKED_AT = 128
"""Pixels along each side that are enough to see it, evenly spread."""


def unlike_training(prepared: PreparedImage, channels: Sequence[Channel]) -> str:
    """Return which channel's values are far from those of training, as in another unit or bit depth; "" if none is.

    RGB channels are scaled by the foundation model's statistics, which say nothing of the training images.
    """
    step = max(prepared.content.shape[0] // _LOOKED_AT, 1)
    content = prepared.content[::step, ::step]
    for channel, plane in zip(channels, prepared.planes[:, ::step, ::step], strict=True):
        valid = plane[content & (plane != 0)]  # invalid pixels are 0
        if channel.quantity == RGB_QUANTITY or not valid.numel():
            continue
        trained = f"{channel.mean:.4g} ± {channel.std:.4g} {channel.unit}"
        if float((valid.abs() >= _FAR * CLIP).float().mean()) > _MOSTLY:
            return f"most values of channel {channel.name!r} are far from those of training ({trained})"
        if valid.numel() > 1 and float(valid.std()) < _FLAT:
            return f"the values of channel {channel.name!r} vary much less than those of training ({trained})"
    return ""


def as_numbers(given: Any, name: str, form: str, *shape: int) -> FloatArray:
    """Return numbers as float32 of a shape; TypeError, which names the form they must have, for anything else."""
    try:
        return np.asarray(given, np.float32).reshape(shape)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, {form}; got {given!r}") from None


def check_mask_size(mask: npt.NDArray[np.generic] | None, decoded: MaskPrediction) -> None:
    """Refuse a mask of another size than the decoder's own."""
    expected = tuple(decoded.logits.shape[-2:])
    if mask is not None and mask.shape != expected:
        raise ValueError(
            f"mask must be {expected} logits, the low_res of an earlier prediction of this model, got {mask.shape}"
        )


def check_units(image: SensorImage, planes: npt.NDArray[np.generic]) -> None:
    """Refuse an array that is in another unit: most of its numbers, and of its different numbers, are out of range.

    A fill value is one number, however often it occurs.

    Args:
        image: (C, H, W) made of `planes`.
        planes: (C, H, W) before anything became invalid.
    """
    for channel, plane, valid in zip(image.channels, planes, image.valid, strict=True):
        finite = plane[np.isfinite(plane)]
        without = plane[np.isfinite(plane) & ~valid]
        if 2 * without.size > finite.size and np.unique(without).size > max(np.unique(plane[valid]).size, 1):
            raise DataError(
                f"{image.origin}: most of its numbers are out of the range of {range_of(channel)}; they are "
                f"{finite.min():.6g} to {finite.max():.6g}. An array must be in the channels' units, whatever the unit "
                "of the files: convert it, give the file, or give a SensorImage whose channel has another unit"
            )


def range_of(channel: Channel) -> str:
    """Name a channel with its valid range: "thermal, 150 to 2500 K"."""
    low, high = channel.valid_range or (-math.inf, math.inf)
    return f"{channel.name}, {low:g} to {high:g} {channel.unit}"


def check_inside(prompt: Prompt, image: SensorImage | ImageReader) -> None:
    """Refuse points that are not on a pixel of the image, and boxes that cross its edges."""
    height, width = image.size_hw
    problems = [
        f"point {x:g},{y:g} (X is 0 to {width - 1}, Y 0 to {height - 1})"
        for x, y in prompt.point_coords.tolist()
        if not (0 <= x < width and 0 <= y < height)
    ]
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box.tolist()
        if not (0 <= x0 and x1 <= width and 0 <= y0 and y1 <= height):
            problems.append(f"box {x0:g},{y0:g},{x1:g},{y1:g} (X is 0 to {width}, Y 0 to {height})")
    if problems:
        raise ConfigError(
            f"{image.origin}: {' and '.join(problems)} outside of the image, which is {width} wide and {height} high"
            + (f"; {note}" if (note := getattr(image, "size_note", "")) else "")
        )
