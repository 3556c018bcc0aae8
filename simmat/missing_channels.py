"""Images that lack channels a network was trained with: a camera with a dead band, a sensor that is not there today.

A missing channel is there as a plane without a valid pixel. Nothing is filled in; a transfer layer that
`takes_missing` leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simmat.types import Channel, SensorImage, same_channels

_COUNTED = re.compile(r"band\d+")
"""Names that say no more than a plane's place in its file."""


@dataclass(frozen=True)
class MissingChannels:
    """Which channels of a sensor are missing from a sample.

    Attributes:
        channels: C channels as the sensor loads them when none is missing.
        names: of some of them, not of all.
    """

    channels: tuple[Channel, ...]
    names: frozenset[str]

    def blank(self, like: SensorImage) -> SensorImage:
        """Return (C, H, W) without a valid pixel, of another image's size."""
        shape = (len(self.channels), *like.size_hw)
        return SensorImage(np.zeros(shape, np.float32), np.zeros(shape, np.bool_), self.channels, like.origin)

    def spread(self, image: SensorImage) -> SensorImage:
        """Return (C, H, W) of all channels, invalid where they are missing; an image that does not fit as it is.

        A file may have the missing planes or not: those it has are not looked at. Planes that have no names but by
        their place are taken in order.
        """
        kept = [index for index, channel in enumerate(self.channels) if channel.name not in self.names]
        if same_channels(image.channels, self.channels):
            image = image.select(kept)
        elif not _fits(image.channels, [self.channels[index] for index in kept]):
            return image
        whole = self.blank(image)
        whole.data[kept], whole.valid[kept] = image.data, image.valid
        return replace(whole, georeference=image.georeference)


def _fits(found: Sequence[Channel], kept: Sequence[Channel]) -> bool:
    """True where a file's channels are those that are left, or as many without a name of their own."""
    counted = len(found) == len(kept) and all(_COUNTED.fullmatch(c.name) for c in (*found, *kept))
    renamed = [replace(a, name=b.name) for a, b in zip(found, kept, strict=True)] if counted else found
    return same_channels(renamed, kept)
