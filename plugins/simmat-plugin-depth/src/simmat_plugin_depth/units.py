"""Which unit a depth file is in: what the file or the user says, else what RGB-D data sets agree on."""

from __future__ import annotations

from typing import Literal

import numpy as np

from simmat.errors import DataError
from simmat.io.images import ImageFile, Unit, stated_unit

DepthUnit = Literal["m", "cm", "mm", "tum", "kitti"]

METRE = Unit("m")
CENTIMETRE = Unit("cm", 100.0)
MILLIMETRE = Unit("mm", 1000.0)
TUM = Unit("1/5000 m", 5000.0)
KITTI = Unit("1/256 m", 256.0)
KNOWN = {unit.name: unit for unit in (METRE, CENTIMETRE, MILLIMETRE)}


UNITS: dict[DepthUnit, Unit] = {"m": METRE, "cm": CENTIMETRE, "mm": MILLIMETRE, "tum": TUM, "kitti": KITTI}
"""What the option `unit` may be."""
UNIT_WORDS = (
    "Unit of the files; tum is 1/5000 m (TUM RGB-D data sets), kitti 1/256 m (KITTI depth maps). By default as the "
    "file says, else mm for 16-bit integers and m for floats."
)


def unit_of(image: ImageFile, option: DepthUnit | None = None) -> Unit:
    """Return the unit of a file's numbers: the user's or the file's, else metres for floats and mm for 16-bit integers.

    Args:
        image: the file.
        option: the unit that the user states.

    Raises:
        DataError: it states a unit that is not known or not the user's, or its type has no unit by convention.
    """
    stated = stated_unit(image, KNOWN, option=UNITS[option] if option else None)
    if stated is not None:
        return stated
    dtype = image.planes.dtype
    if dtype.kind == "f":
        return METRE
    if dtype in (np.uint16, np.int16):
        return MILLIMETRE
    raise DataError(
        f"{image.path}: {dtype} numbers have no unit by convention (16-bit integers are millimetres, floats metres); "
        f"if you know it, say it with --modality-option unit={', '.join(UNITS)}; for a picture of depth without a "
        "unit, use --modality gray"
    )
