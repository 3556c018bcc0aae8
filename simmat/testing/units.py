"""Which unit a quantity may have, and at which wavelengths it is measured."""

from __future__ import annotations

from collections.abc import Mapping

QUANTITY_UNITS: Mapping[str, tuple[str, ...]] = {
    "srgb": ("count",),
    "counts": ("count",),
    "intensity": ("count", "1"),
    "reflectance": ("1",),
    "radiance": ("W/(m2 sr um)", "W/(m2 sr)", "mW/(m2 sr nm)"),
    "brightness_temperature": ("K",),
    "temperature": ("K",),
    "depth": ("m",),
    "distance": ("m",),
    "range": ("m",),
    "elevation": ("m",),
    "height_above_ground": ("m", "count"),
    "disparity": ("px",),
    "horizontal_disparity": ("1/m", "count"),
    "angle_with_gravity": ("deg", "rad", "count"),
    "angle_of_linear_polarization": ("rad", "deg"),
    "degree_of_linear_polarization": ("1",),
    "backscatter": ("dB",),
    "target_strength": ("dB",),
    "sound_pressure_level": ("dB",),
    "amplitude": ("count", "1", "V", "Pa"),
    "power": ("1", "W"),
    "phase": ("rad", "deg"),
    "coherence": ("1",),
    "radial_velocity": ("m/s",),
}
"""Quantities that SimMAT and its plugins know, each with the units it may have; others are the author's own word."""

OPTICAL_UM = (0.01, 100.0)
"""From the extreme ultraviolet to the far infrared; nanometres taken for micrometres lie far above."""
VISIBLE_UM = (0.36, 0.83)
"""What the CIE calls visible, for channels declared RGB."""
RADIO_UM = (1e3, 3e7)
"""From 300 GHz to 10 MHz: what radars and microwave radiometers measure at."""
RADIO_QUANTITIES = ("backscatter", "amplitude", "power", "phase", "coherence")
"""Quantities that radars measure too."""


def plausible_um(quantity: str) -> tuple[tuple[float, float], ...]:
    """Return the (low, high) bands in micrometres that a channel of this quantity can lie in."""
    if quantity == "srgb":
        return (VISIBLE_UM,)
    return (OPTICAL_UM, RADIO_UM) if quantity in RADIO_QUANTITIES else (OPTICAL_UM,)
