"""Channels and file handling that the near-infrared sensors share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simmat import Channel, SensorImage
from simmat.io.images import (
    describe_bits,
    full_scale,
    largest_count,
    read_image,
    require_one_plane,
)
from simmat.types import ImageFile, Window

RED = Channel("red", "counts", "count", wavelength_um=0.66)
NIR = Channel("nir", "counts", "count", wavelength_um=0.85)
LOSSLESS = (".tif", ".tiff", ".png", ".npy")


def read_plane(
    path: Path, modality: str, nodata: float | None, window: Window | None = None
) -> ImageFile:
    """Read a file of one plane, or the part in a window; DataError if it has more, with what to use instead."""
    image = read_image(path, nodata, window)
    require_one_plane(image, modality)
    return image


def with_count_range(channel: Channel, image: ImageFile) -> Channel:
    """Return a channel with the range of the file's number type; its upper end is where pixels are saturated."""
    most = largest_count(image)
    if not np.isfinite(most):
        return channel
    least = (
        float(np.iinfo(image.planes.dtype).min)
        if image.planes.dtype.kind == "i"
        else 0.0
    )
    return replace(channel, valid_range=(least, most))


def saturated(channels: Sequence[Channel]) -> list[float]:
    """Return for each channel the count from which on it is saturated."""
    return [
        full_scale(channel.valid_range[1]) if channel.valid_range else np.inf
        for channel in channels
    ]


def bits_of(image: SensorImage, path: Path) -> str:
    """Return the description of a TIFF whose counts use fewer bits than it stores, else ""."""
    most = max(
        channel.valid_range[1] if channel.valid_range else np.inf
        for channel in image.channels
    )
    if (
        path.suffix.lower() not in (".tif", ".tiff")
        or most >= 65535
        or not np.log2(most + 1).is_integer()
    ):
        return ""
    return describe_bits(int(np.log2(most + 1)))


def stored(image: SensorImage) -> npt.NDArray[Any]:
    """Return the planes as 16-bit counts if all values are such, else as float32 with NaN where invalid."""
    data = image.data
    if (
        image.valid.all()
        and data.min() >= 0
        and data.max() <= 65535
        and (data == np.rint(data)).all()
    ):
        return data.astype(np.uint16)
    return np.where(image.valid, data, np.float32(np.nan))
