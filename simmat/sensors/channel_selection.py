"""Some of a sensor's channels: those that `--channels` picks, and those that a sample lacks.

A missing channel is a plane without a valid pixel. Nothing is filled in; a transfer layer that `takes_missing`
leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simmat.errors import ConfigError, did_you_mean
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


_INDEX = re.compile(r"-?\d{1,9}")
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?) ?(nm|um|µm)")
_NEAR = 0.05  # a wavelength names a band whose centre is within 5 %


def pick_channels(channels: Sequence[Channel], picks: Sequence[str | int], *, origin: str = "") -> list[int]:
    """Turn channel names, 0-based indices and wavelengths ("665nm", "0.86um") into indices.

    A wavelength means the channel whose centre is nearest, within 5 %.

    Raises:
        ConfigError: an unknown name (the nearest is named), an index out of range, a wavelength that no channel is
            near, or a channel twice.
    """
    names = [channel.name for channel in channels]
    where = f"{origin}: " if origin else ""
    found: list[int] = []
    for pick in picks:
        text = str(pick).strip()
        if text in names:
            found.append(names.index(text))
        elif _INDEX.fullmatch(text):
            index = int(text)
            if not 0 <= index < len(names):
                raise ConfigError(f"{where}no channel {index}; there are {len(names)}: 0 to {len(names) - 1} ({names})")
            found.append(index)
        elif wavelength := _WAVELENGTH.fullmatch(text):
            found.append(_at_wavelength(channels, float(wavelength[1]) / (1000 if wavelength[2] == "nm" else 1), where))
        else:
            raise ConfigError(f"{where}no channel {text!r}{did_you_mean(text, names)} Channels: {names}")
    if len(set(found)) != len(found):
        raise ConfigError(f"{where}a channel is picked twice in {list(picks)}")
    return found


def _at_wavelength(channels: Sequence[Channel], wanted_um: float, where: str) -> int:
    """Return the index of the channel whose centre wavelength is nearest; ConfigError where none is within 5 %."""
    centres = {i: channel.wavelength_um for i, channel in enumerate(channels) if channel.wavelength_um is not None}
    if not centres:
        names = [channel.name for channel in channels]
        raise ConfigError(f"{where}no channel states its wavelength; pick by name or index: {names}")
    best = min(centres, key=lambda index: abs(centres[index] - wanted_um))
    if abs(centres[best] - wanted_um) > _NEAR * wanted_um:
        have = ", ".join(f"{channels[index].name} {centre:g} um" for index, centre in centres.items())
        raise ConfigError(f"{where}no channel within 5 % of {wanted_um:g} um; there are {have}")
    return best
