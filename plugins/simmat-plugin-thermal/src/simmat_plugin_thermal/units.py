"""Which unit a thermal file is in: only what the file itself says, never a guess from its numbers."""

from __future__ import annotations

from simmat.io.images import ImageFile, Unit, stated_unit

KELVIN = Unit("K")
CENTI_KELVIN = Unit("cK", 100.0)
CELSIUS = Unit("degC", offset=273.15)
MILLI_KELVIN = Unit("mK", 1000.0)
KNOWN = {unit.name: unit for unit in (KELVIN, CENTI_KELVIN, MILLI_KELVIN, CELSIUS)}
UNITS = {"K": KELVIN, "cK": CENTI_KELVIN, "mK": MILLI_KELVIN, "C": CELSIUS}
"""What the option `unit` may be."""
_COUNTS = ("count", "counts", "DN")


def unit_of(image: ImageFile, option: Unit | None = None) -> Unit | None:
    """Return the unit that a file or the user states; None for counts; DataError where they contradict each other."""
    return stated_unit(image, KNOWN, option=option, no_unit=_COUNTS)
