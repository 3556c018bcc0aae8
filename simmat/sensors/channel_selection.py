"""Some of a sensor's channels: those that `--channels` picks, and those that a sample lacks.

A missing channel is a plane without a valid pixel. Nothing is filled in; a transfer layer with
`supports_missing_channels` ignores it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import replace

import numpy as np

from simmat.errors import ConfigError, did_you_mean
from simmat.sensors.adapter import (
    ModalityAdapter,
    PathsBySource,
    channels_by_source,
    load_sample,
)
from simmat.types import Channel, SensorImage, Window

_NUMBERED = re.compile(r"band\d+")
"""Names that state only a plane's place in its file."""
_WAVELENGTH = re.compile(r"(\d+(?:\.\d+)?) ?(nm|um|µm)")
_WAVELENGTH_TOLERANCE = 0.05
"""A wavelength selects a channel if it differs from its centre by at most this fraction."""


def absent_sources(
    adapter: ModalityAdapter, channels: Sequence[Channel], missing: Container[str]
) -> tuple[str, ...]:
    """Return the sources whose channels are all missing, so that they need no file.

    Args:
        channels: C channels, as the sensor loads them when none is missing.
        missing: names of the missing ones.
    """
    absent = []
    for source, own in channels_by_source(adapter, channels).items():
        if all(channels[index].name in missing for index in own):
            absent.append(source)
    return tuple(absent)


def load_without(
    adapter: ModalityAdapter,
    files: PathsBySource,
    channels: Sequence[Channel],
    missing: Container[str],
    window: Window | None = None,
) -> SensorImage:
    """Read what a sample has, and add its missing channels: (C, H, W) of all, invalid where they are missing.

    The file may contain the missing planes; they are ignored. Planes that have only numbers are taken in order. An
    image that does not fit is returned as it is. See `simmat.sensors.adapter.load_sample` and `absent_sources`.
    """
    absent = absent_sources(adapter, channels, missing)
    image = load_sample(
        adapter,
        {name: file for name, file in files.items() if name not in absent},
        window,
    )
    kept = [
        index for index, channel in enumerate(channels) if channel.name not in missing
    ]
    place = {channel.name: index for index, channel in enumerate(image.channels)}
    wanted = [channels[index] for index in kept]
    if place.keys() <= {channel.name for channel in channels} and all(
        one.name in place for one in wanted
    ):
        image = image.select([place[channel.name] for channel in wanted])
    if not _fits(image.channels, wanted):
        return image
    shape = (len(channels), *image.size_hw)
    data = np.zeros(shape, np.float32)
    valid = np.zeros(shape, np.bool_)
    data[kept], valid[kept] = image.data, image.valid
    return replace(image, data=data, valid=valid, channels=tuple(channels))


def _fits(found: Sequence[Channel], wanted: Sequence[Channel]) -> bool:
    """Return whether channels are those wanted, or differ only in the numbers of bands."""
    if len(found) != len(wanted):
        return False
    for one, other in zip(found, wanted, strict=True):
        is_same_name = one.name == other.name or (
            _NUMBERED.fullmatch(one.name) and _NUMBERED.fullmatch(other.name)
        )
        if not is_same_name or (one.quantity, one.unit) != (other.quantity, other.unit):
            return False
    return True


def parse_channels(text: str) -> tuple[str | int, ...]:
    """Read a list of channels: names, indices from 0 and ranges, which include both ends, by comma: "0-6,8,nir".

    Raises:
        ValueError: an empty item, a range that runs backwards, or a channel twice.
    """
    selected: list[str | int] = []
    for item in (part.strip() for part in text.split(",")):
        if not item:
            raise ValueError(
                "has an empty item; write names or indices by comma, such as 0-6,8 or red,nir"
            )
        span = re.fullmatch(r"(\d{1,9})-(\d{1,9})", item)
        if span:
            first = int(span[1])
            last = int(span[2])
            if first > last:
                raise ValueError(f"range {item!r} runs backwards; write {last}-{first}")
            if last - first > 9999:
                raise ValueError(
                    f"range {item!r} has {last - first + 1} channels, at most 10000 are allowed"
                )
            selected += range(first, last + 1)
        else:
            selected.append(int(item) if re.fullmatch(r"\d{1,9}", item) else item)
    twice = sorted({str(pick) for pick in selected if selected.count(pick) > 1})
    if twice:
        raise ValueError(f"names {', '.join(twice)} more than once")
    return tuple(selected)


def pick_channels(
    channels: Sequence[Channel], selected: Sequence[str | int], *, origin: str = ""
) -> list[int]:
    """Return the indices of channels given by name, by index from 0, or by wavelength ("665nm", "0.86um").

    A wavelength selects the channel whose centre is nearest, within 5 %.

    Raises:
        ConfigError: an unknown name (the nearest is named), an index out of range, a wavelength that is near no
            channel, or a channel twice.
    """
    names = [channel.name for channel in channels]
    where = f"{origin}: " if origin else ""
    found: list[int] = []
    for pick in selected:
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
            found.append(
                _at_wavelength(
                    channels,
                    float(wavelength[1]) / (1000 if wavelength[2] == "nm" else 1),
                    where,
                )
            )
        else:
            raise ConfigError(
                f"{where}no channel {text!r}{did_you_mean(text, names)} Channels: {names}"
            )
    if len(set(found)) != len(found):
        raise ConfigError(f"{where}a channel is picked twice in {list(selected)}")
    return found


def _at_wavelength(channels: Sequence[Channel], wanted_um: float, where: str) -> int:
    centres = {}
    for i, channel in enumerate(channels):
        if channel.wavelength_um is not None:
            centres[i] = channel.wavelength_um
    if not centres:
        names = [channel.name for channel in channels]
        raise ConfigError(
            f"{where}no channel states its wavelength; pick by name or index: {names}"
        )
    best = min(centres, key=lambda index: abs(centres[index] - wanted_um))
    if abs(centres[best] - wanted_um) > _WAVELENGTH_TOLERANCE * wanted_um:
        have = ", ".join(
            f"{channels[index].name} {centre:g} um" for index, centre in centres.items()
        )
        raise ConfigError(
            f"{where}no channel within 5 % of {wanted_um:g} um; there are {have}"
        )
    return best
