"""The unit of a thermal file: as stated by file or user, never guessed from the values."""

from __future__ import annotations

from simmat.io.images import ImageFile, Unit, stated_unit

KELVIN = Unit("K")
CENTI_KELVIN = Unit("cK", 100.0)
CELSIUS = Unit("degC", offset=273.15)
MILLI_KELVIN = Unit("mK", 1000.0)
KELVIN_64 = Unit("K64", 64.0)
KNOWN = {unit.name: unit for unit in (KELVIN, CENTI_KELVIN, MILLI_KELVIN, CELSIUS, KELVIN_64)}
UNITS = {"K": KELVIN, "cK": CENTI_KELVIN, "mK": MILLI_KELVIN, "C": CELSIUS, "K64": KELVIN_64}
"""Values of the option `unit`."""
_COUNTS = ("count", "counts", "DN")


def unit_of(image: ImageFile, option: Unit | None = None) -> Unit | None:
    """Return the unit stated by file or user; None for counts.

    Raises:
        DataError: the two contradict each other.
    """
    return stated_unit(image, KNOWN, option=option, no_unit=_COUNTS)
