"""Lengths as microscopes write them to files."""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

UM_OF_UNIT: Mapping[str, float] = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "micron": 1.0,
    "microns": 1.0,
    "um": 1.0,
    "µm": 1.0,
    r"\u00B5m": 1.0,
    "nm": 1e-3,
    "Å": 1e-4,
    "pm": 1e-6,
}
"""Unit as OME-XML or ImageJ writes it -> µm; ImageJ writes the micro sign as an escape."""


def ome_length_um(
    element: ElementTree.Element, name: str, default_unit: str = "µm"
) -> float | None:
    """Return a length in µm as an element of OME-XML states it; None if it states none, or in no unit of length.

    Args:
        element: such as Pixels.
        name: the attribute, such as "PhysicalSizeX".
        default_unit: the unit if the element states none.

    Raises:
        ValueError: the length is not a number.
    """
    stated = element.get(name)
    factor = UM_OF_UNIT.get(element.get(f"{name}Unit", default_unit))
    if stated is None or factor is None:
        return None
    return float(stated) * factor
