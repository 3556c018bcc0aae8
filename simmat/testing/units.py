"""Which unit a quantity may have, and at which wavelengths it is measured."""

from __future__ import annotations

import re
from collections.abc import Mapping

from simmat.types import RGB_QUANTITY, Channel

QUANTITY_UNITS: Mapping[str, tuple[str, ...]] = {
    "srgb": ("count",),
    "counts": ("count",),
    "intensity": ("count", "1"),
    "reflectance": ("1",),
    "radiance": ("W/(m2 sr um)", "W/(m2 sr)", "mW/(m2 sr nm)"),
    "irradiance": ("W/m2", "W/(m2 um)", "W/(m2 nm)", "mW/(m2 nm)"),
    "brightness_temperature": ("K",),
    "temperature": ("K",),
    "depth": ("m",),
    "distance": ("m",),
    "range": ("m",),
    "elevation": ("m",),
    "height_above_ground": ("m", "count"),
    "height_above_ground_level": ("m",),
    "disparity": ("px",),
    "horizontal_disparity": ("1/m", "count"),
    "angle_with_gravity": ("deg", "rad", "count"),
    "angle_of_linear_polarization": ("rad", "deg"),
    "angle_of_polarization": ("rad", "deg"),
    "degree_of_linear_polarization": ("1",),
    "degree_of_circular_polarization": ("1",),
    "degree_of_polarization": ("1",),
    "backscatter": ("dB",),
    "target_strength": ("dB",),
    "sound_pressure_level": ("dB",),
    "amplitude": ("count", "1", "V", "Pa"),
    "power": ("1", "W"),
    "phase": ("rad", "deg"),
    "coherence": ("1",),
    "coherency": ("1", "W"),
    "radial_velocity": ("m/s",),
}
"""Quantities that SimMAT and its plugins know, each with the units it may have; others are the author's own word."""

POLARIZATION_ANGLES = ("angle_of_linear_polarization", "angle_of_polarization")
"""Angles in the picture, from a row or column of pixels: a mirror turns them round, and half a turn changes nothing."""

OPTICAL_UM = (0.01, 100.0)
"""From the extreme ultraviolet to the far infrared; nanometres taken for micrometres lie far above."""
VISIBLE_UM = (0.36, 0.83)
"""What the CIE calls visible, for channels declared RGB."""
ALL_UM = (0.01, 3e7)
"""From the extreme ultraviolet over terahertz and millimetre waves to radio of 10 MHz, without a gap."""
OPTICAL_QUANTITIES = (
    "counts",
    "reflectance",
    "radiance",
    "irradiance",
    "depth",
    "disparity",
    "horizontal_disparity",
    "angle_of_linear_polarization",
    "degree_of_linear_polarization",
)
"""Quantities of cameras; radars, radiometers and terahertz scanners measure the others too."""
_OPTICAL_NAMES = {"red", "green", "blue", "rededge", "nir", "vnir", "swir", "mwir", "lwir", "ir", "infrared", "thermal"}


def plausible_um(channel: Channel) -> tuple[float, float]:
    """Return the (low, high) in micrometres that a channel can lie between, by its quantity and the words of its name.

    The name decides between an infrared camera and a microwave radiometer, which both measure kelvin: 10 um in
    nanometres is the wavelength of 30 GHz in micrometres.
    """
    if channel.quantity == RGB_QUANTITY:
        return VISIBLE_UM
    words = set(re.findall("[a-z]+", channel.name.lower()))
    return OPTICAL_UM if channel.quantity in OPTICAL_QUANTITIES or words & _OPTICAL_NAMES else ALL_UM
