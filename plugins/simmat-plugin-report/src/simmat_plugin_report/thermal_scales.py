"""Warn of counts of thermal cameras that look like kelvin times 64, and of images in several scales.

The R-JPEG of DJI hold counts whose scale is not documented.
"""

from __future__ import annotations

from simmat.types import Channel

_LONG_WAVE_UM = (7.0, 15.0)
_PER_KELVIN = 64.0
_PLAUSIBLE_K = (233.0, 373.0)
"""Mean temperature of a scene; in centikelvin, counts are higher, and with 14 bits lower."""
_SAME_SCALE = 2.0
"""Most ratio of the mean counts of two images of one scale: 373 K / 233 K = 1.6."""


_MAX_8_BIT = 255.0
"""Pictures of 8 bits have automatic gain, each its own."""


class ThermalScales:
    """The mean counts of each image of thermal channels without a unit."""

    def __init__(self) -> None:
        self._means: dict[str, list[float]] = {}

    def add(self, channel: Channel, mean: float) -> None:
        """Add the mean of one image; of other channels nothing is kept."""
        low, high = _LONG_WAVE_UM
        if channel.unit == "count" and channel.wavelength_um is not None and low <= channel.wavelength_um <= high:
            self._means.setdefault(channel.name, []).append(mean)

    def warnings(self) -> tuple[str, ...]:
        """Return what is doubtful, one line a channel and doubt."""
        found = []
        low, high = (_PER_KELVIN * kelvin for kelvin in _PLAUSIBLE_K)
        for name, means in self._means.items():
            like = [mean for mean in means if low <= mean <= high]
            if like:
                celsius = [mean / _PER_KELVIN - 273.15 for mean in (min(like), max(like))]
                found.append(
                    f"{name} has no unit, but {len(like)} of {len(means)} images look like kelvin times 64, as many "
                    f"files of DJI do: their means would be {celsius[0]:.1f} to {celsius[1]:.1f} °C. If that is right, "
                    "give --modality-option unit=K64"
                )
            if max(means) > max(_SAME_SCALE * min(means), _MAX_8_BIT):
                found.append(
                    f"{name} has images in different scales: their means are {min(means):g} to {max(means):g} count. "
                    "The same count is another temperature in each; keep images of one camera with one gain"
                )
        return tuple(found)
