"""Which unit a thermal file is in: only what the file itself says, never a guess from its numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from simmat.errors import DataError
from simmat.imageio import ImageFile


@dataclass(frozen=True, slots=True)
class Unit:
    """How stored numbers become kelvin: `kelvin = scale * stored + offset`."""

    name: str
    scale: float
    offset: float = 0.0


KELVIN = Unit("K", 1.0)
CENTI_KELVIN = Unit("cK", 0.01)
CELSIUS = Unit("degC", 1.0, 273.15)
_BY_NAME = {"K": KELVIN, "cK": CENTI_KELVIN, "mK": Unit("mK", 0.001), "degC": CELSIUS}
_COUNTS = ("count", "counts", "DN")


def stated_unit(image: ImageFile) -> Unit | None:
    """Return the unit that a TIFF's ImageDescription or a PNG's text "Description" states, as json `{"unit": "cK"}`.

    Returns:
        None where the file states none, or states counts.

    Raises:
        DataError: it states a unit that is not known.
    """
    try:
        values = json.loads(image.description)
    except ValueError:
        return None
    if not isinstance(values, dict) or "unit" not in values or values["unit"] in _COUNTS:
        return None
    unit = _BY_NAME.get(values["unit"]) if isinstance(values["unit"], str) else None
    if unit is None:
        raise DataError(
            f"{image.path}: its description states unit {values['unit']!r}; known: {', '.join([*_BY_NAME, *_COUNTS])}"
        )
    return unit


def describe(unit: Unit) -> str:
    """Return the text that `stated_unit` reads back."""
    return json.dumps({"quantity": "brightness_temperature", "unit": unit.name})


def is_flir_jpeg(path: Path) -> bool:
    """True where a JPEG carries FLIR's radiometric records: an APP1 segment that begins with "FLIR"."""
    with path.open("rb") as stream:
        if stream.read(2) != b"\xff\xd8":
            return False
        while True:
            head = stream.read(4)
            if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:  # the scan begins: no more headers
                return False
            length = int.from_bytes(head[2:], "big") - 2
            if length < 0:
                return False
            payload = stream.read(length)
            if head[1] == 0xE1 and payload.startswith(b"FLIR\0"):
                return True
