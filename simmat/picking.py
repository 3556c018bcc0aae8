"""Which channels `--channels` means: names, 0-based indices and wavelengths."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simmat.errors import ConfigError, nearest
from simmat.types import Channel

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
            guess = nearest(text, names)
            raise ConfigError(
                f"{where}no channel {text!r}" + (f"; did you mean {guess!r}?" if guess else ".") + f" Channels: {names}"
            )
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
