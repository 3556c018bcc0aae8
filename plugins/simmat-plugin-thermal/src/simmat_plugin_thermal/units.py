"""Which unit a thermal file is in: only what the file itself says, never a guess from its numbers."""

from __future__ import annotations

from pathlib import Path

from simmat.imageio import ImageFile, Unit, stated_unit

KELVIN = Unit("K")
CENTI_KELVIN = Unit("cK", 100.0)
CELSIUS = Unit("degC", offset=273.15)
KNOWN = {unit.name: unit for unit in (KELVIN, CENTI_KELVIN, Unit("mK", 1000.0), CELSIUS)}
_COUNTS = ("count", "counts", "DN")


def said_unit(image: ImageFile) -> Unit | None:
    """Return the unit that a file states; None where it states none, or counts."""
    return stated_unit(image, KNOWN, no_unit=_COUNTS)


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
