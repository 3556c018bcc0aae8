"""An image of any size as a picture for people."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simmat.drawing.display import PictureArray, display_channels, show_channels
from simmat.predictor.reading import FileImage
from simmat.types import ImageReader, OverviewReader, SensorImage, Window

_PICTURE_PX = 2048
"""Longest side of a picture in pixels."""
_PART_PX = 512
"""Side of the parts in which an image is read."""


def picture_of(reader: ImageReader) -> PictureArray:
    """Return an image as a picture (h, w, 3) of at most `_PICTURE_PX` on its longer side; only shown bands are read."""
    height, width = reader.size_hw
    channels = reader.read(Window(0, 0, 1, 1)).channels
    shown = display_channels(channels)
    picks = sorted(set(shown))
    if isinstance(reader, FileImage):
        reader = replace(reader, adapter=reader.adapter.reading_only(picks))
    step = -(-max(height, width) // _PICTURE_PX)
    if isinstance(reader, OverviewReader):
        small = reader.read_overview(Window(0, 0, height, width), step)
        return show_channels(small.select(picks), [picks.index(index) for index in shown])
    side = max(_PART_PX // step, 1) * step
    data = np.zeros((len(picks), -(-height // step), -(-width // step)), np.float32)
    valid = np.zeros(data.shape, np.bool_)
    for y in range(0, height, side):
        for x in range(0, width, side):
            part = reader.read(Window(y, x, min(y + side, height), min(x + side, width)))
            where = slice(y // step, (y + side) // step), slice(x // step, (x + side) // step)
            data[:, *where], valid[:, *where] = part.data[picks, ::step, ::step], part.valid[picks, ::step, ::step]
    small = SensorImage(data, valid, tuple(channels[index] for index in picks))
    return show_channels(small, [picks.index(index) for index in shown])
