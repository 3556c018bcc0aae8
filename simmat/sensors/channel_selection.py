"""Some of a sensor's channels: those that `--channels` picks, and those that a sample lacks.

A missing channel is a plane without a valid pixel. Nothing is filled in; a transfer layer that `takes_missing`
ignores it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simmat.errors import ConfigError, did_you_mean
from simmat.types import Channel, SensorImage, same_channels

_NUMBERED = re.compile(r"band\d+")
"""Names that state only a plane's place in its file."""
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?) ?(nm|um|µm)")
_NEAR = 0.05
"""A wavelength selects a channel if it differs from its centre by at most this fraction."""


@dataclass(frozen=True)
class MissingChannels:
    """Which channels of a sensor are missing from a sample.

    Attributes:
        channels: C channels, as the sensor loads them when none is missing.
        names: names of the missing ones.
    """

    channels: tuple[Channel, ...]
    names: frozenset[str]

    @property
    def all_missing(self) -> bool:
        """True if no channel is left."""
        return len(self.names) == len(self.channels)

    def blank(self, like: SensorImage) -> SensorImage:
        """Return (C, H, W) without a valid pixel, of another image's size."""
        shape = (len(self.channels), *like.size_hw)
        return SensorImage(np.zeros(shape, np.float32), np.zeros(shape, np.bool_), self.channels, like.origin)

    def spread(self, image: SensorImage) -> SensorImage:
        """Return (C, H, W) of all channels, invalid where they are missing; an image that does not fit as it is.

        The file may contain the missing planes; they are ignored. Planes that have only numbers are taken in order.
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
    """Return whether a file's channels are those that are left, or as many that have only numbers."""
    if len(found) == len(kept) and all(_NUMBERED.fullmatch(channel.name) for channel in (*found, *kept)):
        found = [replace(a, name=b.name) for a, b in zip(found, kept, strict=True)]
    return same_channels(found, kept)


def parse_channels(text: str) -> tuple[str | int, ...]:
    """Read a list of channels: names and indices from 0 by comma, ranges with both ends in: "0-6,8,nir".

    Raises:
        ValueError: an empty item, a range that runs backwards, or a channel twice.
    """
    picks: list[str | int] = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            raise ValueError("has an empty item; write names or indices by comma, such as 0-6,8 or red,nir")
        if span := re.fullmatch(r"(\d+)-(\d+)", item):
            first, last = int(span[1]), int(span[2])
            if first > last:
                raise ValueError(f"range {item!r} runs backwards; write {last}-{first}")
            if last - first > 9999:
                raise ValueError(f"range {item!r} has {last - first + 1} channels, at most 10000 are allowed")
            picks += range(first, last + 1)
        else:
            picks.append(int(item) if item.isdecimal() else item)
    if twice := sorted({str(pick) for pick in picks if picks.count(pick) > 1}):
        raise ValueError(f"names {', '.join(twice)} more than once")
    return tuple(picks)


def pick_channels(channels: Sequence[Channel], picks: Sequence[str | int], *, origin: str = "") -> list[int]:
    """Return the indices of channels given by name, by index from 0, or by wavelength ("665nm", "0.86um").

    A wavelength selects the channel whose centre is nearest, within 5 %.

    Raises:
        ConfigError: an unknown name (the nearest is named), an index out of range, a wavelength that is near no
            channel, or a channel twice.
    """
    names = [channel.name for channel in channels]
    where = f"{origin}: " if origin else ""
    found: list[int] = []
    for pick in picks:
        text = str(pick).strip()
        if text in names:
            found.append(names.index(text))
        elif re.fullmatch(r"-?\d{1,9}", text):
            index = int(text)
            if not 0 <= index < len(names):
                have = ", ".join(f"{place} {name}" for place, name in enumerate(names))
                raise ConfigError(f"{where}no channel {index}; channels: {have}")
            found.append(index)
        elif wavelength := _WAVELENGTH.fullmatch(text):
            found.append(_at_wavelength(channels, float(wavelength[1]) / (1000 if wavelength[2] == "nm" else 1), where))
        else:
            raise ConfigError(f"{where}no channel {text!r}{did_you_mean(text, names)} Channels: {names}")
    if len(set(found)) != len(found):
        raise ConfigError(f"{where}a channel is picked twice in {list(picks)}")
    return found


def _at_wavelength(channels: Sequence[Channel], wanted_um: float, where: str) -> int:
    centres = {i: channel.wavelength_um for i, channel in enumerate(channels) if channel.wavelength_um is not None}
    if not centres:
        names = [channel.name for channel in channels]
        raise ConfigError(f"{where}no channel states its wavelength; pick by name or index: {names}")
    best = min(centres, key=lambda index: abs(centres[index] - wanted_um))
    if abs(centres[best] - wanted_um) > _NEAR * wanted_um:
        have = ", ".join(f"{channels[index].name} {centre:g} um" for index, centre in centres.items())
        raise ConfigError(f"{where}no channel within 5 % of {wanted_um:g} um; there are {have}")
    return best
